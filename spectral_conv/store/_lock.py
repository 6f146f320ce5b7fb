"""The right to append to a folder, which two processes must never have at once."""

from __future__ import annotations

import errno
import os
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

from spectral_conv.store._files import unwritable


class Lock:
    """The right of this process to append to a folder, shared by its stores; it ends with them or the process."""

    def __init__(self, folder: Path) -> None:
        self.mutex = threading.Lock()
        self.close: Callable[[], object] = lambda: None
        if sys.platform == "win32":
            return
        import fcntl

        try:
            descriptor = os.open(folder, os.O_RDONLY)
        except OSError as error:
            raise unwritable(folder, error) from error
        self.close = weakref.finalize(self, os.close, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise BlockingIOError(
                errno.EWOULDBLOCK,
                f"`path` must not be appended to by two processes; {folder} is held by another one. Wait for its "
                "end, or choose another path",
            ) from None
        except OSError:
            pass  # a file system without locks


_LOCKS: weakref.WeakValueDictionary[tuple[int, int], Lock] = weakref.WeakValueDictionary()
_LOCKS_GUARD = threading.Lock()


def lock_of(folder: Path) -> Lock:
    """Take the lock of a folder, or share it with whoever in this process has it."""
    with _LOCKS_GUARD:
        status = os.stat(folder)
        key = status.st_dev, status.st_ino
        lock = _LOCKS.get(key) or Lock(folder)
        _LOCKS[key] = lock
        return lock


def _forget_locks() -> None:
    """Let go of the parent's locks in a forked child, which would keep them beyond the parent's end."""
    for lock in list(_LOCKS.values()):
        lock.close()
    _LOCKS.clear()
    _LOCKS_GUARD.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_LOCKS_GUARD.acquire, after_in_parent=_LOCKS_GUARD.release, after_in_child=_forget_locks
    )
