from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from spectral_conv.labels import label_snapshots
from spectral_conv.operator import ConvOperator
from spectral_conv.results import Enclosure, Snapshot
from spectral_conv.store import SCHEMA, SpectrumStore, _layout
from validation import kills
from validation.kills import record, state

KILLS = 10
needs_fork = pytest.mark.skipif(
    "forkserver" not in multiprocessing.get_all_start_methods(), reason="the platform has no SIGKILL or fork"
)


def filled(path: Path, count: int = 3) -> SpectrumStore:
    store = SpectrumStore(path)
    for i in range(count):
        store.append(record(i), state(i))
    return store


def snapshot(iteration: int, shape: tuple[int, ...], dtype: str = "float64") -> xr.Dataset:
    """Return a record as a descent makes it."""
    rng = np.random.default_rng(iteration)
    extreme = Enclosure(lower=1.0, value=rng.random(), upper=2.0, basis="residual", method="dense", applications=1)
    grid = (*(6,) * (len(shape) - 2), min(shape[-2:]))
    one = Snapshot(
        iteration=iteration,
        kernel=rng.standard_normal(shape).astype(dtype),
        penalty=rng.random(),
        gradient_norm=np.inf,
        terms={"Frobenius": rng.random()},
        step=0.0,
        seconds=0.1,
        multiplicity=iteration,
        extremes={"sigma_max": extreme, "sigma_min": extreme},
        circulant=None if iteration % 10 else rng.random(grid),
    )
    layout = {3: "WIO", 4: "HWIO", 5: "DHWIO"}[len(shape)]
    geometry = ConvOperator(one.kernel, input_shape=grid[:-1], layout=layout).geometry
    labelled = label_snapshots([one], geometry, grid)
    labelled.attrs = {"title": "descent", "track_rtol": 1e-8, "seed": np.int64(5), "nothing": None, "flag": True}
    return labelled


