"""Parsing of files that need a large C or C++ library: in a child process with limits on memory and time.

A library may crash on flipped bytes, or ask for memory without end; the child's death is then a clear error.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

from spectral_conv.models._model import ModelError

T = TypeVar("T")

# Beyond what the child has mapped when it starts; and per byte of the file.
_MEMORY, _MEMORY_PER_BYTE = 1.5 * 2**30, 12
# Seconds, and seconds per byte of the file.
_SECONDS, _SECONDS_PER_BYTE = 8.0, 1e-7


def in_child(parse: Callable[[Path], T], path: Path, library: str) -> T:
    """Return ``parse(path)``, computed in a spawned process; its `ModelError` is raised here.

    Parameters
    ----------
    parse : callable
        A function of a module, with a result that can be pickled.
    path : Path
        The file.
    library : str
        What parses it, for the message.

    Raises
    ------
    ModelError
        Also where the child died, or exceeded a limit.
    """
    size = path.stat().st_size
    seconds = _SECONDS + _SECONDS_PER_BYTE * size
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(
        target=_run,
        args=(parse, path, _MEMORY + _MEMORY_PER_BYTE * size, sender),
        name=f"read {path.name}",
        daemon=True,
    )
    child.start()
    sender.close()
    try:
        if not receiver.poll(seconds):
            raise ModelError(
                f"{path.name} could not be read within {math.ceil(seconds)} seconds; the file is damaged, or made to "
                "exhaust its reader. Copy or download it again."
            )
        kind, value = receiver.recv()
    except EOFError:
        child.join()
        raise ModelError(
            f"{library} crashed on {path.name} (exit code {child.exitcode}); the file is damaged. Copy or download "
            "it again."
        ) from None
    finally:
        receiver.close()
        if child.is_alive():
            child.kill()
        child.join()
    if kind == "result":
        return value
    raise ModelError(value)


def _run(parse: Callable[[Path], Any], path: Path, memory: float, sender: Connection) -> None:
    try:
        _limit_memory(memory)
        _silence()
        sender.send(("result", parse(path)))
    except ModelError as error:
        sender.send(("error", str(error)))
    except MemoryError:
        sender.send(("error", f"{path.name} asks for more memory than a file of its size can need; it is damaged."))
    except Exception as error:  # libraries raise nearly every type for damaged files
        first_line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        words = f"{type(error).__name__}: {first_line[:200]}" if first_line else type(error).__name__
        sender.send(
            ("error", f"{path.name} cannot be read: {words}. The file is damaged; copy or download it again.")
        )


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
