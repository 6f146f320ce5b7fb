"""Appends to a `SpectrumStore` that are killed: nothing acknowledged is lost, nothing torn appears.

``python -m validation.kills [count=200]`` kills so many processes at random times; its exit code is 1 where a store
is wrong. ``python -m validation.kills inspections [200]`` does so with runs of `inspect_files`.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest import mock

import numcodecs.zstd  # noqa: F401 - not to be paid for by every child
import numpy as np
import xarray as xr

from spectral_conv.store import SCHEMA, SpectrumStore, _layout

COUNT = 200
# Chunks of few records, so that appends also begin new ones.
BLOCK = 32
# A child lives for at most so long after its first append began, in seconds: up to some 30 appends.
LIFE = 0.5
# A new store after so many kills: reading a long one takes longer than what is tested.
KILLS_PER_STORE = 10

OPERATIONS = ("open", "write", "fsync", "replace", "mkdir", "unlink", "rmdir")


def record(iteration: int) -> xr.Dataset:
    """Return the record that belongs to an iteration: large and small arrays of all kinds."""
    rng = np.random.default_rng(iteration)
    spectrum = rng.standard_normal((1, 4, 4, 2)) if iteration % 10 == 0 else np.full((1, 4, 4, 2), np.nan)
    variables: dict[str, tuple[tuple[str, ...], Any]] = {
        "kernel": (("kernel_y", "kernel_x"), rng.standard_normal((1, 3, 3)).astype(np.float32)),
        "penalty": ((), [(0.0, np.nan, -0.0, rng.random())[iteration % 4]]),
        "multiplicity": ((), [iteration**7]),
        "circulant_spectrum": (("frequency_y", "frequency_x", "rank"), spectrum),
        "circulant_computed": ((), [iteration % 10 == 0]),
    }
    return xr.Dataset(
        {name: (("iteration", *dims), values, {"units": "1"}) for name, (dims, values) in variables.items()},
        coords={"iteration": [iteration], "rank": np.arange(2)},
        attrs={"title": "kills"},
    )


def state(iteration: int) -> dict[str, np.ndarray[Any, Any]]:
    """Return the state that belongs to an iteration: its shapes change."""
    rng = np.random.default_rng([iteration, 1])
    return {"vectors": rng.standard_normal((iteration % 3, 50)), "count": np.array(iteration)}


def verify(path: Path, acknowledged: int | None) -> int:
    """Raise AssertionError unless a store holds what was acknowledged, or one record more; return how many."""
    kept = SpectrumStore(path)
    last = kept.last_iteration
    least = -1 if acknowledged is None else acknowledged
    count = 0 if last is None else last + 1
    assert least + 1 <= count <= least + 2, f"{least + 1} records were acknowledged, {count} are there"
    if last is None:
        with suppress(FileNotFoundError):
            assert not xr.open_zarr(path).variables, "variables before the first record"
        assert kept.state() == {}
        return 0
    plain = xr.open_zarr(path).load()
    xr.testing.assert_identical(plain, kept.open())
    assert plain.attrs == {"title": "kills", "schema": SCHEMA}
    wanted = xr.concat([record(i) for i in range(count)], "iteration", data_vars="minimal").assign_attrs(plain.attrs)
    xr.testing.assert_identical(plain, wanted)
    for name, variable in wanted.variables.items():
        # Also the sign of zero.
        assert plain[name].values.tobytes() == variable.values.tobytes(), name
        assert plain[name].dtype == variable.dtype, name
    found, due = kept.state(), state(last)
    assert found.keys() == due.keys()
    for name in due:
        assert found[name].dtype == due[name].dtype, name
        assert found[name].shape == due[name].shape, name
        assert found[name].tobytes() == due[name].tobytes(), name
    return count


@contextmanager
def at_operation(number: int, act: Callable[[str], None]) -> Iterator[list[str]]:
    """Call `act` before the file operation of that number, in the middle of it if it is a write; list all of them."""
    seen: list[str] = []
    guard = threading.Lock()

    def replaced(name: str) -> Callable[..., Any]:
        original = getattr(os, name)

        def operation(*args: Any, **options: Any) -> Any:
            with guard:
                seen.append(name)
                its_own = len(seen) - 1
            if its_own == number:
                if name == "write":
                    original(args[0], bytes(args[1])[: len(args[1]) // 2])
                act(name)
            return original(*args, **options)

        return operation

    patches = [mock.patch.object(os, name, replaced(name)) for name in OPERATIONS]
    for patch in patches:
        patch.start()
    try:
        yield seen
    finally:
        for patch in patches:
            patch.stop()


def append_until_killed(path: Path, pipe: Connection) -> None:
    """Append records for ever, and tell of each one."""
    _layout.BLOCK = BLOCK
    kept = SpectrumStore(path)
    following = 0 if kept.last_iteration is None else kept.last_iteration + 1
    pipe.send(None)
    while True:
        kept.append(record(following), state(following))
        pipe.send(following)
        following += 1


def append_and_exit(path: Path, pipe: Connection, number: int) -> None:
    """Append one record, and end without any clean-up before the file operation of that number; tell if it came."""
    _layout.BLOCK = BLOCK
    kept = SpectrumStore(path)
    following = 0 if kept.last_iteration is None else kept.last_iteration + 1
    one, vectors = record(following), state(following)
    with at_operation(number, lambda _name: os._exit(9)):
        kept.append(one, vectors)
    pipe.send(following)


@contextmanager
def child(target: Callable[..., None], path: Path, *args: Any) -> Iterator[tuple[Any, Connection]]:
    """Fork a process that has imported everything; kill it at the end."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["validation.kills"])
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=target, args=(path, there, *args), daemon=True)
    process.start()
    there.close()
    try:
        yield process, here
    finally:
        process.kill()
        process.join()
        process.close()
        here.close()