@pytest.mark.parametrize("shape", [(3, 1, 2), (3, 3, 2, 1), (2, 3, 3, 2, 2), (3, 3, 8, 16)], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_plain_open_zarr_reads_what_was_appended(
    tmp_path: Path, shape: tuple[int, ...], dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_layout, "BLOCK", 64)
    store = SpectrumStore(tmp_path / "run.zarr")
    records = [snapshot(i, shape, dtype) for i in range(12)]
    for one in records:
        store.append(one)
    plain = xr.open_zarr(store.path).load()
    wanted = xr.concat(records, "iteration", data_vars="minimal").assign_attrs(seed=5, schema=SCHEMA)
    xr.testing.assert_identical(plain, wanted)
    xr.testing.assert_identical(store.open(), plain)
    for name, variable in wanted.variables.items():
        assert plain[name].dtype == variable.dtype, name
        assert plain[name].attrs == variable.attrs
    assert store.last_iteration == 11


def test_nothing_is_touched_before_the_first_append(tmp_path: Path) -> None:
    store = SpectrumStore(os.fspath(tmp_path / "run.zarr"))
    assert store.path == tmp_path / "run.zarr"
    assert store.last_iteration is None
    assert store.state() == {}
    assert "run.zarr" in repr(store)
    with pytest.raises(FileNotFoundError, match=r"`path` must be a store with a record; .* has none"):
        store.open()
    store.check(record(0))
    assert list(tmp_path.iterdir()) == []


def test_values_that_look_like_missing_ones_come_back(tmp_path: Path) -> None:
    odd = np.array([[0x7FF80000DEADBEEF, 0x8000000000000000, 0x7FF0000000000000]], dtype=np.uint64).view(np.float64)
    one = xr.Dataset(
        {
            "odd": (("iteration", "n"), odd),
            "none": (("iteration", "m"), np.zeros((1, 0))),
            "zeros": (("iteration", "k"), np.zeros((1, 5000))),
            "false": ("iteration", [False]),
            "least": ("iteration", [np.iinfo(np.int64).min]),
            "half": ("iteration", np.array([1.5], np.float16)),
            "swapped": ("iteration", np.array([1.5], ">f8")),
            "complex": ("iteration", [1j]),
        },
        coords={
            "iteration": [0],
            "clock": ("iteration", [7.5]),
            "label": ("n", np.array(["a", "bc", ""])),
            "scale": 2.0,
        },
    )
    store = SpectrumStore(tmp_path / "run.zarr")
    for i in range(3):
        store.append(one.assign_coords(iteration=[i]))
    found = xr.open_zarr(store.path).load()
    assert set(found.coords) == {"iteration", "clock", "label", "scale"}
    assert found.attrs == {"schema": SCHEMA}
    for i in range(3):
        at = found.isel(iteration=[i]).assign_coords(iteration=[0]).drop_attrs()
        xr.testing.assert_identical(at, one)
        assert at["odd"].values.tobytes() == odd.tobytes()


def test_another_object_sees_and_continues_what_one_has_appended(tmp_path: Path) -> None:
    first, second = SpectrumStore(tmp_path / "run.zarr"), SpectrumStore(tmp_path / "run.zarr")
    for i in range(6):
        (first, second)[i % 2].append(record(i), state(i))
        assert first.last_iteration == second.last_iteration == i
    assert kills.verify(first.path, 5) == 6
    xr.testing.assert_identical(first.open(), second.open())


def test_an_object_forgets_a_store_that_was_replaced(tmp_path: Path) -> None:
    store = filled(tmp_path / "run.zarr")
    shutil.rmtree(store.path)
    assert store.last_iteration is None
    other = SpectrumStore(store.path)
    for i in range(3):
        other.append(record(i).assign(penalty=("iteration", [10.0 + i], {"units": "1"})))
    store.append(record(3))
    np.testing.assert_array_equal(store.open()["penalty"].values[:3], [10.0, 11.0, 12.0])


def test_any_order_in_memory_reads_back(tmp_path: Path) -> None:
    rng, store = np.random.default_rng(0), SpectrumStore(tmp_path / "run.zarr")
    arrays = [np.asfortranarray(rng.standard_normal((1, 30, 40))) for _ in range(2)]
    for i, array in enumerate(arrays):
        store.append(
            xr.Dataset(
                {"large": (("iteration", "y", "x"), array), "small": (("iteration", "b", "a"), array[:, 5::-2, :3])},
                coords={"iteration": [i], "grid": (("y", "x"), array[0].T[::-1].T)},
            )
        )
    found = xr.open_zarr(store.path).load()
    np.testing.assert_array_equal(found["large"].values, np.concatenate(arrays))
    np.testing.assert_array_equal(found["small"].values, np.concatenate(arrays)[:, 5::-2, :3])
    np.testing.assert_array_equal(found["grid"].values, arrays[0][0].T[::-1].T)


def test_the_state_is_that_of_the_last_record(tmp_path: Path) -> None:
    store = SpectrumStore(tmp_path / "run.zarr")
    odd = {
        "file": np.asfortranarray(np.arange(6, dtype=">i2").reshape(2, 3)),
        "a/b names": np.array(np.nan, np.float32),
        "empty": np.zeros((0, 3)),
        "text": np.array(["x", "yz"]),
    }
    store.append(record(0), odd)
    found = SpectrumStore(store.path).state()
    assert list(found) == list(odd)
    for name, array in odd.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
    store.append(record(1))
    assert store.state() == {}
    assert [path.name for path in store.path.glob(".state*")] == [".state-1.npz"]
    with pytest.raises(ValueError, match=r"`state` must hold arrays of numbers; got 'bad' of dtype object"):
        store.append(record(2), {"bad": np.array([None])})
    assert store.last_iteration == 1


def test_iterations_are_consecutive(tmp_path: Path) -> None:
    store = SpectrumStore(tmp_path / "run.zarr")
    with pytest.raises(ValueError, match=r"`record` must have the iteration 0, the next one of .*; got 1\. Append"):
        store.append(record(1))
    filled(store.path)
    for wrong in (2, 4):
        with pytest.raises(ValueError, match=f"must have the iteration 3, .*; got {wrong}"):
            store.append(record(wrong))
    assert kills.verify(store.path, 2) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.drop_vars("penalty"), r"'penalty' is stored as float64 \(iteration\), came as nothing"),
        (lambda r: r.assign(new=r["penalty"]), r"'new' is stored as nothing, came as float64 \(iteration\)"),
        (
            lambda r: r.assign(penalty=r["penalty"].astype("f4")),
            "as float32",
        ),
        (lambda r: r.isel(kernel_x=slice(2)), r"\(iteration, kernel_y: 3, kernel_x: 3\), came .*kernel_x: 2\)"),
        (lambda r: r.rename(kernel_x="kernel_z"), r"kernel_x: 3\), came as float32 .*kernel_z: 3\)\. Go on with"),
        (lambda r: r.isel(rank=[0]), r"'circulant_spectrum' is stored as .*rank: 2\), came .*rank: 1\)"),
    ],
)
def test_a_record_that_does_not_fit_is_refused(tmp_path: Path, change: Any, message: str) -> None:
    store = filled(tmp_path / "run.zarr")
    for refuse in (store.append, store.check):
        with pytest.raises(ValueError, match=message):
            refuse(change(record(3)))
    assert kills.verify(store.path, 2) == 3
    store.append(record(3), state(3))
    assert kills.verify(store.path, 3) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.drop_vars("iteration"), "have an integer coordinate 'iteration'; got .*Add it"),
        (lambda r: r.assign_coords(iteration=[0.0]), "have an integer coordinate 'iteration'"),
        (
            lambda r: xr.concat([r, r], "iteration", data_vars="minimal"),
            "as first dimension of every .*, of length 1",
        ),
        (lambda r: r.assign(fixed=("rank", [1, 2])), "of every variable, .*; got 'fixed' with {'rank': 2}"),
        (lambda r: r.transpose(..., "iteration"), "as first dimension of every variable"),
        (lambda r: r.assign({"a/b": r["penalty"]}), "names can be those of folders; got 'a/b'"),
        (lambda r: r.assign({".a": r["penalty"]}), "names can be those of folders; got '.a'"),
        (lambda r: r.assign(o=("iteration", np.array([None]))), "got 'o' of dtype object. Convert it"),
        (lambda r: r.assign(t=("iteration", np.array([0], "M8[ns]"))), "got 't' of dtype datetime64"),
        (lambda r: r.assign(s=("iteration", [1.0], {"units": "seconds"})), "does not decode; got 's'.*as symbols"),
        (lambda r: r.assign(m=("iteration", [1.0], {"missing_value": 1.0})), "does not decode; got 'm'"),
        (lambda r: r.assign_attrs(bad={1, 2}), "attributes of text and numbers; got {1, 2} of type set. Convert"),
    ],
)
def test_what_is_no_record_is_refused(tmp_path: Path, change: Any, message: str) -> None:
    store = SpectrumStore(tmp_path / "run.zarr")
    for refuse in (store.append, store.check):
        with pytest.raises(ValueError, match=f"`record` must .*{message}"):
            refuse(change(record(0)))
    assert not store.path.exists()


