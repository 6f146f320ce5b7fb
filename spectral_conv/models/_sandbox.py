"""Parsing of files that need a large C or C++ library: in a child process with limits on memory and time.

A library may crash on flipped bytes, or ask for memory without end; the child's death is then a clear error. The
child is a fresh interpreter, not one of `multiprocessing`: that would run the caller's main module once more, and
refuse to start at all in a worker of a pool.
"""

from __future__ import annotations

import importlib
import math
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar, cast

from spectral_conv.models._model import ModelError

T = TypeVar("T")

# Beyond what the child has mapped when it starts; and per byte of the file.
_MEMORY, _MEMORY_PER_BYTE = 1.5 * 2**30, 12
# Seconds once the libraries are imported, and seconds per byte of the file.
_SECONDS, _SECONDS_PER_BYTE = 8.0, 1e-7
_SECONDS_TO_START = 120.0  # imports from a cold disk on a busy machine
_START = (
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); "
    "from spectral_conv.models._sandbox import serve; serve()"
)


def in_child(parse: Callable[[Path], T], path: Path, library: str, modules: Sequence[str] = ()) -> T:
    """Return ``parse(path)``, computed in a process of its own; its `ModelError` is raised here.

    Parameters
    ----------
    parse : callable
        A function of a module, with a result that can be pickled.
    path : Path
        The file.
    library : str
        What parses it, for the message.
    modules : sequence of str
        Imported before the limits count: libraries that map gigabytes or take seconds to load.

    Raises
    ------
    ModelError
        Also where the child died, or exceeded a limit.
    """
    size = path.stat().st_size
    seconds = _SECONDS + _SECONDS_PER_BYTE * size
    order = pickle.dumps(sys.path) + pickle.dumps(
        (parse, path, _MEMORY + _MEMORY_PER_BYTE * size, tuple(modules)), protocol=pickle.HIGHEST_PROTOCOL
    )
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", _START]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL) as child:
        stdin, stdout = cast(IO[bytes], child.stdin), cast(IO[bytes], child.stdout)
        late = threading.Event()
        try:
            try:
                stdin.write(order)
                stdin.close()
                kind, value = _receive(child, stdout, _SECONDS_TO_START, late)
                if kind == "ready":
                    kind, value = _receive(child, stdout, seconds, late)
            except (EOFError, OSError, pickle.UnpicklingError):
                code = child.wait()
                raise _dead(path, library, seconds if late.is_set() else None, code) from None
        finally:
            child.kill()
    if kind == "result":
        return cast(T, value)
    raise ModelError(value)


def serve() -> None:
    """Do what `in_child` asks for: the main program of the child."""
    parse, path, memory, modules = pickle.load(sys.stdin.buffer)
    with os.fdopen(os.dup(1), "wb") as answers:
        _silence()
        for kind, value in _answers(parse, path, memory, modules):
            pickle.dump((kind, value), answers, protocol=pickle.HIGHEST_PROTOCOL)
            answers.flush()


def _receive(
    child: subprocess.Popen[bytes], stream: IO[bytes], seconds: float, late: threading.Event
) -> tuple[str, Any]:
    def stop() -> None:
        late.set()
        child.kill()

    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    timer.start()
    try:
        kind, value = pickle.load(stream)
    finally:
        timer.cancel()
    return kind, value


def _dead(path: Path, library: str, seconds: float | None, code: int) -> ModelError:
    if seconds is not None:
        return ModelError(
            f"{path.name} could not be read within {math.ceil(seconds)} seconds; the file is damaged, or made to "
            "exhaust its reader. Copy or download it again."
        )
    return ModelError(
        f"{library} crashed on {path.name} (exit code {code}); the file is damaged. Copy or download it again."
    )


def _answers(parse: Callable[[Path], Any], path: Path, memory: float, modules: Sequence[str]) -> Any:
    try:
        for name in modules:
            importlib.import_module(name)
        yield "ready", None
        _limit_memory(memory)
        yield "result", parse(path)
    except ModelError as error:
        yield "error", str(error)
    except MemoryError:
        yield "error", f"{path.name} asks for more memory than a file of its size can need; it is damaged."
    except Exception as error:  # libraries raise nearly every type for damaged files
        first_line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        words = f"{type(error).__name__}: {first_line[:200]}" if first_line else type(error).__name__
        yield "error", f"{path.name} cannot be read: {words}. The file is damaged; copy or download it again."


def _limit_memory(memory: float) -> None:
    if sys.platform == "win32":
        return
    import resource

    try:
        mapped = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    except OSError:  # no such file system: no limit that would mean anything
        return
    limit = int(mapped + memory)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _silence() -> None:
    """Libraries print about damaged files; what matters comes back as a message."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(null, stream)
