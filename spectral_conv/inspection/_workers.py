"""Where layers are analysed: worker processes of our own, an executor of the caller's, or a dask cluster."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from functools import partial
from typing import Any

import numpy as np
import psutil

from spectral_conv.inspection._analysis import Settings, analyze_layer
from spectral_conv.inspection._processes import OwnWorkers, WorkerDiedError
from spectral_conv.models import ConvLayer
from spectral_conv.operator import ConvOperator


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
        return OwnWorkers(jobs or 1, None if time_limit is None else partial(_warm_up, settings))
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
    lost = (BrokenExecutor, WorkerDiedError, CancelledError, MemoryError)
    return isinstance(error, lost) or type(error).__name__ == "KilledWorker"


def _warm_up(settings: Settings) -> None:
    """Load compiled code."""
    rng = np.random.default_rng(0)
    for channels, size in ((2, 4), (8, 24)):  # dense, and by iterations
        conv = ConvOperator(rng.standard_normal((3, 3, channels, channels)), (size, size))
        layer = ConvLayer(name="", operator=conv, assumed=(), kernel_shape=conv.kernel.shape, layout="HWIO")
        analyze_layer(layer, settings)
