"""Results on disk: whole or not there, found again by what they are a function of, labelled tables beside them."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

import spectral_conv.inspection._records as records_module
from spectral_conv.inspection import Inspection, Settings, analyze_layer, inspect_files, inspect_model
from spectral_conv.inspection import _tasks as tasks
from spectral_conv.inspection._records import find_record, keep_record, record_key
from spectral_conv.inspection._store import InspectionStore, group_name
from spectral_conv.operator import ConvOperator
from spectral_conv.report.record import NOT_ASKED, LayerReport
from spectral_conv.report.stored import restored_report, stored_report
from spectral_conv.results import Bound, BoundRow, BoundTable, Enclosure, StopReason
from validation.kills import inspections

RNG = np.random.default_rng(17)
KILLS = 5  # 200 in `make validate-full`
KERNEL = RNG.standard_normal((3, 3, 2, 2))
numbers = st.floats(allow_nan=False, min_value=0.0)
words = st.text(max_size=8)
enclosures = st.builds(
    Enclosure,
    lower=numbers,
    value=numbers,
    upper=numbers,
    basis=words,
    method=words,
    applications=st.integers(0, 2**40),
    stop_reason=st.sampled_from(StopReason),
)
bounds = st.builds(
    Bound, method=words, value=numbers, kind=words, scope=words, source=words, seconds=numbers, notes=words
)
tables = st.builds(
    BoundTable,
    exact=st.none() | enclosures,
    exact_seconds=numbers,
    exact_reason=words,
    rows=st.lists(
        st.builds(BoundRow, method=words, bound=st.none() | bounds, ratio=st.none() | numbers, reason=words),
        max_size=3,
    ).map(tuple),
)
sizes = st.lists(st.integers(1, 9), min_size=1, max_size=4).map(tuple)
reports = st.builds(
    LayerReport,
    name=st.text(),
    kernel_shape=sizes,
    layout=words,
    input_shape=sizes,
    output_shape=sizes,
    kernel_size=sizes,
    stride=sizes,
    dilation=sizes,
    padding=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=3).map(tuple),
    groups=st.integers(1, 9),
    padding_mode=words,
    transposed=st.booleans(),
    assumed=st.lists(words, max_size=2).map(tuple),
    folded=st.lists(words, max_size=2).map(tuple),
    sigma_max=st.none() | enclosures,
    sigma_max_reason=st.none() | words,
    sigma_min=st.none() | enclosures,
    circulant=st.none() | st.tuples(numbers, numbers),
    bounds=st.none() | tables,
    bounds_reason=st.none() | st.just(NOT_ASKED),
    seconds=numbers,
)


class TestStoredForm:
    @given(reports)
    def test_comes_back_as_it_was(self, report: LayerReport) -> None:
        text = json.dumps(stored_report(report), allow_nan=False)
        back = restored_report(json.loads(text))
        assert back == report
        assert repr(back) == repr(report)  # the types, too

    @pytest.mark.parametrize("bounds", [False, True])
    def test_of_real_layers(self, bounds: bool) -> None:
        found = inspect_model([ConvOperator(KERNEL, (5, 5)), ConvOperator(KERNEL, (4, 6), stride=2)], bounds=bounds)
        for report in found.reports:
            assert restored_report(json.loads(json.dumps(stored_report(report)))) == report

    def test_keeps_what_json_has_no_word_for(self) -> None:
        report = inspect_model([ConvOperator(KERNEL, (4, 4))]).reports[0]
        endless = replace(report, sigma_max=replace(report.sigma_max, upper=math.inf), circulant=(-0.0, math.nan))
        back = restored_report(json.loads(json.dumps(stored_report(endless), allow_nan=False)))
        assert back.sigma_max.upper == math.inf
        assert math.copysign(1.0, back.circulant[0]) == -1.0
        assert math.isnan(back.circulant[1])


class TestRecords:
    def test_the_key_knows_everything_that_counts_and_nothing_else(self, monkeypatch: pytest.MonkeyPatch) -> None:
        conv = ConvOperator(KERNEL, (5, 5))
        same = [
            record_key(ConvOperator(KERNEL.copy(), (5, 5)), Settings()),
            record_key(ConvOperator(np.asfortranarray(KERNEL), (5, 5)), Settings()),
        ]
        assert set(same) == {record_key(conv, Settings())}
        assert record_key(conv, Settings(memory_limit=5)) == record_key(conv, Settings(memory_limit=5.0))
        nearly = KERNEL.copy()
        nearly[0, 0, 0, 0] = np.nextafter(nearly[0, 0, 0, 0], 9.0)
        different = [
            record_key(ConvOperator(nearly, (5, 5)), Settings()),
            record_key(ConvOperator(KERNEL, (5, 6)), Settings()),
            record_key(ConvOperator(KERNEL, (5, 5), padding_mode="circular"), Settings()),
            record_key(ConvOperator(KERNEL.reshape(1, 9, 2, 2), (5, 5)), Settings()),
            record_key(conv, Settings(rtol=1e-7)),
            record_key(conv, Settings(bounds=True)),
            record_key(conv, Settings(memory_limit=5)),
            record_key(conv, Settings(smallest=False)),
            record_key(conv, Settings(certify=True)),
            record_key(ConvOperator(KERNEL, (5, 5), stride=2), Settings()),
            record_key(ConvOperator(KERNEL, (5, 5), dilation=2), Settings()),
            record_key(ConvOperator(KERNEL, (5, 5), padding=0), Settings()),
            record_key(ConvOperator(KERNEL, (5, 5), groups=2), Settings()),
            record_key(ConvOperator(KERNEL, (5, 5), transposed=True), Settings()),
        ]
        monkeypatch.setattr(records_module, "_version", lambda: "another one")
        different.append(record_key(conv, Settings()))
        assert len({*same, *different}) == 1 + len(different)

    def test_float32_weights_have_the_key_of_their_float64_values(self) -> None:
        short = KERNEL.astype(np.float32)
        keys = {record_key(ConvOperator(k, (5, 5)), Settings()) for k in (short, short.astype(np.float64))}
        assert len(keys) == 1

    @pytest.mark.parametrize("damage", ["cut", "digit", "empty", "json", "form"])
    def test_a_damaged_one_is_none(self, tmp_path: Path, damage: str) -> None:
        report = inspect_model([ConvOperator(KERNEL, (4, 4))]).reports[0]
        keep_record(tmp_path, "ab" * 32, report)
        assert find_record(tmp_path, "ab" * 32) == report
        assert find_record(tmp_path, "ba" * 32) is None
        (file,) = tmp_path.glob("*/*")
        text = file.read_text()
        digit = str(report.sigma_max.value)
        changed = {
            "cut": text[:-9],
            "digit": text.replace(digit, digit[:-1] + str((int(digit[-1]) + 1) % 10), 1),
            "empty": "",
            "json": "[]",
            "form": json.dumps({"sha256": "", "report": {}}),
        }
        file.write_text(changed[damage])
        assert text != changed[damage]
        assert find_record(tmp_path, "ab" * 32) is None

    def test_that_of_another_layer_is_none(self, tmp_path: Path) -> None:
        keep_record(tmp_path, "ab" * 32, inspect_model([ConvOperator(KERNEL, (4, 4))]).reports[0])
        (tmp_path / "ab" / f"{'ab' * 32}.json").rename(tmp_path / "ab" / f"{'ab' + 'cd' * 31}.json")
        assert find_record(tmp_path, "ab" + "cd" * 31) is None

    def test_one_without_memory_is_tried_again(self, tmp_path: Path) -> None:
        report = inspect_model([ConvOperator(KERNEL, (4, 4))]).reports[0]
        keep_record(
            tmp_path, "ab" * 32, replace(report, sigma_min=None, sigma_min_reason="Out of memory (no details)")
        )
        assert list(tmp_path.iterdir()) == []


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Say how many layers were analysed here since the last question."""
    seen: list[str] = []

    def counted(layer: Any, settings: Settings) -> LayerReport:
        seen.append(layer.name)
        return analyze_layer(layer, settings)

    def ask() -> int:
        found = len(seen)
        seen.clear()
        return found

    monkeypatch.setattr(tasks, "analyze_layer", counted)
    return ask


