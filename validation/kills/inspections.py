"""Runs of `inspect_files` into a store whose driver is killed: resumed, they end with the table of a run left alone.

Half of them have two worker processes, which must end by themselves when their driver is gone.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import xarray as xr
import zarr.storage  # noqa: F401 - not to be paid for by every child
from safetensors.numpy import save_file

from spectral_conv._threads import one_thread
from spectral_conv.inspection import inspect_files
from spectral_conv.inspection._records import find_record

SIZE = (4, 10, 10)
# Layers of the models, some 30 ms each; the last two share theirs.
LAYERS = (6, 10, 3, 3)
# A driver is killed after it has put up to so many files of results or tables in their places, ...
STEPS = 8
# ... and so many seconds more at most: in the middle of a layer, of a file, of a table.
JITTER = 0.05
# Workers that lost their driver end within this time.
PATIENCE = 30.0
# A run that is not through after so many kills is left alone at last.
KILLS_PER_RUN = 8
VOLATILE = ("seconds",)


@dataclass(frozen=True, kw_only=True)
class Kill:
    """A killed driver.

    Attributes
    ----------
    complaint : str or None
        What is wrong with the store.
    steps : tuple of int
        Numbers of results of layers and of tables that were there.
    """

    complaint: str | None
    steps: tuple[int, int]


def saved_models(folder: Path) -> list[Path]:
    """Write the models."""
    paths = []
    for number, count in enumerate(LAYERS):
        rng = np.random.default_rng(min(number, len(LAYERS) - 2))
        paths.append(folder / f"{number}.safetensors")
        save_file({f"{i}.weight": rng.standard_normal((4, 4, 3, 3)) for i in range(count)}, paths[-1])
    return paths


def inspect_and_tell(paths: list[Path], store: Path, jobs: int | None, pipe: Connection) -> None:
    """Inspect all models into a store; tell of the start and the end."""
    os.setsid()  # a group of its own, with its workers
    pipe.send("started")
    with one_thread():
        for _ in inspect_files(paths, input_size=SIZE, store=store, jobs=jobs):
            pass
    pipe.send("through")


def tables(store: Path) -> dict[str, xr.Dataset]:
    """Load all tables by the path of the model, without what no two runs share."""
    found = {}
    for group in store.iterdir():
        if not group.name.startswith("."):
            table = xr.open_zarr(group).load().drop_vars(VOLATILE)
            found[table.attrs["path"]] = table.drop_attrs(deep=False)
    return found


def records(store: Path) -> dict[str, bytes]:
    """Return the results of layers that are there; raise AssertionError where one is torn."""
    found = {}
    for file in store.glob(".layers/*/*.json"):
        assert find_record(store / ".layers", file.stem) is not None, f"{file.name} is torn"
        found[file.name] = file.read_bytes()
    return found


def check(store: Path, wanted: dict[str, xr.Dataset], kept: dict[str, bytes]) -> dict[str, bytes]:
    """Raise AssertionError where a table is wrong, or a result was lost or made again; return the results."""
    for path, table in tables(store).items():
        xr.testing.assert_identical(table, wanted[path])
    found = records(store)
    for name, content in kept.items():
        assert found.get(name) == content, f"{name} was there, and was lost or made again"
    return found


def steps(store: Path) -> tuple[int, int]:
    """Count the results of layers and the tables that are there."""
    results = sum(1 for _ in store.glob(".layers/*/*.json"))
    return results, sum(not path.name.startswith(".") for path in store.glob("*"))


def run_once(
    paths: list[Path], store: Path, jobs: int | None, enough: Callable[[], bool] | None, jitter: float = 0.0
) -> bool:
    """Run a driver, and kill it when it has done enough unless that is None; whether it was through before."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["validation.kills.inspections"])
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=inspect_and_tell, args=(paths, store, jobs, there))
    process.start()
    there.close()
    try:
        assert here.poll(60.0), "the driver did not start"
        here.recv()
        while not here.poll(600.0 if enough is None else 0.002) and enough is not None and not enough():
            pass
        through = here.poll(jitter) and here.recv() == "through"
        assert through or enough is not None, "the driver is not through after ten minutes"
        if not through:
            os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL), f"the driver failed by itself: {process.exitcode}"
        _wait_for_the_end(process.pid or 0)
    finally:
        process.kill()
        process.join()
        here.close()
    return through


def random_kills(folder: Path, count: int, seed: int = 0, jobs: Sequence[int | None] = (None, 2)) -> Iterator[Kill]:
    """Kill so many drivers, with workers as in `jobs`; yield what was there after each, and what is wrong."""
    rng = np.random.default_rng(seed)
    paths = saved_models(folder)
    with one_thread():
        list(inspect_files(paths, input_size=SIZE, store=folder / "alone.zarr"))
    wanted = tables(folder / "alone.zarr")
    killed = run = 0
    while killed < count:
        store, kept = folder / f"{run}.zarr", dict[str, bytes]()
        run += 1
        through, kills = False, 0
        while not through:
            workers = jobs[int(rng.integers(len(jobs)))]
            last = kills == KILLS_PER_RUN or killed == count
            wait = sum(steps(store)) + int(rng.integers(STEPS))
            try:
                enough = None if last else partial(_reached, store, wait)
                through = run_once(paths, store, workers, enough, rng.uniform(0.0, JITTER))
                kept = check(store, wanted, kept) if store.exists() else kept
                assert not through or set(tables(store)) == set(wanted), "tables are missing"
                assert not through or len(xr.open_datatree(store, engine="zarr").children) == len(wanted)
                complaint = None
            except Exception as error:  # whatever it is, the store is wrong
                complaint = f"kill {killed}: {type(error).__name__}: {error}"
                through = True
            if complaint or not (through or last):
                killed += 1
                kills += 1
                yield Kill(complaint=complaint, steps=steps(store))


def main(count: int) -> int:
    """Kill and print a summary; 1 where a store was wrong."""
    # The semaphores of a killed driver are told, and removed, by the process that looks after them.
    os.environ["PYTHONWARNINGS"] = "ignore:resource_tracker"
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        wrong = []
        found = []
        for kill in random_kills(Path(folder), count, seed=time.time_ns()):
            found.append(kill.steps)
            if kill.complaint:
                wrong.append(kill.complaint)
                print(kill.complaint, flush=True)
        runs = len(list(Path(folder).glob("*.zarr"))) - 1
    print(
        f"{count} drivers killed at random times while they inspected, {sum(layers > 0 for layers, _ in found)} of "
        f"them with results and {sum(tables > 0 for _, tables in found)} with tables in the store, {runs} runs in "
        f"the end through: {len(wrong)} stores wrong; {time.perf_counter() - start:.0f} s"
    )
    return 1 if wrong else 0


def _reached(store: Path, wanted: int) -> bool:
    return sum(steps(store)) >= wanted


def _wait_for_the_end(group: int) -> None:
    """Wait until no process of a group is left."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.02)
    os.killpg(group, signal.SIGKILL)
    raise AssertionError(f"workers outlived their driver by {PATIENCE:g} s")
