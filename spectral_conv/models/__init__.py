"""Convolution layers from model files: what the file says, what was assumed, and what was left out and why.

Groups
------
Reading: read_model -- a file's convolution layers as operators; find_layer -- one of them by name.
Writing: layers_document -- their geometry as a layers document.
Objects: Model, ConvLayer, Skipped; ModelError -- the one error for files that cannot be used.

A reader is one module with `FORMAT`, `SUFFIXES`, `can_open` and `read`, listed in `_registry`.
"""

from spectral_conv.models._lookup import find_layer
from spectral_conv.models._model import ConvLayer, Model, ModelError, Skipped
from spectral_conv.models._read import read_model
from spectral_conv.models.layers_json import layers_document

__all__ = ["ConvLayer", "Model", "ModelError", "Skipped", "find_layer", "layers_document", "read_model"]