def zoo(folder: Path) -> list[Path]:
    rng = np.random.default_rng(3)
    shared = rng.standard_normal((2, 2, 3, 3))
    paths = []
    for name in ("a", "b"):
        (folder / name).mkdir()
        paths.append(folder / name / "model.safetensors")
        save_file({"own.weight": rng.standard_normal((3, 2, 3, 3)), "shared.weight": shared}, paths[-1])
    return paths


def inspected(paths: list[Path], store: Path, **options: Any) -> list[Inspection]:
    return list(inspect_files(paths, input_size=(2, 5, 5), store=store, **options))


class TestStore:
    def test_nothing_is_computed_twice(self, tmp_path: Path, count: Callable[[], int]) -> None:
        paths, store = zoo(tmp_path), tmp_path / "results.zarr"
        first = inspected([*paths, paths[0]], store)
        assert count() == 3  # of six layers two are equal, and one file came twice
        again = inspected([*paths, paths[0]], store)
        assert count() == 0
        assert [i.reports for i in again] == [i.reports for i in first]
        assert inspect_model(paths[0], input_size=(2, 5, 5), store=store).reports == first[0].reports
        assert count() == 0
        inspected(paths[:1], store, rtol=1e-6)
        assert count() == 2

    def test_a_changed_file_is_computed_again(self, tmp_path: Path) -> None:
        paths, store = zoo(tmp_path), tmp_path / "results.zarr"
        first = inspected(paths[:1], store)[0]
        status = paths[0].stat()
        kernel = {"own.weight": 2.0 * RNG.standard_normal((3, 2, 3, 3)), "shared.weight": np.ones((2, 2, 3, 3))}
        save_file(kernel, paths[0])
        os.utime(paths[0], ns=(status.st_atime_ns, status.st_mtime_ns))
        assert paths[0].stat().st_size == status.st_size
        second = inspected(paths[:1], store)[0]
        alone = inspect_model(paths[0], input_size=(2, 5, 5))
        for report, wanted, old in zip(second.reports, alone.reports, first.reports, strict=True):
            assert report.sigma_max.value == pytest.approx(wanted.sigma_max.value, rel=1e-12)
            assert report.sigma_max.value != old.sigma_max.value

    def test_a_damaged_record_is_computed_again(self, tmp_path: Path, count: Callable[[], int]) -> None:
        paths, store = zoo(tmp_path), tmp_path / "results.zarr"
        first = inspected(paths, store)
        count()
        damaged = sorted(store.glob(".layers/*/*.json"))[0]
        damaged.write_bytes(damaged.read_bytes()[:100])
        again = inspected(paths, store)
        assert count() == 1
        for one, other in zip(first, again, strict=True):
            assert [replace(r, seconds=0.0) for r in one.reports] == [replace(r, seconds=0.0) for r in other.reports]
        inspected(paths, store)
        assert count() == 0

    @pytest.mark.parametrize("bounds", [False, True])
    def test_the_tables_are_those_of_the_inspections(self, tmp_path: Path, bounds: bool) -> None:
        paths, store = zoo(tmp_path), tmp_path / "results.zarr"
        found = inspected(paths, store, bounds=bounds)
        tree = xr.open_datatree(store, engine="zarr")
        by_path = {node.attrs["path"]: (name, node) for name, node in tree.children.items()}
        assert set(by_path) == {str(path) for path in paths}
        for path, inspection in zip(paths, found, strict=True):
            name, node = by_path[str(path)]
            assert node.attrs["model"] == "model.safetensors"
            alone = xr.open_zarr(store, group=name)
            for read in (node.to_dataset(), alone):
                assert set(read.variables) == set(inspection.dataset.variables)
                for variable, wanted in inspection.dataset.variables.items():
                    np.testing.assert_array_equal(read[variable].astype(wanted.dtype).values, wanted.values)
                    assert read[variable].attrs == wanted.attrs

    def test_any_name_will_do(self, tmp_path: Path) -> None:
        names = ["../../x.weight", "a/b.weight", "\x1b[31m\n.weight", "\ud800.weight", "", "größe " * 40]
        store = tmp_path / "results.zarr"
        model = inspect_model([ConvOperator(KERNEL, (4, 4))] * len(names)).source
        named = tuple(replace(layer, name=name) for layer, name in zip(model.layers, names, strict=True))
        found = inspect_model(replace(model, layers=named, path=Path("..")), store=store)
        assert [report.name for report in found.reports] == names
        (group,) = xr.open_datatree(store, engine="zarr").children.values()
        assert list(group["layer"].values) == [*names[:3], r"\ud800.weight", *names[4:]]
        assert {path.name for path in tmp_path.iterdir()} == {"results.zarr"}

    def test_a_model_without_layers(self, tmp_path: Path) -> None:
        inspect_model([], store=tmp_path / "results.zarr")
        (group,) = xr.open_datatree(tmp_path / "results.zarr", engine="zarr").children.values()
        assert dict(group.sizes) == {"layer": 0}

    @pytest.mark.parametrize("name", ["", ".", "..", "a/b", "\x00\n", "CON", "__x", ".hidden", "x" * 500])
    def test_groups_have_names_that_every_file_system_takes(self, name: str) -> None:
        found = group_name(name, "one")
        assert found.replace("-", "").replace(".", "").replace("_", "").isalnum()
        assert not found.startswith((".", "_", "-"))
        assert len(found) < 100
        assert found != group_name(name, "another")

    def test_an_unchanged_table_is_left_alone_and_a_changed_one_replaced(self, tmp_path: Path) -> None:
        paths, store = zoo(tmp_path), tmp_path / "results.zarr"
        inspected(paths[:1], store)
        (group,) = (path for path in store.iterdir() if not path.name.startswith("."))
        before = group.stat().st_ino
        inspected(paths[:1], store)
        assert group.stat().st_ino == before
        inspected(paths[:1], store, smallest=False)
        assert np.isnan(xr.open_zarr(store, group=group.name)["sigma_min"]).all()
        assert [path.name for path in store.iterdir() if path.name.startswith((".new", ".old"))] == []

    def test_a_table_cut_off_by_a_loss_of_power_is_written_again(self, tmp_path: Path) -> None:
        paths, store = zoo(tmp_path), tmp_path / "results.zarr"
        inspected(paths, store)
        cut = min(path for path in store.iterdir() if not path.name.startswith(".")) / ".zmetadata"
        whole = cut.read_bytes()
        cut.write_bytes(whole[:40])
        InspectionStore(store).consolidate()
        inspected(paths, store)
        assert cut.read_bytes() == whole
        assert len(xr.open_datatree(store, engine="zarr").children) == len(paths)

    def test_what_a_killed_run_left_is_swept_up_when_it_is_old(self, tmp_path: Path) -> None:
        store = InspectionStore(tmp_path / "results.zarr").path
        for name in (".new-1", ".old-2", ".new-3"):
            (store / name).mkdir()
        os.utime(store / ".new-1", (0, time.time() - 7200))
        os.utime(store / ".old-2", (0, time.time() - 7200))
        InspectionStore(store)
        assert [path.name for path in store.iterdir() if path.name.startswith((".new", ".old"))] == [".new-3"]

    def test_one_that_was_killed_while_it_was_made(self, tmp_path: Path) -> None:
        (tmp_path / "results.zarr").mkdir()
        (tmp_path / "results.zarr" / "..zmetadata.77.tmp").write_text("{")
        assert InspectionStore(tmp_path / "results.zarr").records.is_dir()

    @pytest.mark.parametrize("content", [{}, {".zattrs": {"kind": "other"}}, {".zattrs": 3}])
    def test_a_folder_of_something_else_is_refused(self, tmp_path: Path, content: dict[str, Any]) -> None:
        (tmp_path / "thesis.tex").write_text("precious")
        if content:
            (tmp_path / ".zmetadata").write_text(json.dumps({"metadata": content}))
        with pytest.raises(ValueError, match=r"`store` must be a store of inspections, an empty folder or new.*else"):
            inspect_model([ConvOperator(KERNEL, (4, 4))], store=tmp_path)
        assert (tmp_path / "thesis.tex").read_text() == "precious"
        assert not (tmp_path / ".layers").exists()

    def test_a_file_of_yours_in_it_is_left_alone(self, tmp_path: Path) -> None:
        store = InspectionStore(tmp_path / "results.zarr").path
        (store / "notes.txt").write_text("mine")
        inspect_model([ConvOperator(KERNEL, (4, 4))], store=store)
        assert (store / "notes.txt").read_text() == "mine"
        assert len(xr.open_datatree(store, engine="zarr").children) == 1

    def test_one_that_cannot_be_written_is_refused_before_the_work(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: Callable[[], int]
    ) -> None:
        store = InspectionStore(tmp_path / "results.zarr").path

        def read_only(*arguments: Any, **options: Any) -> None:
            raise OSError(errno.EROFS, "Read-only file system")

        monkeypatch.setattr(Path, "open", read_only)
        with pytest.raises(OSError, match="`store` must be a folder that can be written"):
            inspect_model([ConvOperator(KERNEL, (4, 4))], store=store)
        assert count() == 0

    def test_two_runs_that_replace_one_table_at_one_time(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = InspectionStore(tmp_path / "results.zarr")
        mine, theirs = (inspect_model([ConvOperator(x * KERNEL, (4, 4))]).dataset for x in (1.0, 2.0))
        real, others = os.rename, iter(["theirs"])

        def renamed(source: Path, target: Path) -> None:
            if target.name.startswith("model") and next(others, None):
                store.write_table("model", "one", theirs)  # between two steps of ours
            real(source, target)

        monkeypatch.setattr(os, "rename", renamed)
        group = store.write_table("model", "one", mine)
        assert list(others) == []
        found = xr.open_zarr(store.path / group)
        assert list(found["sigma_max"].values) == list(mine["sigma_max"].values)
        assert {path.name for path in store.path.iterdir() if not path.name.startswith(".z")} == {group, ".layers"}

    def test_another_schema_is_refused(self, tmp_path: Path) -> None:
        store = InspectionStore(tmp_path / "results.zarr").path
        (store / ".zmetadata").write_text((store / ".zmetadata").read_text().replace('"schema": 1', '"schema": 7'))
        with pytest.raises(ValueError, match=r"`store` must have schema 1;.*has schema 7"):
            InspectionStore(store)

    @pytest.mark.parametrize("kind", ["file", "nowhere"])
    def test_a_place_that_cannot_be_a_folder(self, tmp_path: Path, kind: str) -> None:
        path = tmp_path / "file" if kind == "file" else tmp_path / "nowhere" / "results.zarr"
        (tmp_path / "file").write_text("")
        with pytest.raises(OSError, match="`store` must be a folder that can be written"):
            inspect_model([ConvOperator(KERNEL, (4, 4))], store=path)

    def test_a_full_disk_is_told_and_leaves_nothing_torn(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: Callable[[], int]
    ) -> None:
        paths, store = zoo(tmp_path), tmp_path / "results.zarr"
        inspected(paths[:1], store)
        before = sorted(store.glob(".layers/*/*"))
        real = os.fsync

        def full(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(OSError, match="could not be written: No space left on device"):
                inspected(paths, store)
        assert os.fsync is real
        assert sorted(store.glob(".layers/*/*")) == before
        count()
        inspected(paths, store)
        assert count() == 1
        assert len(xr.open_datatree(store, engine="zarr").children) == 2

    def test_two_runs_at_one_time(self, tmp_path: Path) -> None:
        paths, store = zoo(tmp_path), tmp_path / "results.zarr"
        ours = inspect_files(paths, input_size=(2, 5, 5), store=store)
        first = next(ours)
        theirs = inspected(paths, store)
        mine = [first, *ours]
        assert [i.reports for i in mine] == [i.reports for i in theirs]
        assert len(xr.open_datatree(store, engine="zarr").children) == 2

    def test_one_that_vanishes_is_told(self, tmp_path: Path) -> None:
        paths, store = zoo(tmp_path), tmp_path / "results.zarr"
        found = inspect_files(paths, input_size=(2, 5, 5), store=store)
        next(found)
        shutil.rmtree(store)
        with pytest.raises(FileNotFoundError):
            next(found)


def test_a_run_that_is_killed_goes_on_to_the_same_end(tmp_path: Path) -> None:
    # With workers: `make validate-full`.
    kills = list(inspections.random_kills(tmp_path, KILLS, jobs=(None,)))
    assert [kill.complaint for kill in kills] == [None] * KILLS
    assert any(layers > 0 for kill in kills for layers in kill.steps)  # not all before anything was done
