"""PyTorch state dicts (``.pt``, ``.pth``, ``.ckpt``, ...), read with ``weights_only=True`` and never otherwise."""

from __future__ import annotations

import functools
import importlib.util
import pickletools
import re
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from spectral_conv.models._archive import first_member, open_archive
from spectral_conv.models._contents import Contents, StoredTensor
from spectral_conv.models._model import ModelError, Skipped
from spectral_conv.models._sandbox import in_child
from spectral_conv.models._state_dicts import flatten

FORMAT = "PyTorch state dict"
SUFFIXES: tuple[str, ...] = (".pt", ".pth", ".th", ".ckpt", ".t7", ".model")

# torch.save writes NAME/data.pkl first; TorchScript and some versions begin with another of these.
_FIRST_MEMBERS = (
    "data.pkl",
    "version",
    "byteorder",
    "constants.pkl",
    ".format_version",
    ".data/serialization_id",
)
_OLDEST = (2, 6)
_LUA = (b"\x03\x00\x00\x00", b"\x04\x00\x00\x00")  # a table or an object of Torch7
_MOST_COPIES, _HARMLESS = 4, 64 * 2**20  # numbers given per number stored, and bytes below which any is fine

# What the child sends of a tensor: its name, shape, number format, whether it floats, and the numbers if so.
_Sent = tuple[str, tuple[int, ...], str, bool, NDArray[Any] | None]


def can_open(path: Path, head: bytes) -> bool:
    """Say whether the file is a zip archive that torch.save wrote, or a pickle."""
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return True
    _, _, member = (first_member(head) or "").partition("/")
    return member in _FIRST_MEMBERS


def read(path: Path) -> Contents:
    """Unpickle tensors and plain containers only, in a child process; collect the state dicts in them.

    Raises
    ------
    ModelError
        torch is missing or older than 2.6; the file is damaged, or needs code to be unpickled.
    """
    _check_container(path)
    _require_torch(path)
    sent, unread = in_child(parse, path, "PyTorch", ("torch",))
    tensors = {}
    for name, shape, dtype, floating, numbers in sent:
        tensors[name] = StoredTensor(
            name=name, shape=shape, dtype=dtype, floating=floating, load=functools.partial(_load, name, numbers)
        )
    return Contents(tensors=tensors, unread=tuple(unread))


