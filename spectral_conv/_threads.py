"""Threads: one level of parallelism, outside; BLAS stays serial inside."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from threadpoolctl import OpenBLASController, ThreadpoolController

from spectral_conv._kernels.threads import numba_threads, one_numba_thread

T = TypeVar("T")


@functools.cache
def _controller() -> ThreadpoolController:
    # NumPy and SciPy bring a BLAS library each; both must be loaded to be found.
    import numpy.linalg  # noqa: F401
    import scipy.linalg.cython_blas  # noqa: F401

    return ThreadpoolController()


def _take_control() -> None:
    """Let this thread set limits: since threadpoolctl 3.8 only the first one to try may, and others do nothing.

    The lock of `_SerialBlas` does here what that rule is for.
    """
    clear = getattr(OpenBLASController, "clear_controlling_thread", None)
    if clear is not None:
        clear(force=True)


class _SerialBlas:
    """One BLAS thread while anyone wants it so: the number is global, the first sets it, the last puts it back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._limiter: Any = None

    def enter(self) -> None:
        with self._lock:
            if self._users == 0:
                _take_control()
                self._limiter = _controller().limit(limits=1, user_api="blas")
            self._users += 1

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                _take_control()
                self._limiter.restore_original_limits()


_serial = _SerialBlas()


@contextmanager
def serial_blas() -> Iterator[None]:
    """Keep BLAS to one thread: with two on a busy machine it was 10 to 30 times slower."""
    _serial.enter()
    try:
        yield
    finally:
        _serial.leave()


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep all that this thread computes to itself: one of several workers that share a machine."""
    with serial_blas(), one_numba_thread():
        yield


def run_parallel(task: Callable[[T], None], items: Iterable[T]) -> None:
    """Run `task` on every item, in as many threads as numba may use; the first error is raised.

    The threads live for this call only, so nothing is left running after an error, Ctrl-C or a fork.
    """
    with serial_blas():
        work = list(items)
        count = min(numba_threads(), len(work))
        if count <= 1:
            for item in work:
                task(item)
            return
        with ThreadPoolExecutor(count) as pool:
            futures = [pool.submit(task, item) for item in work]
            try:
                for future in futures:
                    future.result()
            finally:
                for future in futures:
                    future.cancel()
