"""Layers on workers: the same bits, nothing lost with a worker that dies, limits of time, files read where needed."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from importlib.resources import files
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import save_file

from spectral_conv._kernels.threads import numba_threads
from spectral_conv._threads import one_thread
from spectral_conv.inspection import Inspection, inspect_files, inspect_model
from spectral_conv.inspection._batches import READS, SECONDS, SHARE, Load, batches
from spectral_conv.inspection._model_file import ModelFile
from spectral_conv.inspection._processes import OwnWorkers, WorkerDiedError
from spectral_conv.models import Model, ModelError
from spectral_conv.operator import ConvOperator
from spectral_conv.report.record import LayerReport
from spectral_conv.report.stored import stored_report
from spectral_conv.results import StopReason

DATA = Path(str(files("spectral_conv") / "data"))
WEIGHTS, GEOMETRY = DATA / "digits.safetensors", DATA / "digits.layers.json"
RNG = np.random.default_rng(11)
KERNELS = [RNG.standard_normal((3, 3, 2, n)).astype(np.float32) for n in (1, 2, 3)]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Fatal(ConvOperator):
    """Kills the process that analyses it, as often as its file in the folder FATAL has letters; each takes one."""

    def with_kernel(self, kernel: NDArray[np.floating]) -> ConvOperator:
        marks = Path(os.environ["FATAL"]) / str(self.out_channels)
        if parent_process() is not None and marks.exists() and marks.stat().st_size:
            marks.write_text(marks.read_text()[1:])
            os.kill(os.getpid(), signal.SIGKILL)
        return ConvOperator.from_geometry(self.geometry, kernel)


class Slow(ConvOperator):
    """Takes a minute in a worker, but no time for a bracket."""

    def split_groups(self) -> list[ConvOperator]:
        if self.out_channels == 1 and parent_process() is not None and not Path(os.environ["SLOW"]).exists():
            Path(os.environ["SLOW"]).touch()
            time.sleep(60.0)
        return super().split_groups()


def model(special: type[ConvOperator] = ConvOperator) -> list[ConvOperator]:
    return [special(kernel, (size, size)) for kernel, size in zip(KERNELS, (6, 7, 5), strict=True)]


def timeless(inspection: Inspection) -> list[LayerReport]:
    return [replace(report, seconds=0.0) for report in inspection.reports]


def texts(inspection: Inspection) -> list[str]:
    return [json.dumps(stored_report(report)) for report in timeless(inspection)]


@pytest.fixture(scope="module")
def serial() -> Inspection:
    with one_thread():
        return inspect_model(model())


@pytest.fixture
def deaths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """Let a layer, by its output channels, kill so many workers."""
    monkeypatch.setenv("FATAL", str(tmp_path))
    return lambda channels, count: (tmp_path / str(channels)).write_text("x" * count)


class TestBatches:
    @given(
        loads=st.lists(
            st.builds(
                Load,
                file=st.integers(0, 3),
                seconds=st.floats(0.0, 1e3),
                reading=st.floats(0.0, 2.0),
            )
        ),
        workers=st.integers(1, 64),
        longest=st.none() | st.floats(1e-3, 10.0),
    )
    def test_each_layer_once_files_apart_none_too_long(
        self, loads: list[Load], workers: int, longest: float | None
    ) -> None:
        found = batches(loads, workers, longest)
        assert sorted(place for batch in found for place in batch) == list(range(len(loads)))
        sums = [sum(loads[i].seconds for i in batch) for batch in found]
        assert sums == sorted(sums, reverse=True)
        share = sum(load.seconds for load in loads) / (SHARE * workers)
        for batch, seconds in zip(found, sums, strict=True):
            assert len({loads[i].file for i in batch}) == 1
            if len(batch) > 1:
                reading = max(loads[i].reading for i in batch)
                most = min(max(SECONDS, READS * reading), share, longest or share)
                assert seconds <= most * (1 + 1e-12)

    def test_tiny_layers_go_together(self) -> None:
        found = batches([Load(file=0, seconds=1 / 128)] * 1024, workers=2)
        assert [len(batch) for batch in found] == [64] * 16
        read = batches([Load(file=0, seconds=1 / 128, reading=0.1)] * 1024, workers=1)
        assert [len(batch) for batch in read] == [128] * 8


def test_one_thread_is_one_for_this_thread_only_and_then_no_more() -> None:
    before = numba_threads()
    with one_thread():
        assert numba_threads() == 1
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(numba_threads).result() == before
    assert numba_threads() == before


class TestOwnProcesses:
    def test_all_numbers_are_those_of_one_thread_here(self) -> None:
        with one_thread():
            here = inspect_model(WEIGHTS, layers=GEOMETRY)
        there = inspect_model(WEIGHTS, layers=GEOMETRY, jobs=2)
        assert timeless(there) == timeless(here)
        assert texts(there) == texts(here)  # the sign of zero, too
        assert there.document()["settings"] == here.document()["settings"]

    def test_a_worker_that_is_killed_is_replaced(
        self, deaths: Callable[[int, int], None], serial: Inspection
    ) -> None:
        deaths(1, 1)
        deaths(2, 2)
        found = inspect_model(model(Fatal), jobs=1)
        assert timeless(found)[::2] == timeless(serial)[::2]
        report = found.reports[1]
        assert report.sigma_max is report.sigma_min is report.circulant is None
        assert "The worker died twice" in report.sigma_max_reason
        assert "Set a `memory_limit`, or use fewer workers." in report.sigma_max_reason
        assert not found.complete

    def test_they_are_replaced_when_idle_and_ended_in_the_middle_of_their_work(self) -> None:
        environment = dict(os.environ)
        workers = OwnWorkers(1)
        try:
            pid = workers.submit(os.getpid, time_limit=None).result(60.0)
            os.kill(pid, signal.SIGKILL)
            while any(child.pid == pid for child in active_children()):
                time.sleep(0.01)
            second = workers.submit(os.getpid, time_limit=None).result(60.0)
            assert second != pid
            with pytest.raises(ZeroDivisionError) as raised:
                workers.submit(divmod, 1, 0, time_limit=None).result(60.0)
            assert "In a worker process:" in raised.value.__notes__[0]
            asleep, never = (workers.submit(time.sleep, 60.0, time_limit=None) for _ in range(2))
            while not asleep.running():
                time.sleep(0.01)
        finally:
            workers.close()
        for future in (asleep, never):
            assert isinstance(future.exception(0.0), WorkerDiedError)
        assert os.environ == environment
        assert not psutil.pid_exists(second)

    def test_workers_that_never_start_are_an_error_that_says_why(self) -> None:
        workers = OwnWorkers(1, warm_up=partial(os._exit, 3))
        with pytest.raises(RuntimeError, match=r"ended before they did anything.*__main__"):
            workers.submit(os.getpid, time_limit=None).result(60.0)
        workers.close()

    def test_they_end_with_a_driver_that_is_killed_in_the_middle_of_their_work(self) -> None:
        code = (
            "import time\nfrom spectral_conv.inspection._processes import OwnWorkers\n"
            "if __name__ == '__main__':\n    workers = OwnWorkers(1)\n"
            "    print(workers.submit(__import__('os').getpid, time_limit=None).result(), flush=True)\n"
            "    workers.submit(time.sleep, 60.0, time_limit=None).result()\n"
        )
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as driver:
            worker = psutil.Process(int(driver.stdout.readline()))
            driver.kill()
        psutil.wait_procs([worker], timeout=20.0)
        assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE

    def test_an_interruption_ends_them(self) -> None:
        # In a process of its own: the one that runs the tests may be told to ignore SIGINT.
        code = """if __name__ == "__main__":
            import signal, numpy as np
            from spectral_conv import ConvOperator, inspect_model
            signal.signal(signal.SIGINT, signal.default_int_handler)
            large = ConvOperator(np.random.default_rng(0).standard_normal((3, 3, 48, 48)), (48, 48))
            inspect_model([large] * 4, jobs=1)
        """
        with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) as driver:
            process = psutil.Process(driver.pid)
            deadline = time.monotonic() + 60.0
            while not (workers := [c for c in process.children(recursive=True) if c.cpu_times().user > 0.2]):
                assert time.monotonic() < deadline
                time.sleep(0.02)
            driver.send_signal(signal.SIGINT)
            _, message = driver.communicate(timeout=60.0)
        assert message.rstrip().endswith("KeyboardInterrupt")
        assert not psutil.wait_procs(workers, timeout=20.0)[1]


class TestTimeLimit:
    @pytest.fixture(autouse=True)
    def mark(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SLOW", str(tmp_path / "was_slow"))

    def test_a_layer_at_its_limit_is_a_bracket_and_the_others_are_done(self, serial: Inspection) -> None:
        start = time.perf_counter()
        found = inspect_model(model(Slow), time_limit=1.5)
        assert time.perf_counter() - start < 40.0
        assert timeless(found)[1:] == timeless(serial)[1:]
        report, exact = found.reports[0], serial.reports[0]
        for bracket, value in ((report.sigma_max, exact.sigma_max), (report.sigma_min, exact.sigma_min)):
            assert bracket.method == "bracket"
            assert bracket.basis.startswith("theorem: ")
            assert bracket.basis.endswith("; time limit of 1.5 s reached")
            assert bracket.stop_reason is StopReason.TIME_LIMIT
            assert bracket.lower <= value.value <= bracket.upper
        assert report.circulant == exact.circulant
        assert not found.complete

    def test_it_needs_workers_of_ours(self) -> None:
        with (
            ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool,
            pytest.raises(ValueError, match=r"`time_limit` must not be given with `executor`.*Use `jobs`"),
        ):
            inspect_model(model(), time_limit=1.0, executor=pool)


class TestFiles:
    @pytest.fixture
    def zoo(self, tmp_path: Path) -> list[Path]:
        paths = [tmp_path / f"{name}.safetensors" for name in "abc"]
        for i, path in enumerate(paths):
            save_file({f"{n}.weight": RNG.standard_normal((2, 2, 3, 3)) for n in range(1 + i)}, path)
        return paths

    @pytest.mark.parametrize(("jobs", "on_failure"), [(None, "raise"), (1, "return")])
    def test_are_inspected_in_their_order(self, zoo: list[Path], jobs: int | None, on_failure: str) -> None:
        found = list(inspect_files([*zoo, zoo[0]], input_size=(2, 5, 5), jobs=jobs, on_failure=on_failure))
        assert [inspection.model for inspection in found] == [path.name for path in [*zoo, zoo[0]]]
        with one_thread():
            alone = [inspect_model(path, input_size=(2, 5, 5)) for path in zoo]
        assert [timeless(inspection) for inspection in found] == [timeless(one) for one in [*alone, alone[0]]]
        assert found[1].input_size == (2, 5, 5)
        assert found[1].plot("values", "0.weight").get_title() == alone[1].plot("values", "0.weight").get_title()

    def test_one_that_cannot_be_read(self, zoo: list[Path]) -> None:
        zoo[1].write_bytes(b"no model")
        with pytest.raises(ModelError, match=r"b\.safetensors"):
            inspect_files(zoo, input_size=(2, 5, 5))
        found = list(inspect_files(zoo, input_size=(2, 5, 5), on_failure="return"))
        assert [inspection.complete for inspection in found] == [True, False, True]
        assert "b.safetensors" in found[1].failure
        assert found[1].document()["failure"] == found[1].failure
        with pytest.raises(ValueError, match="`on_failure` must be one of 'raise', 'return'; got 'ignore'"):
            inspect_files(zoo, on_failure="ignore")

    def test_one_that_changes_meanwhile_is_told_and_never_mixed_up(self, zoo: list[Path]) -> None:
        found = inspect_files(zoo[:2], input_size=(2, 5, 5))
        os.utime(zoo[1], ns=(0, 0))
        first, second = found
        assert first.complete
        assert (
            second.reports[0].sigma_max_reason
            == "b.safetensors has changed since it was first read. Inspect it again."
        )
        kept = next(inspect_files(zoo[:2], input_size=(2, 5, 5)))
        os.utime(zoo[0], ns=(0, 0))
        with pytest.raises(ModelError, match=r"a\.safetensors has changed"):
            kept.plot("values", "0.weight")

    @pytest.mark.parametrize("keep", [False, True])
    def test_one_written_again_within_a_tick_of_the_clock(self, zoo: list[Path], keep: bool) -> None:
        list(inspect_files(zoo[:2], input_size=(2, 5, 5)))  # this process still has the second one
        status = zoo[1].stat()
        found = inspect_files(zoo[:2], input_size=(2, 5, 5)) if keep else None
        save_file({f"{n}.weight": RNG.standard_normal((2, 2, 3, 3)) for n in range(2)}, zoo[1])
        os.utime(zoo[1], ns=(status.st_atime_ns, status.st_mtime_ns))
        assert zoo[1].stat().st_size == status.st_size
        if found is not None:
            reports = list(found)[1].reports
            assert {report.sigma_max_reason for report in reports} == {
                "b.safetensors has changed since it was first read. Inspect it again."
            }
            return
        again = next(inspect_files(zoo[1::-1], input_size=(2, 5, 5)))
        assert timeless(again) == timeless(inspect_model(zoo[1], input_size=(2, 5, 5)))

    def test_one_that_vanishes_loses_no_equal_layer_of_another(self, zoo: list[Path]) -> None:
        shutil.copy(zoo[2], zoo[1])
        with ThreadPoolExecutor(1) as pool:
            found = inspect_files([zoo[2], zoo[1]], input_size=(2, 5, 5), executor=pool)
            zoo[2].unlink()
            lost, kept = found
        assert {report.sigma_max for report in lost.reports} == {None}
        assert kept.complete
        assert timeless(kept) == timeless(inspect_model(zoo[1], input_size=(2, 5, 5)))

    def test_one_that_a_worker_cannot_read_loses_its_own_layers_only(
        self, zoo: list[Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = inspect_files(zoo, input_size=(2, 5, 5))
        real = ModelFile.open

        def failing(file: ModelFile) -> Model:
            if file.path == zoo[1]:
                raise OSError(errno.EIO, "Input/output error")
            return real(file)

        monkeypatch.setattr(ModelFile, "open", failing)
        inspections = list(found)
        assert [inspection.complete for inspection in inspections] == [True, False, True]
        assert {report.sigma_max_reason for report in inspections[1].reports} == {"[Errno 5] Input/output error"}

    @pytest.mark.parametrize(("on_failure", "bar"), [("raise", "6/6"), ("return", "3/3")])
    def test_the_bar_counts_layers_or_files(
        self, zoo: list[Path], monkeypatch: pytest.MonkeyPatch, on_failure: str, bar: str
    ) -> None:
        terminal = Terminal()
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setattr("sys.stderr", terminal)
        list(inspect_files(zoo, input_size=(2, 5, 5), on_failure=on_failure, progress=True))
        assert bar in terminal.getvalue()

    def test_a_selection_that_matches_nothing(self, zoo: list[Path]) -> None:
        with pytest.raises(ValueError, match=r"`--select` must match a layer of a\.safetensors; got 'nothing'"):
            inspect_files(zoo, input_size=(2, 5, 5), select="nothing")

    def test_one_path_is_no_list_of_paths(self) -> None:
        with pytest.raises(ValueError, match=r"`paths` must be several; got 'a\.pt'\. Give \[path\]"):
            inspect_files("a.pt")

    def test_no_files_and_no_layers(self) -> None:
        assert list(inspect_files([])) == []
        for jobs in (None, 1):
            empty = inspect_model([], jobs=jobs)
            assert empty.reports == ()
            assert empty.complete


class Refusing(Executor):
    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        raise RuntimeError("cannot schedule new futures after shutdown")


class TestExecutors:
    def test_a_pool_that_breaks_loses_what_was_left_with_the_remedy(
        self, deaths: Callable[[int, int], None], serial: Inspection
    ) -> None:
        deaths(1, 9)
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            found = inspect_model(model(Fatal), executor=pool)
        lost = [report for report in found.reports if report.sigma_max is None]
        assert found.reports[0] in lost
        assert all("Run again with a new executor" in report.sigma_max_reason for report in lost)

    def test_one_that_takes_no_work_is_an_error(self) -> None:
        with pytest.raises(RuntimeError, match="cannot schedule new futures"):
            inspect_model(model(), executor=Refusing())

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (
                {"executor": 3},
                r"`executor` must be a concurrent\.futures\.Executor or a dask.*; got int.*give `jobs`",
            ),
            ({"executor": Refusing(), "jobs": 1}, "`executor` and `jobs` must not be given together"),
            ({"jobs": 0}, "`jobs` must be"),
            ({"time_limit": 0.0}, "`time_limit` must be a positive number; got 0.0"),
        ],
    )
    def test_wrong_ones_are_named(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            inspect_model(model(), **options)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    distributed = pytest.importorskip("distributed", reason="the extra `distributed` is not installed")
    import dask

    with (
        dask.config.set({"distributed.worker.daemon": False, "distributed.comm.timeouts.connect": "60s"}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
        ) as running,
        distributed.Client(running) as client,
    ):
        yield client


@pytest.mark.filterwarnings("default")  # those of dask about itself
class TestDask:
    def test_a_worker_killed_in_the_middle_loses_nothing(self, cluster: Any, tmp_path: Path) -> None:
        rng = np.random.default_rng(5)
        kernels = {f"{i}.weight": rng.standard_normal((8, 8, 3, 3)) for i in range(24)}
        save_file(kernels, tmp_path / "m.safetensors")
        with one_thread():
            wanted = inspect_model(tmp_path / "m.safetensors", input_size=(8, 12, 12))
        pids = list(cluster.run(os.getpid).values())
        store = tmp_path / "results.zarr"

        def kill() -> None:
            while len(list(store.glob(".layers/*/*.json"))) < 5:
                time.sleep(0.01)
            os.kill(pids[0], signal.SIGKILL)

        thread = threading.Thread(target=kill)
        thread.start()
        found = inspect_model(tmp_path / "m.safetensors", input_size=(8, 12, 12), executor=cluster, store=store)
        thread.join()
        assert not psutil.pid_exists(pids[0])
        assert timeless(found) == timeless(wanted)
        assert found.complete

    def test_the_default_memory_is_that_of_the_workers(self, cluster: Any) -> None:
        from spectral_conv.inspection._workers import DaskWorkers

        limits = {worker["memory_limit"] for worker in cluster.scheduler_info()["workers"].values()}
        workers = DaskWorkers(cluster)
        assert workers.count == 2
        assert workers.memory == min(limits) / 2
