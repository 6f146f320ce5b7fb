"""Where layers are analysed: worker processes of our own, an executor of the caller's, or a dask cluster."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from contextlib import contextmanager
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any

import numpy as np
import psutil
from pebble import ProcessExpired, ProcessPool

from spectral_conv.inspection._analysis import Settings, analyze_layer
from spectral_conv.models import ConvLayer
from spectral_conv.operator import ConvOperator

# Libraries read these when they are loaded, and start so many threads.
_ONE_THREAD = dict.fromkeys(
    ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)
_environment = threading.Lock()


class OwnWorkers:
    """Worker processes that live as long as one run, with one thread each; one that dies is replaced.

    Parameters
    ----------
    count : int
        How many.
    warm_up : Settings, optional
        Let each worker load compiled code for these before its first task, which a time limit should not count.

    Attributes
    ----------
    count : int
        How many layers are worked on at one time.
    memory : float or None
        Bytes that one layer may take by default; None where each worker has to see for itself.
    remedy : str
        What to do about a worker that died.
    """

    remedy = "Is memory short? Set a `memory_limit`, or use fewer workers."

    def __init__(self, count: int, warm_up: Settings | None = None) -> None:
        self.count = count
        self.memory = psutil.virtual_memory().available / 2 / count
        self._warm_up = warm_up
        self._pool: ProcessPool | None = None
        self._answered = False

    def submit(self, function: Callable[..., Any], *args: Any, time_limit: float | None) -> Future[Any]:
        """Run a function, for so many seconds at most: `Future.result` then raises TimeoutError."""
        if self._pool is None or not self._pool.active:
            self._renew()
        assert self._pool is not None
        future: Future[Any] = self._pool.schedule(function, args=args, timeout=time_limit)
        future.add_done_callback(self._note)
        return future

    def close(self) -> None:
        """End the processes, in the middle of their work if need be."""
        if self._pool is not None:
            self._pool.stop()
            self._pool.join()

    def _renew(self) -> None:
        # A pool breaks where a worker dies between two tasks.
        if self._pool is not None:
            self.close()
            if not self._answered:
                raise RuntimeError(
                    "The worker processes ended before they did anything. A script must ask for workers below "
                    "`if __name__ == '__main__':`, for each of them runs the top of the script again. Or memory is "
                    "short: use fewer workers."
                )
        self._answered = False
        start = (None, ()) if self._warm_up is None else (_warm_up, (self._warm_up,))
        self._pool = ProcessPool(max_workers=self.count, initializer=start[0], initargs=start[1], context=_Context())

    def _note(self, future: Future[Any]) -> None:
        if not future.cancelled() and not isinstance(future.exception(), BrokenExecutor):
            self._answered = True


class BorrowedWorkers:
    """The workers of an executor that the caller has started and will end."""

    remedy = (
        "Is memory short? Set a `memory_limit`. Run again with a new executor, for one whose worker died may take no "
        "more work (with `store` nothing is repeated), or with `jobs`, whose workers are replaced."
    )

    def __init__(self, executor: Executor) -> None:
        self.count = int(getattr(executor, "_max_workers", None) or os.cpu_count() or 1)
        self.memory: float | None = psutil.virtual_memory().available / 2 / self.count
        self._executor = executor

    def submit(self, function: Callable[..., Any], *args: Any, time_limit: float | None) -> Future[Any]:
        """Run a function; there is no time limit, because no executor can stop a task."""
        assert time_limit is None
        return self._executor.submit(function, *args)

    def close(self) -> None:
        """Leave everything to the caller."""


class DaskWorkers(BorrowedWorkers):
    """The workers of a dask cluster; the scheduler gives the tasks of one that died to others."""

    remedy = "Is memory short? Set a `memory_limit`, or give the workers more memory or fewer threads."

    def __init__(self, client: Any) -> None:
        # Not pure: a task also writes, and may be asked for twice.
        super().__init__(client.get_executor(pure=False, retries=2))
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        self.count = max(1, sum(worker["nthreads"] for worker in workers))
        limits = [worker["memory_limit"] / worker["nthreads"] for worker in workers if worker["memory_limit"]]
        self.memory = min(limits) / 2 if limits else None


Workers = OwnWorkers | BorrowedWorkers


def workers_of(
    executor: Any, jobs: int | None, *, time_limit: float | None = None, settings: Settings
) -> Workers | None:
    """Return the workers that were asked for; None for none, that is for this thread.

    Raises
    ------
    ValueError
        `executor` is none, or is given together with `jobs` or `time_limit`.
    """
    if executor is None:
        if jobs is None and time_limit is None:
            return None
        return OwnWorkers(jobs or 1, settings if time_limit is not None else None)
    if jobs is not None:
        raise ValueError("`executor` and `jobs` must not be given together: either your workers or ours.")
    if time_limit is not None:
        raise ValueError(
            "`time_limit` must not be given with `executor`, for neither an executor nor dask can stop a task that "
            "runs. Use `jobs` instead, with worker processes of our own."
        )
    if isinstance(executor, Executor):
        return BorrowedWorkers(executor)
    if callable(getattr(executor, "get_executor", None)):
        return DaskWorkers(executor)
    raise ValueError(
        "`executor` must be a concurrent.futures.Executor or a dask.distributed.Client; got "
        f"{type(executor).__name__}. For worker processes of our own give `jobs`."
    )


def worker_was_lost(error: BaseException) -> bool:
    """Whether an exception of a future means that the worker did not live to answer."""
    # dask's exception is recognized by name, for dask may be missing.
    lost = (BrokenExecutor, ProcessExpired, CancelledError, MemoryError)
    return isinstance(error, lost) or type(error).__name__ == "KilledWorker"


class _Process(SpawnProcess):
    """A fresh interpreter whose libraries find one thread in the environment."""

    def start(self) -> None:
        with _one_thread_inherited():
            super().start()


class _Context(SpawnContext):
    Process = _Process


@contextmanager
def _one_thread_inherited() -> Iterator[None]:
    with _environment:
        before = {name: os.environ.get(name) for name in _ONE_THREAD}
        os.environ.update(_ONE_THREAD)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def _warm_up(settings: Settings) -> None:
    rng = np.random.default_rng(0)
    for channels, size in ((2, 4), (8, 24)):  # dense, and by iterations
        conv = ConvOperator(rng.standard_normal((3, 3, channels, channels)), (size, size))
        layer = ConvLayer(name="", operator=conv, assumed=(), kernel_shape=conv.kernel.shape, layout="HWIO")
        analyze_layer(layer, settings)
