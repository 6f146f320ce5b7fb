"""How many threads the user lets numba have."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numba
from numba.np.ufunc import parallel


def numba_threads() -> int:
    """Return numba's number of threads (NUMBA_NUM_THREADS, `numba.set_num_threads`, CPU affinity)."""
    # get_num_threads() starts the thread pool, which a later fork would not survive: ask only a running one.
    return int(numba.get_num_threads() if parallel._is_initialized else numba.config.NUMBA_NUM_THREADS)


@contextmanager
def one_numba_thread() -> Iterator[None]:
    """Keep numba to one thread within this thread."""
    if numba.config.NUMBA_NUM_THREADS == 1:  # without starting the thread pool
        yield
        return
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        yield
    finally:
        numba.set_num_threads(before)
