"""Threads: one level of parallelism, outside; BLAS stays serial inside."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from threadpoolctl import ThreadpoolController

from spectral_conv._kernels.threads import numba_threads

T = TypeVar("T")


@functools.cache
def _controller() -> ThreadpoolController:
    # NumPy and SciPy bring a BLAS library each; both must be loaded to be found.
    import numpy.linalg  # noqa: F401
    import scipy.linalg.cython_blas  # noqa: F401

    return ThreadpoolController()


def serial_blas() -> Any:
    """Context manager: one BLAS thread (with two on a busy machine it was 10 to 30 times slower)."""
    return _controller().limit(limits=1, user_api="blas")


def run_parallel(task: Callable[[T], None], items: Iterable[T]) -> None:
    """Run `task` on every item, in as many threads as numba may use; the first error is raised.

    The threads live for this call only, so nothing is left running after an error, Ctrl-C or a fork.
    """
    with serial_blas():
        count = numba_threads()
        if count == 1:
            for item in items:
                task(item)
            return
        with ThreadPoolExecutor(count) as pool:
            futures = [pool.submit(task, item) for item in items]
            try:
                for future in futures:
                    future.result()
            finally:
                for future in futures:
                    future.cancel()