def test_another_schema_is_refused(tmp_path: Path) -> None:
    path = filled(tmp_path / "run.zarr").path
    metadata = json.loads((path / ".zmetadata").read_text())
    metadata["metadata"][".zattrs"]["schema"] = 7
    (path / ".zmetadata").write_text(json.dumps(metadata))
    store = SpectrumStore(path)
    refused = [store.open, store.state, lambda: store.append(record(3)), lambda: store.check(record(3))]
    for refuse in refused:
        with pytest.raises(ValueError, match=r"`path` must hold a store of schema 1; .* has schema 7\. Read it with"):
            refuse()


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    for path in (tmp_path / "file", tmp_path / "file" / "run.zarr"):
        for method in ("append", "check"):
            with pytest.raises(NotADirectoryError, match=r"`path` must be a .*[Cc]hoose another path"):
                getattr(SpectrumStore(path), method)(record(0))
    assert (tmp_path / "file").read_text() == "precious"


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "thesis.tex").write_text("precious")
    record(0).to_zarr(tmp_path / "zarr2", zarr_format=2, consolidated=True)
    record(0).to_zarr(tmp_path / "zarr3", zarr_format=3, consolidated=False)
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / ".zmetadata").write_text("[1]")
    for path in sorted(tmp_path.iterdir()):
        before = sorted(path.rglob("*"))
        for method in ("append", "check"):
            with pytest.raises(ValueError, match=r"`path` must be a SpectrumStore, an empty folder or new; .* holds"):
                getattr(SpectrumStore(path), method)(record(0))
        assert sorted(path.rglob("*")) == before


