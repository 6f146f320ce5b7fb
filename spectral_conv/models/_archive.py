"""Zip archives that may be hostile: what they declare is checked before anything is unpacked."""

from __future__ import annotations

import zipfile
from pathlib import Path

from spectral_conv.models._model import ModelError

LARGEST_TOTAL = 8 * 2**30  # bytes after unpacking
_LARGEST_RATIO = 200  # trained weights compress by less than 2, half-pruned ones by less than 10
_HARMLESS = 64 * 2**20  # bytes; below this any ratio is fine (an array of zeros compresses by 1000)
_MOST_MEMBERS = 200_000


def open_archive(path: Path) -> zipfile.ZipFile:
    """Open a zip archive whose declared sizes are sane; the caller closes it.

    Raises
    ------
    ModelError
        The archive is damaged, or would unpack to more than a model file can need.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError) as error:
        raise ModelError(
            f"{path.name} begins as a zip archive but cannot be opened ({error}); the file is truncated or "
            "damaged. Copy or download it again."
        ) from error
    try:
        _check_sizes(path, archive.infolist())
    except ModelError:
        archive.close()
        raise
    return archive


def first_member(head: bytes) -> str | None:
    """Return the name of the archive's first member, None where `head` does not begin a zip archive."""
    if not head.startswith(b"PK\x03\x04") or len(head) < 30:
        return None
    length = int.from_bytes(head[26:28], "little")
    return head[30 : 30 + length].decode("utf-8", "replace")


def _check_sizes(path: Path, members: list[zipfile.ZipInfo]) -> None:
    if len(members) > _MOST_MEMBERS:
        raise ModelError(
            f"{path.name} declares {len(members)} members; a model file has at most {_MOST_MEMBERS}. "
            "It is refused as a zip bomb."
        )
    total = 0
    for member in members:
        total += member.file_size
        expands = member.file_size > _LARGEST_RATIO * max(member.compress_size, 1)
        if total > LARGEST_TOTAL or (expands and member.file_size > _HARMLESS):
            raise ModelError(
                f"{path.name} would unpack {member.filename!r} from {member.compress_size} to "
                f"{member.file_size} bytes ({total} in all so far); it is refused as a zip bomb (limits: "
                f"{LARGEST_TOTAL} bytes, {_LARGEST_RATIO} times). If it is genuine, save it uncompressed or "
                "as .safetensors."
            )
