"""Whole files and their names brought to the disk, with errors that say what to do."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

PROBE = ".probe"
TEMPORARY = ".tmp"


def probe(folder: Path, size: int) -> None:
    """Raise where a file of that size cannot be written."""
    file = folder / PROBE
    try:
        write_files({file: bytes(size)})
        file.unlink()
    except OSError as error:
        raise unwritable(folder, error) from error


def unwritable(path: Path, error: OSError) -> OSError:
    """Return an error of the system as one that says what to do."""
    return OSError(  # it makes itself the subclass of the number
        error.errno,
        f"`path` must be a place that can be written; {path}: {error.strerror}. Make the folder that it is in, grant "
        "the right to write, free space, or choose another path",
    )


def write_files(files: Mapping[Path, bytes]) -> None:
    """Replace each file as a whole, all their contents on the disk before the first name."""
    temporary = {path: path.with_name(path.name + TEMPORARY) for path in files}
    try:
        _together(_flush, [(temporary[path], content) for path, content in files.items()])
        for path in files:
            os.replace(temporary[path], path)
    except BaseException:
        for path in temporary.values():
            with contextlib.suppress(OSError):
                path.unlink()
        raise


def _flush(path: Path, content: bytes) -> None:
    # Windows turns line ends otherwise.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o666)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folders(folders: Iterable[Path]) -> None:
    """Bring the names in folders to the disk, where that can be asked for."""
    if sys.platform != "win32":
        _together(_sync_folder, [(folder,) for folder in folders])


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def _together(work: Callable[..., None], calls: list[tuple[Any, ...]]) -> None:
    """Make calls in threads: file systems answer several fsyncs at once in the time of few."""
    if len(calls) == 1:
        work(*calls[0])
        return
    with ThreadPoolExecutor(min(16, len(calls))) as pool:
        for future in [pool.submit(work, *call) for call in calls]:
            future.result()
