"""A whole model, or many: every convolution's exact extreme singular values beside what the FFT says.

Groups
------
Models: inspect_model -- one; inspect_files -- many files, with one set of workers; Inspection -- what is found out.
Layers: analyze_layer -- one layer; layer_cost -- what that will take; layer_record; Settings -- what is wanted.

Inside
------
_analysis -- one layer, a pure function
_inspection -- the results of one model, and the forms they are handed out in
_inspect -- the doors
_opened, _model_file -- a model without its weights; a file that is opened again
_tasks -- what a worker does
_batches, _schedule -- in what order, and what happens when a worker dies or time is up
_workers -- processes of our own, executors, dask
_records, _store -- results of layers and tables of models on disk
_run -- all of this together
"""

from spectral_conv.inspection._analysis import Settings, analyze_layer, layer_cost, layer_record
from spectral_conv.inspection._inspect import inspect_files, inspect_model
from spectral_conv.inspection._inspection import Inspection

__all__ = [
    "Inspection",
    "Settings",
    "analyze_layer",
    "inspect_files",
    "inspect_model",
    "layer_cost",
    "layer_record",
]
