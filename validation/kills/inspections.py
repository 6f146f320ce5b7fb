"""Runs of `inspect_files` into a store whose driver is killed: resumed, they end with the table of a run left alone.

Half of them have two worker processes, which must end by themselves when their driver is gone.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
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
# A driver lives for at most so long after it began, in seconds: with workers it takes one second to start them.
LIFE = {None: 0.4, 2: 2.0}
# Workers that lost their driver end within this time.
PATIENCE = 30.0
# A run that is not through after so many kills is left alone at last.
KILLS_PER_RUN = 8
VOLATILE = ("seconds",)


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
            table = xr.open_zarr(store, group=group.name).load().drop_vars(VOLATILE)
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


def run_once(paths: list[Path], store: Path, jobs: int | None, life: float | None) -> bool:
    """Run a driver, kill it after a while unless `life` is None; whether it was through before."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["validation.kills.inspections"])
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=inspect_and_tell, args=(paths, store, jobs, there))
    process.start()
    there.close()
    try:
        assert here.poll(60.0), "the driver did not start"
        here.recv()
        through = here.poll(600.0 if life is None else life) and here.recv() == "through"
        if life is not None and not through:
            os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL), f"the driver failed by itself: {process.exitcode}"
        _wait_for_the_end(process.pid or 0)
    finally:
        process.kill()
        process.join()
        here.close()
    return through


def random_kills(
    folder: Path, count: int, seed: int = 0, jobs: Sequence[int | None] = (None, 2)
) -> Iterator[str | None]:
    """Kill so many drivers, with workers as in `jobs`; yield what is wrong after each, None where all is well."""
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
            try:
                through = run_once(paths, store, workers, None if last else rng.uniform(0.0, LIFE[workers]))
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
                yield complaint


def main(count: int) -> int:
    """Kill and print a summary; 1 where a store was wrong."""
    # The semaphores of a killed driver are told, and removed, by the process that looks after them.
    os.environ["PYTHONWARNINGS"] = "ignore:resource_tracker"
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        wrong = []
        for complaint in random_kills(Path(folder), count, seed=time.time_ns()):
            if complaint:
                wrong.append(complaint)
                print(complaint, flush=True)
        runs = len(list(Path(folder).glob("*.zarr"))) - 1
    print(
        f"{count} drivers killed at random times while they inspected, {runs} runs in the end through: "
        f"{len(wrong)} stores wrong; {time.perf_counter() - start:.0f} s"
    )
    return 1 if wrong else 0


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
