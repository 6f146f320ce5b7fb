"""Files that a command writes: whole or not at all, and never one that it reads."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from spectral_conv._whole_file import write_whole

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


PICTURES = (".png", ".pdf", ".svg")
PAGES = (".html", ".htm")


def check_writable(option: str, path: Path, suffixes: Sequence[str], taken: Sequence[Path]) -> None:
    """Refuse, before the work, a file that could not be written after it.

    Parameters
    ----------
    option : str
        Name of the option that asks for the file.
    path : Path
        The file.
    suffixes : sequence of str
        Those it may have.
    taken : sequence of Path
        Files that are read or written besides.

    Raises
    ------
    ValueError
        A suffix that says another format, a file that is needed, a folder that is none.
    """
    if path.suffix.lower() not in suffixes:
        raise ValueError(f"`{option}` must end in {' or '.join(suffixes)}; got {os.fspath(path)!r}.")
    for other in taken:
        if path.resolve() == other.resolve() or (path.exists() and other.exists() and path.samefile(other)):
            raise ValueError(f"`{option}` must not be {other}, which is used already. Choose another path.")
    if not path.parent.is_dir() or path.is_dir():
        raise ValueError(f"`{option}` must be a file in a folder that exists; got {os.fspath(path)!r}.")


def write_array(path: Path, name: str, array: NDArray[np.floating]) -> None:
    """Write a NumPy archive of one array.

    Raises
    ------
    OSError
        The file cannot be written.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> folder = tempfile.TemporaryDirectory()
    >>> write_array(Path(folder.name) / "kernel.npz", "stem.weight", np.ones(2))
    >>> np.load(Path(folder.name) / "kernel.npz")["stem.weight"]
    array([1., 1.])
    >>> folder.cleanup()
    """
    import numpy as np

    def write(file: IO[bytes]) -> None:
        # Not by `np.savez`, to which some names are parameters of its own.
        with (
            zipfile.ZipFile(file, "w") as archive,
            archive.open(f"{name}.npy", "w", force_zip64=True) as member,
        ):
            np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)

    write_whole(path, write)
