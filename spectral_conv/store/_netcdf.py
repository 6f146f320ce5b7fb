"""One netCDF file of all records, for readers that know no Zarr."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from spectral_conv.store._layout import DIM

if TYPE_CHECKING:
    import xarray as xr


def netcdf(records: xr.Dataset) -> bytes:
    """Return records, which this changes, as the bytes of a file of netCDF 3."""
    from xarray import Variable

    for name, variable in list(records.variables.items()):
        values, kind = variable.values, variable.dtype.kind
        if kind in "iu":
            limits = np.iinfo(np.int32)
            fits = not values.size or (values.min() >= limits.min and values.max() <= limits.max)
            values = values.astype(np.int32 if fits else np.float64)
        elif variable.dtype == np.float16:
            values = values.astype(np.float32)
        records[name] = Variable(variable.dims, values, _plain(variable.attrs))
    records.attrs = _plain(records.attrs)
    # A record dimension, because other variables may not exceed 4 GB.
    content = records.to_netcdf(engine="scipy", format="NETCDF3_64BIT", unlimited_dims=[DIM])
    return cast("bytes", content)


def _plain(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    """Return attributes that netCDF 3 can hold."""
    fits = {name: isinstance(v, str | float) or (isinstance(v, int) and abs(v) < 2**31) for name, v in attrs.items()}
    return {
        str(name): (int(v) if isinstance(v, bool) else v) if fits[name] else json.dumps(v)
        for name, v in attrs.items()
    }