def received(pipe: Connection) -> Iterator[int]:
    """Yield all that a child told, to its end."""
    while True:
        try:
            yield pipe.recv()
        except (EOFError, ConnectionResetError):
            return


def kill_once(path: Path, acknowledged: int | None, rng: np.random.Generator) -> int | None:
    """Kill a process that appends, verify, append one record more; return the last one acknowledged."""
    with child(append_until_killed, path) as (process, pipe):
        assert pipe.poll(60), "the child did not start"
        pipe.recv()
        time.sleep(rng.uniform(0.0, LIFE))
        os.kill(process.pid, signal.SIGKILL)
        told = list(received(pipe))
        process.join()
        assert process.exitcode == -signal.SIGKILL, "the child failed by itself"
    return verify_and_append(path, told[-1] if told else acknowledged)


def verify_and_append(path: Path, acknowledged: int | None) -> int:
    """Verify a store, and that it goes on; return the last record."""
    count = verify(path, acknowledged)
    SpectrumStore(path).append(record(count), state(count))
    assert SpectrumStore(path).last_iteration == count
    return count


def random_kills(folder: Path, count: int, seed: int = 0) -> Iterator[str | None]:
    """Kill so many processes; yield what is wrong after each, None where all is well."""
    rng = np.random.default_rng(seed)
    acknowledged: int | None = None
    fresh = 0
    for number in range(count):
        if number % KILLS_PER_STORE == 0:
            fresh, acknowledged = number, None
        try:
            acknowledged = kill_once(folder / f"{fresh}.zarr", acknowledged, rng)
        except Exception as error:  # whatever it is, the store is wrong
            yield f"kill {number}: {type(error).__name__}: {error}"
            acknowledged = SpectrumStore(folder / f"{fresh}.zarr").last_iteration
        else:
            yield None


def main(words: list[str]) -> int:
    """Kill and print a summary; 1 where a store was wrong."""
    count = int(words[0].removeprefix("count=")) if words else COUNT
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        wrong = []
        for complaint in random_kills(Path(folder), count, seed=time.time_ns()):
            if complaint:
                wrong.append(complaint)
                print(complaint, flush=True)
        records = sum((SpectrumStore(path).last_iteration or 0) + 1 for path in Path(folder).glob("*.zarr"))
    print(
        f"{count} processes killed at random times while they appended, {records} records in the end: "
        f"{len(wrong)} stores wrong; {time.perf_counter() - start:.0f} s"
    )
    return 1 if wrong else 0
