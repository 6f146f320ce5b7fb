"""What an HDF5 file of Keras holds, listed inside the sandbox: nothing outside the file is ever followed."""

from __future__ import annotations

import io
import math
import re
import struct
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from numpy.typing import NDArray

from spectral_conv.models._archive import open_archive
from spectral_conv.models._model import ModelError, Skipped

WEIGHTS = "model.weights.h5"
_CONFIG = "config.json"
_LARGEST_CONFIG = 256 * 2**20  # bytes; configs with constants inside reach a few MB
_DEEPEST, _MOST_OBJECTS = 64, 200_000
_LARGEST_RATIO, _HARMLESS = 200, 2**20  # of packed datasets, as for zip archives
_BUDGET = 512 * 2**20  # bytes of packed datasets in all; others stay in the file until somebody asks for them
_FILTERS = {1, 2, 3, 32000}  # deflate, shuffle, checksum, lzf: built in; others would load a plug-in
_DAMAGED_ZIP = (zipfile.BadZipFile, EOFError, OSError, ValueError, RuntimeError, zlib.error, struct.error)


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """One dataset: where its numbers begin in the file, or the numbers themselves where they are packed."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    offset: int | None = None
    numbers: NDArray[Any] | None = None


@dataclass(kw_only=True, eq=False)
class Listing:
    """All that one pass over the file finds.

    Attributes
    ----------
    config : str or None
        The network as JSON text.
    datasets : list of Dataset
        Their names are paths below the group that holds the weights.
    names : dict of str to list of str
        By group: what its attribute `layer_names` or `weight_names` lists.
    labels : dict of str to str
        By group: its attribute `name`, where Keras 3 writes the name of the layer.
    unread : list of Skipped
        What was left alone, with the reason.
    """

    config: str | None = None
    datasets: list[Dataset] = field(default_factory=list)
    names: dict[str, list[str]] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    unread: list[Skipped] = field(default_factory=list)
    optimizer: dict[str, int] = field(default_factory=dict)
    budget: int = _BUDGET
    seen: int = 0


def list_hdf5(path: Path) -> Listing:
    """List an ``.h5`` file; runs in the sandbox."""
    with path.open("rb") as stream:
        return _list(path, stream, path.stat().st_size, 0)


def list_archive(path: Path) -> Listing:
    """List a ``.keras`` archive; runs in the sandbox."""
    with open_archive(path) as archive:
        members = {member.filename: member for member in archive.infolist()}
        if WEIGHTS not in members:
            raise ModelError(f"{path.name} has no member {WEIGHTS}: no weights. Save it again with model.save().")
        try:
            config = None
            if _CONFIG in members:
                _check_config(path, members[_CONFIG].file_size)
                config = archive.read(_CONFIG).decode("utf-8")
            content = archive.read(WEIGHTS)
            start = _start(path, members[WEIGHTS])
        except _DAMAGED_ZIP as error:
            raise ModelError(f"{path.name} is damaged: {error}. Copy or download it again.") from error
    listing = _list(path, io.BytesIO(content), len(content), start)
    listing.config = config
    return listing


def _start(path: Path, member: zipfile.ZipInfo) -> int | None:
    """Return where an uncompressed member begins in the archive."""
    if member.compress_type != zipfile.ZIP_STORED:
        return None
    with path.open("rb") as stream:
        stream.seek(member.header_offset + 26)
        name, extra = struct.unpack("<HH", stream.read(4))
    return int(member.header_offset + 30 + name + extra)


def _list(path: Path, stream: IO[bytes], size: int, start: int | None) -> Listing:
    import h5py

    listing = Listing()
    try:
        file = h5py.File(stream, "r")
    except OSError as error:
        raise ModelError(
            f"{path.name} is no HDF5 file that can be opened ({error}); it is truncated or damaged. Copy or download "
            "it again."
        ) from error
    with file:
        listing.config = _config(path, file)
        inside = listing.config is not None and isinstance(_link(h5py, file, "model_weights"), h5py.HardLink)
        direct = None if file.userblock_size else start
        _walk(h5py, listing, file, "", "model_weights/" if inside else "", size, direct, {})
    for group, count in listing.optimizer.items():
        reason = f"the state of the optimizer ({count} tensors), no weights of the network"
        listing.unread.append(Skipped(name=group, reason=reason))
    return listing


def _config(path: Path, file: Any) -> str | None:
    if "model_config" not in file.attrs:
        return None
    space = file.attrs.get_id("model_config")
    _check_config(path, space.get_storage_size())
    text = _text(file.attrs["model_config"])
    if text is None:
        raise ModelError(f"{path.name} is damaged: its `model_config` is no text. Copy or download it again.")
    _check_config(path, len(text))
    return text


def _check_config(path: Path, size: int) -> None:
    if size > _LARGEST_CONFIG:
        raise ModelError(f"{path.name} claims a configuration of {size} bytes; it is damaged, or made to exhaust.")


def _walk(
    h5py: Any,
    listing: Listing,
    group: Any,
    way: str,
    root: str,
    size: int,
    start: int | None,
    visited: dict[Any, str],
) -> None:
    """List the group at the path `way`; `root` is the group that holds the weights."""
    own = way.removeprefix(root).rstrip("/")
    if way.startswith(root):
        _read_names(listing, group, own)
    if way.count("/") > _DEEPEST:
        listing.unread.append(Skipped(name=own, reason=f"nested more than {_DEEPEST} groups deep"))
        return
    for key in group:
        full = f"{way}{key}"
        name = full.removeprefix(root)
        listing.seen += 1
        if listing.seen > _MOST_OBJECTS:
            raise ModelError(f"The file has more than {_MOST_OBJECTS} objects; no Keras model has.")
        link = _link(h5py, group, key)
        if not isinstance(link, h5py.HardLink):
            listing.unread.append(Skipped(name=name, reason=_refused_link(h5py, link)))
            continue
        try:
            item = group[key]
            address = h5py.h5o.get_info(item.id).addr
        except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
            listing.unread.append(Skipped(name=name, reason=f"it is damaged: {_line(error)}"))
            continue
        if address in visited:
            listing.unread.append(Skipped(name=name, reason=f"the same as {visited[address] or 'the whole file'!r}"))
            continue
        visited[address] = name
        if isinstance(item, h5py.Group):
            _walk(h5py, listing, item, f"{full}/", root, size, start, visited)
        elif re.match(r"optimizer(_weights)?/", full):
            top = full.partition("/")[0]
            listing.optimizer[top] = listing.optimizer.get(top, 0) + 1
        elif isinstance(item, h5py.Dataset):
            try:
                found = _describe(h5py, listing, item, name, size, start)
            except (OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
                found = f"it is damaged: {_line(error)}"
            if isinstance(found, str):
                listing.unread.append(Skipped(name=name, reason=found))
            else:
                listing.datasets.append(found)
        else:
            listing.unread.append(Skipped(name=name, reason="a named data type, no numbers"))


def _describe(h5py: Any, listing: Listing, item: Any, name: str, size: int, start: int | None) -> Dataset | str:
    if item.shape is None:
        return "an empty dataset without a shape"
    plan, shape, dtype = item.id.get_create_plist(), tuple(map(int, item.shape)), item.dtype
    layout = plan.get_layout()
    if layout == h5py.h5d.VIRTUAL:
        return "a virtual dataset: its numbers lie in other files, which are never opened. Save one plain file"
    if plan.get_external_count():
        return "its numbers lie in another file, which is never opened. Save one plain file"
    if dtype.hasobject or dtype.kind not in "fiubcV":
        return "text or objects, no numbers"
    spelled = dtype.str
    if dtype.kind == "V":
        if dtype.names or dtype.itemsize != 2 or _text(item.attrs.get("dtype")) != "bfloat16":
            return f"no plain numbers ({str(dtype)[:60]})"
        spelled = "bfloat16"
    count = math.prod(shape) * dtype.itemsize
    stored = item.id.get_storage_size()
    if count and not stored:
        return f"it claims {count} bytes, but none were ever written"
    offset = item.id.get_offset() if layout == h5py.h5d.CONTIGUOUS else None
    if offset is not None and (count > stored or offset + count > size):
        return f"it claims {count} bytes from byte {offset} on, the file has {size}"
    plain = dtype.kind == "V" or item.id.get_type().equal(h5py.h5t.py_create(dtype))
    if offset is not None and start is not None and plain:
        return Dataset(name=name, shape=shape, dtype=spelled, offset=start + offset)
    reason = _too_much(listing, item, count, stored, plan)
    if reason:
        return reason
    listing.budget -= count
    return Dataset(name=name, shape=shape, dtype=spelled, numbers=item[()])


def _too_much(listing: Listing, item: Any, count: int, stored: int, plan: Any) -> str | None:
    chunk = math.prod(item.chunks) * item.dtype.itemsize if item.chunks else 0
    claimed = max(count, chunk)
    if claimed > max(_HARMLESS, _LARGEST_RATIO * stored):
        return f"it claims {claimed} bytes, but {stored} are stored; that much no weights can be compressed"
    if claimed > listing.budget:
        return f"compressed datasets of more than {_BUDGET} bytes in all are not unpacked; save it uncompressed"
    foreign = {plan.get_filter(i)[0] for i in range(plan.get_nfilters())} - _FILTERS
    if foreign:
        return f"it is packed with the filter {min(foreign)}, which needs a plug-in; save it uncompressed"
    return None


def _link(h5py: Any, group: Any, key: str) -> Any:
    try:
        return group.get(key, getlink=True)
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, UnicodeError):
        return None


def _refused_link(h5py: Any, link: Any) -> str:
    if isinstance(link, h5py.ExternalLink):
        return "a link to another file, which is never opened. Save one plain file"
    if isinstance(link, h5py.SoftLink):
        return "a symbolic link, which Keras never writes; it is not followed"
    return "its link is damaged"


def _read_names(listing: Listing, group: Any, own: str) -> None:
    """Read which weights a group has, in order; Keras splits long lists into weight_names0, weight_names1, ..."""
    try:
        found = [key for key in group.attrs if re.fullmatch(r"(layer|weight)_names\d*", key)]
        found.sort(key=lambda key: (len(key), key))
        texts = [_text(item) for key in found for item in group.attrs[key]]
        label = _text(group.attrs["name"]) if "name" in group.attrs else None
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, UnicodeError):
        return  # they only order and label what is there anyway
    if texts:
        listing.names[own] = [text for text in texts if text is not None]
    if label is not None:
        listing.labels[own] = label


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value) if isinstance(value, str) else None


def _line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
