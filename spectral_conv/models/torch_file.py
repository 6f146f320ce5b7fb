"""PyTorch state dicts (``.pt``, ``.pth``, ``.th``), read with ``weights_only=True`` and never otherwise."""

from __future__ import annotations

import functools
import pickletools
import re
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from numpy.typing import NDArray

from spectral_conv.models._archive import first_member, open_archive
from spectral_conv.models._contents import Contents, StoredTensor
from spectral_conv.models._model import ModelError, Skipped
from spectral_conv.models._state_dicts import flatten

FORMAT = "PyTorch state dict"
SUFFIXES: tuple[str, ...] = (".pt", ".pth", ".th")

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


def can_open(path: Path, head: bytes) -> bool:
    """Say whether the file is a zip archive that torch.save wrote, or a pickle."""
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return True
    _, _, member = (first_member(head) or "").partition("/")
    return member in _FIRST_MEMBERS


def read(path: Path) -> Contents:
    """Unpickle tensors and plain containers only; collect the state dicts in them.

    Raises
    ------
    ModelError
        torch is missing or older than 2.6; the file is damaged, or needs code to be unpickled.
    """
    torch = _import_torch(path)
    with path.open("rb") as stream:
        is_zip = stream.read(4) == b"PK\x03\x04"
    if is_zip:
        with open_archive(path) as archive:
            names = archive.namelist()
        if any(name.endswith("/constants.pkl") for name in names):
            raise ModelError(
                f"{path.name} is a TorchScript archive, which holds a program. Save its weights alone: "
                "torch.save(torch.jit.load(file).state_dict(), 'weights.pth')."
            )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about its own deprecated storages and pickle protocols
            # A legacy file refuses mmap; of a zip file it keeps the tensors that nobody asks for on disk.
            checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except Exception as error:  # torch raises nearly every type for damaged files
        raise _explain(path, error) from error
    found, unread = flatten(checkpoint, torch.is_tensor)
    tensors = {}
    for name, value in found.items():
        reason = _refusal(torch, value)
        if reason:
            unread.append(Skipped(name=name, reason=reason))
            continue
        tensors[name] = StoredTensor(
            name=name,
            shape=tuple(value.shape),
            dtype=str(value.dtype).removeprefix("torch."),
            floating=value.dtype.is_floating_point,
            load=functools.partial(_load, torch, name, value),
        )
    return Contents(tensors=tensors, unread=tuple(unread))


def _import_torch(path: Path) -> ModuleType:
    try:
        import torch
    except ImportError as error:
        raise ModelError(
            f"Reading {path.name} needs PyTorch, which is not installed. Install it with "
            "pip install 'spectral-conv[torch]', or save the weights as .safetensors or .npz."
        ) from error
    version = tuple(int(number) for number in re.findall(r"\d+", str(torch.__version__))[:2])
    if version < _OLDEST:
        raise ModelError(
            f"Reading {path.name} needs PyTorch 2.6 or newer: before, torch.load(weights_only=True) could be "
            f"made to run code. Installed is {torch.__version__}. Upgrade it, or save .safetensors."
        )
    return cast(ModuleType, torch)


def _refusal(torch: ModuleType, value: Any) -> str | None:
    if value.layout != torch.strided or value.is_quantized:
        return "a sparse or quantized tensor; save it as a dense floating-point tensor"
    if value.device.type == "meta":
        return "a tensor without data (meta device)"
    return None


def _load(torch: ModuleType, name: str, tensor: Any) -> NDArray[Any]:
    # NumPy has no bfloat16 and no 8-bit floats; widening to float64 is exact for every type.
    try:
        return cast(NDArray[Any], tensor.detach().to(torch.float64).numpy())
    except (RuntimeError, TypeError) as error:
        raise ModelError(f"{name!r} cannot be converted to float64: {error}") from error


def _explain(path: Path, error: Exception) -> ModelError:
    text = str(error)
    match = re.search(r"GLOBAL ([\w.]+)", text)
    needed = match[1] if match else _first_global(path)
    if needed:
        return ModelError(
            f"{path.name} needs code to be unpickled ({needed}), which is refused: it could run anything. "
            "In the program that wrote it, save the weights alone: torch.save(model.state_dict(), 'w.pth')."
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
