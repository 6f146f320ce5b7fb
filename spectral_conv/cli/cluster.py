"""A dask cluster by the address of its scheduler."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distributed import Client

# Seconds in which the scheduler must answer.
PATIENCE = 20


@contextmanager
def connected(address: str | None) -> Iterator[Client | None]:
    """Connect to a scheduler while the block runs; None for no address.

    Raises
    ------
    ImportError
        dask is missing.
    OSError, ValueError
        Nothing answers there.

    Examples
    --------
    >>> with connected(None) as client:
    ...     client is None
    True
    """
    if address is None:
        yield None
        return
    try:
        from distributed import Client
    except ImportError as error:
        raise ImportError("`--dask` needs dask; install it with: pip install 'spectral-conv[distributed]'") from error
    with Client(address, timeout=PATIENCE, set_as_default=False) as client:
        yield client
