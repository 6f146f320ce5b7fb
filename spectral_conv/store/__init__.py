"""The course of a descent on disk: one labelled record per iteration, kept whatever ends the process.

_store -- `SpectrumStore`: what is written when, so that each record is there entirely or not at all
_layout -- what a record becomes in Zarr's format 2
_files -- whole files brought to the disk
_lock -- the right to append, of one process at a time
_netcdf -- all records as one netCDF file
"""

from spectral_conv.store._layout import SCHEMA
from spectral_conv.store._store import SpectrumStore

__all__ = ["SCHEMA", "SpectrumStore"]
