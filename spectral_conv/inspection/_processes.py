"""Worker processes of our own, a pipe to each: one that dies, whenever that is, takes nothing of the others."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import psutil

# So often in a row a process may be killed before it is ready.
_STARTS = 3
# In this time a process that has closed its pipe ends by itself, with its own exit code.
_SECONDS_TO_END = 2.0


class WorkerDiedError(Exception):
    """A worker did not live to answer."""


class OwnWorkers:
    """Worker processes that live as long as one run; one that dies is replaced.

    Each has a thread here that hands it one order after the other: no lock and no pipe is shared between processes,
    which one that is killed could leave locked or half written.

    Parameters
    ----------
    count : int
        How many at most; they are started as there is work.
    warm_up : callable, optional
        Called in each before its first order, which a time limit does not count.

    Attributes
    ----------
    count : int
        How many layers are worked on at one time.
    memory : float
        Bytes that one layer may take by default.
    remedy : str
        What to do about a worker that died.
    """

    remedy = "Is memory short? Set a `memory_limit`, or use fewer workers."

    def __init__(self, count: int, warm_up: Callable[[], None] | None = None) -> None:
        self.count = count
        self.memory: float | None = psutil.virtual_memory().available / 2 / count
        self._warm_up = warm_up
        self._orders: queue.SimpleQueue[tuple[Future[Any], Any, float | None] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._processes: set[_Process] = set()
        self._lock = threading.Lock()
        self._closed = False
        self._one_was_ready = False

    def submit(self, function: Callable[..., Any], *args: Any, time_limit: float | None) -> Future[Any]:
        """Run a function, for so many seconds at most: `Future.result` then raises TimeoutError."""
        future: Future[Any] = Future()
        self._orders.put((future, (function, args), time_limit))
        if len(self._threads) < self.count:
            # A daemon: a run that nobody reads to its end is no reason for the interpreter to stay.
            self._threads.append(threading.Thread(target=self._serve, daemon=True))
            self._threads[-1].start()
        return future

    def close(self) -> None:
        """End the processes, in the middle of their work if need be."""
        with self._lock:
            self._closed = True
            for process in self._processes:
                process.kill()
        for _ in self._threads:
            self._orders.put(None)
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        """Hand orders to a process until there are no more."""
        process: _Process | None = None
        while (order := self._orders.get()) is not None:
            future, work, time_limit = order
            if not future.set_running_or_notify_cancel():
                continue
            try:
                if process is None or not process.is_alive():
                    process = self._started(process)
                future.set_result(process.answer(work, time_limit))
            except BaseException as error:
                future.set_exception(error)
        if process is not None:
            self._ended(process)

    def _started(self, former: _Process | None) -> _Process:
        """Return a process that is ready, in the place of one that died."""
        for _ in range(_STARTS):
            if former is not None:
                self._ended(former)
            with self._lock:
                if self._closed:
                    raise WorkerDiedError("the run has ended")
                former = _Process(self._warm_up)
                self._processes.add(former)
            if former.is_ready():
                self._one_was_ready = True
                return former
            if former.exit_code() >= 0 and not self._one_was_ready:
                break  # by itself, and so would the next one
        raise RuntimeError(
            "The worker processes ended before they did anything. A script must ask for workers below "
            "`if __name__ == '__main__':`, for each of them runs the top of the script again. Or memory is short: "
            "use fewer workers."
        )

    def _ended(self, process: _Process) -> None:
        with self._lock:
            self._processes.discard(process)
        process.end()


class _Process:
    """A fresh interpreter, and the pipe to it."""

    def __init__(self, warm_up: Callable[[], None] | None) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_obey, args=(theirs, warm_up), daemon=True)
        with theirs:
            self._process.start()

    def is_ready(self) -> bool:
        """Wait until it is; False where it died."""
        try:
            self._pipe.recv()
        except (EOFError, OSError):
            return False
        return True

    def is_alive(self) -> bool:
        return not self._pipe.closed and self._process.is_alive()

    def answer(self, work: Any, time_limit: float | None) -> Any:
        """Return what the work comes to, or raise what it raises."""
        try:
            self._pipe.send(work)
            if not self._pipe.poll(time_limit):
                self.end()
                raise TimeoutError
            found, error = self._pipe.recv()
        except (EOFError, ConnectionError):
            raise WorkerDiedError(f"exit code {self.exit_code()}") from None
        if error is not None:
            raise error
        return found

    def exit_code(self) -> int:
        """Wait for the end of one that has closed its pipe; the negative number of a signal that killed it."""
        self._process.join(_SECONDS_TO_END)
        self.end()
        return self._process.exitcode or 0

    def kill(self) -> None:
        self._process.kill()

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()


def _obey(pipe: Connection, warm_up: Callable[[], None] | None) -> None:
    """Do what comes through the pipe, one thing after the other; the body of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the driver ends its workers
    threading.Thread(target=_end_with_the_driver, daemon=True).start()
    if warm_up is not None:
        warm_up()
    with suppress(EOFError, ConnectionError):  # the driver is gone
        pipe.send(None)  # ready
        while True:
            function, args = pipe.recv()
            try:
                found, failure = function(*args), None
            except Exception as error:
                error.add_note(f"In a worker process:\n{traceback.format_exc()}")
                found, failure = None, error
            pipe.send((found, failure))


def _end_with_the_driver() -> None:
    """End in the middle of the work when the driver is gone: nobody waits for the result."""
    driver = multiprocessing.parent_process()
    assert driver is not None
    driver.join()
    os._exit(1)