def test_an_empty_folder_is_used(tmp_path: Path) -> None:
    SpectrumStore(tmp_path).check(record(0))
    assert list(tmp_path.iterdir()) == []
    assert kills.verify(filled(tmp_path).path, 2) == 3


def test_a_missing_parent_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"`path` must be a place .* No such file .* Make the folder"):
        SpectrumStore(tmp_path / "no" / "run.zarr").append(record(0))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("exists", [False, True])
def test_a_folder_without_the_right_to_write_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exists: bool
) -> None:
    # Root may write anywhere: the system calls refuse what they would refuse others.
    store = filled(tmp_path / "run.zarr") if exists else SpectrumStore(tmp_path / "run.zarr")
    original = os.open

    def refuse(path: Any, *_args: Any, **_options: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))

    def opened(path: Any, flags: int, *args: Any, **options: Any) -> int:
        if flags & (os.O_WRONLY | os.O_CREAT):
            refuse(path)
        return original(path, flags, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", opened)
        patch.setattr(os, "mkdir", refuse if not exists else os.mkdir)
        with pytest.raises(PermissionError, match=r"`path` must be a place that can be written; .*run\.zarr: Perm"):
            store.check(record(3))
        with pytest.raises(PermissionError, match="can be written" if not exists else "3 iterations are kept"):
            store.append(record(3 if exists else 0))
    if exists:
        store.append(record(3), state(3))
        assert kills.verify(store.path, 3) == 4


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(PermissionError, match="`path` must be a place that can be written"):
            SpectrumStore(tmp_path / "run.zarr").check(record(0))
    finally:
        tmp_path.chmod(0o700)


def operations(tmp_path: Path, before: int) -> list[str]:
    """Return the file operations of the append that follows so many."""
    store = filled(tmp_path / "counted.zarr", before)
    with kills.at_operation(-1, lambda _name: None) as seen:
        store.append(record(before), state(before))
    return seen


@pytest.mark.parametrize("before", [0, 3, 4])
def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int) -> None:
    def full(_name: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(_layout, "BLOCK", kills.BLOCK)
    steps = operations(tmp_path, before)
    filled(tmp_path / "before.zarr", before)
    failed = 0
    for number in range(len(steps)):
        path = tmp_path / f"{number}.zarr"
        if before:
            shutil.copytree(tmp_path / "before.zarr", path)
        store = SpectrumStore(path)
        error = None
        try:
            with kills.at_operation(number, full):
                store.append(record(before), state(before))
        except OSError as caught:
            error = caught
        if error is not None:
            failed += 1
            known = f"Nothing was lost: {before} iterations are kept", "`path` must be a place that can be written"
            assert any(text in str(error) for text in known), steps[number]
            assert error.errno == errno.ENOSPC
            assert store.last_iteration == (before - 1 if before else None)
            assert not list(path.rglob("*.tmp"))
            store.append(record(before), state(before))
        # The object that failed and a new one both go on.
        store.append(record(before + 1), state(before + 1))
        assert SpectrumStore(path).last_iteration == before + 1
        if number % 5 == 0:
            assert kills.verify(path, before + 1) == before + 2
    # What comes after the commit is no reason to fail.
    assert failed >= len(steps) - 6


def test_a_lost_chunk_is_an_error(tmp_path: Path) -> None:
    store = filled(tmp_path / "run.zarr")
    (store.path / "penalty" / "0").unlink()
    with pytest.raises(FileNotFoundError, match="is damaged: 1 files of 'penalty' are gone, the first is 0"):
        store.open()
    with pytest.raises(FileNotFoundError, match="Iteration 3 could not be stored"):
        SpectrumStore(store.path).append(record(3))


def test_without_consolidated_metadata_there_is_nothing_rather_than_torn_data(tmp_path: Path) -> None:
    path = filled(tmp_path / "run.zarr").path
    with pytest.warns(UserWarning, match="not recognized as a component of a Zarr hierarchy"):
        assert not xr.open_zarr(path, consolidated=False).variables


def test_netcdf_reads_back_equal(tmp_path: Path) -> None:
    store = SpectrumStore(tmp_path / "run.zarr")
    wide = {"wide": ("iteration", [2**40]), "half": ("iteration", np.array([0.5], np.float16)), "odd": ("n", [3])}
    for i in range(12):
        one = snapshot(i, (3, 3, 2, 2), "float32")
        one.attrs |= {"large": 2**70, "list": [1, 2], "empty": ""}
        store.append(one.assign(wide=wide["wide"], half=wide["half"]).assign_coords(odd=wide["odd"]))
    (tmp_path / "run.nc").write_text("old")
    store.to_netcdf(tmp_path / "run.nc")
    found, wanted = xr.load_dataset(tmp_path / "run.nc"), store.open()
    xr.testing.assert_equal(found, wanted)
    assert found["circulant_computed"].dtype == np.bool_
    assert found["penalty"].attrs == wanted["penalty"].attrs
    assert found.attrs["nothing"] == "null"
    assert (found.attrs["flag"], found.attrs["seed"], found.attrs["large"]) == (1, 5, str(2**70))
    assert (found.attrs["list"], found.attrs["empty"], found.attrs["track_rtol"]) == ("[1, 2]", "", 1e-8)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.nc", "run.zarr"]
    with pytest.raises(FileNotFoundError, match="`path` must be a place that can be written"):
        store.to_netcdf(tmp_path / "no" / "run.nc")


def test_threads_of_one_process_append_one_at_a_time(tmp_path: Path) -> None:
    filled(tmp_path / "run.zarr")
    outcomes: list[bool] = []

    def work() -> None:
        try:
            SpectrumStore(tmp_path / "run.zarr").append(record(3), state(3))
            outcomes.append(True)
        except ValueError:
            outcomes.append(False)

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == [False] * 4 + [True]
    assert kills.verify(tmp_path / "run.zarr", 3) == 4


@needs_fork
def test_two_processes_do_not_append_at_once(tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    with kills.child(kills.append_until_killed, path) as (_process, pipe):
        pipe.recv()
        told = pipe.recv()
        with pytest.raises(BlockingIOError, match=r"`path` must not be appended to by two processes; .* is held by"):
            SpectrumStore(path).append(record(told + 1))
        with pytest.raises(BlockingIOError, match="Wait for its end"):
            SpectrumStore(path).check(record(told + 1))
        assert SpectrumStore(path).last_iteration >= told
    # The lock ended with its process.
    SpectrumStore(path).check(record(0))


@pytest.mark.skipif(not hasattr(os, "fork") or sys.version_info >= (3, 12), reason="a fork of a process with threads")
def test_a_forked_child_does_not_keep_the_lock(tmp_path: Path) -> None:
    store = filled(tmp_path / "run.zarr")
    asleep, wake = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(wake)
        os.read(asleep, 1)  # until the parent closes its end
        os._exit(0)
    try:
        del store
        with kills.child(kills.append_and_exit, tmp_path / "run.zarr", -1) as (_process, pipe):
            assert list(kills.received(pipe)) == [3]
    finally:
        os.close(wake)
        os.close(asleep)
        os.waitpid(child, 0)


@needs_fork
def test_random_kills_lose_nothing(tmp_path: Path) -> None:
    assert list(kills.random_kills(tmp_path, KILLS)) == [None] * KILLS


@needs_fork
@pytest.mark.parametrize("before", [0, 2])
def test_a_kill_at_any_file_operation_loses_nothing(tmp_path: Path, before: int) -> None:
    path, number, last = tmp_path / "run.zarr", 0, None
    if before:
        last = filled(path, before).last_iteration
    while True:
        with kills.child(kills.append_and_exit, path, number) as (process, pipe):
            told = list(kills.received(pipe))
            process.join()
            assert process.exitcode == (0 if told else 9)
        count = kills.verify(path, told[-1] if told else last)
        if told:
            break
        number += 1
        if before == 0:
            # Begin anew, and now and then with what was left.
            if count or number % 3:
                shutil.rmtree(path, ignore_errors=True)
        else:
            last = count - 1
    # Nearly all operations of an append were hit, and each time it went on from there.
    assert number >= 40