def parse(path: Path) -> tuple[list[_Sent], list[Skipped]]:
    """Return the tensors of a file as plain data: what the child process does.

    Raises
    ------
    ModelError
        As `read`.
    """
    import torch

    _check_version(path, str(torch.__version__))
    stored, is_zip = _check_container(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about its own deprecated storages and pickle protocols
            # A legacy file refuses mmap; of a zip file it keeps the tensors that nobody asks for on disk.
            checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except MemoryError:
        raise
    except Exception as error:  # torch raises nearly every type for damaged files
        raise _explain(path, error) from error
    found, unread = flatten(checkpoint, torch.is_tensor)
    sent: list[_Sent] = []
    given = 0
    for name, value in found.items():
        reason = _refusal(torch, value)
        if reason:
            unread.append(Skipped(name=name, reason=reason))
            continue
        floating = value.dtype.is_floating_point
        given += value.numel() * value.element_size() if floating else 0
        if given > _MOST_COPIES * stored + _HARMLESS:
            raise ModelError(
                f"{path.name} holds {stored} bytes, but its tensors up to {name!r} repeat them to {given}; it is "
                "refused as a memory bomb. If it is genuine, save it as .safetensors."
            )
        numbers = _numbers(torch, value) if floating else None
        sent.append((name, tuple(value.shape), _dtype(value), numbers is not None, numbers))
    return sent, unread


def _require_torch(path: Path) -> None:
    # Only the child pays for the import, which takes seconds.
    if "torch" in sys.modules:
        loaded = cast(ModuleType | None, sys.modules["torch"])
        if loaded is not None:
            _check_version(path, str(loaded.__version__))
            return
    elif importlib.util.find_spec("torch") is not None:
        return
    raise ModelError(
        f"Reading {path.name} needs PyTorch, which is not installed. Install it with "
        "pip install 'spectral-conv[torch]', or save the weights as .safetensors or .npz."
    )


def _check_version(path: Path, text: str) -> None:
    version = tuple(int(number) for number in re.findall(r"\d+", text)[:2])
    if version < _OLDEST:
        raise ModelError(
            f"Reading {path.name} needs PyTorch 2.6 or newer: before, torch.load(weights_only=True) could be "
            f"made to run code. Installed is {text}. Upgrade it, or save .safetensors."
        )


def _check_container(path: Path) -> tuple[int, bool]:
    """Return how many bytes the file holds once unpacked, and whether it is a zip archive."""
    with path.open("rb") as stream:
        magic = stream.read(4)
    if magic in _LUA:
        raise ModelError(
            f"{path.name} is a file of Torch7 (Lua), which PyTorch no longer reads. Convert it with a version of "
            "PyTorch before 1.0 (torch.utils.serialization.load_lua), and save the weights as a state dict."
        )
    if magic != b"PK\x03\x04":
        return path.stat().st_size, False
    with open_archive(path) as archive:
        members = archive.infolist()
    if any(member.filename.endswith("/constants.pkl") for member in members):
        raise ModelError(
            f"{path.name} is a TorchScript archive, which holds a program. Save its weights alone: "
            "torch.save(torch.jit.load(file).state_dict(), 'weights.pth')."
        )
    return sum(member.file_size for member in members), True


def _refusal(torch: ModuleType, value: Any) -> str | None:
    if value.layout != torch.strided or value.is_quantized:
        return "a sparse or quantized tensor; save it as a dense floating-point tensor"
    if value.device.type == "meta":
        return "a tensor without data (meta device)"
    return None


def _dtype(tensor: Any) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _numbers(torch: ModuleType, tensor: Any) -> NDArray[Any] | None:
    """Return the numbers in the stored format; NumPy has bfloat16 and 8-bit floats from ml_dtypes."""
    plain = tensor.detach().resolve_neg().contiguous()
    if plain.dtype in (torch.float16, torch.float32, torch.float64):
        return cast(NDArray[Any], plain.numpy())
    import ml_dtypes

    extended = getattr(ml_dtypes, _dtype(tensor), None)
    bits = {1: torch.uint8, 2: torch.int16}.get(plain.element_size())
    if extended is None or bits is None or "_x2" in _dtype(tensor):
        return None
    return cast(NDArray[Any], plain.view(bits).numpy().view(np.dtype(extended)))


def _load(name: str, numbers: NDArray[Any] | None) -> NDArray[Any]:
    if numbers is None:
        raise ModelError(f"{name!r} holds no real floating-point numbers.")
    return numbers


def _explain(path: Path, error: Exception) -> ModelError:
    text = str(error)
    match = re.search(r"GLOBAL ([\w.]+)", text)
    needed = match[1] if match else _first_global(path)
    if needed:
        return ModelError(
            f"{path.name} needs code to be unpickled ({needed}), which is refused: it could run anything. "
            "In the program that wrote it, save the weights alone: torch.save(model.state_dict(), 'w.pth'), or of "
            "a checkpoint with settings beside them: torch.save(checkpoint['state_dict'], 'w.pth')."
        )
    first_line = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    if type(error).__name__ == "UnpicklingError":
        first_line = "it holds something else than tensors in dicts and lists"
    return ModelError(
        f"{path.name} cannot be read as a PyTorch state dict: {first_line[:200]}. The file is damaged, or no "
        "state dict; copy or download it again, or save torch.save(model.state_dict(), 'weights.pth')."
    )


def _first_global(path: Path) -> str | None:
    """Return the first name that a plain pickle imports, found without running the pickle."""
    strings: list[str] = []
    try:
        with path.open("rb") as stream:
            for opcode, argument, _ in pickletools.genops(stream):
                if opcode.name in ("GLOBAL", "INST"):
                    return str(argument).replace(" ", ".")
                if opcode.name == "STACK_GLOBAL":
                    return ".".join(strings[-2:])
                if isinstance(argument, str):
                    strings.append(argument)
    except Exception:  # whatever is wrong with the bytes, they are no readable pickle
        return None
    return None
