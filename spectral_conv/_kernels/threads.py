"""How many threads the user lets numba have."""

from __future__ import annotations

import numba
from numba.np.ufunc import parallel


def numba_threads() -> int:
    """Return numba's number of threads (NUMBA_NUM_THREADS, `numba.set_num_threads`, CPU affinity)."""
    # get_num_threads() starts the thread pool, which a later fork would not survive: ask only a running one.
    return int(numba.get_num_threads() if parallel._is_initialized else numba.config.NUMBA_NUM_THREADS)
