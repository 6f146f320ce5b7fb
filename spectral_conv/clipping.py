"""A whole model with every convolution brought below a norm: a new file, and what it cost."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import math
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectral_conv.geometry import as_integer
from spectral_conv.inspection import layer_record
from spectral_conv.inspection._analysis import FAILURES
from spectral_conv.inspection._inspection import SCHEMA
from spectral_conv.models import ConvLayer, Model, ModelError
from spectral_conv.models._layouts import as_stored
from spectral_conv.models._lookup import matches, select_layers
from spectral_conv.models._open import open_model
from spectral_conv.models._stored import Bytes, StoredFile, Verbatim, stored_tensors
from spectral_conv.models.safetensors_writer import write_safetensors
from spectral_conv.models.torch_module import FORMAT as MODULE
from spectral_conv.operator import ConvOperator
from spectral_conv.orthogonal import clip
from spectral_conv.orthogonal._checks import checked_tolerance
from spectral_conv.progress import work_bar
from spectral_conv.report.clipping import LayerClip
from spectral_conv.report.document import layer_document
from spectral_conv.report.record import NOT_ASKED, LayerReport
from spectral_conv.report.text import printable
from spectral_conv.results import Enclosure
from spectral_conv.spectrum import smallest_singular_value, spectral_norm

_RTOL = 1e-8  # of the norms, as `inspect_model` finds them
_VALUES = ("sigma_max", "sigma_min", "circulant")


@dataclass(frozen=True, kw_only=True)
class ClippedModel:
    """What became of the layers of a model.

    Attributes
    ----------
    model : str
        Name of the model.
    maximum, minimum : float, float or None
        What was asked for.
    layers : tuple of LayerClip
        In the order of the model.
    tensors : int
        How many the new file holds.
    left_out : tuple of (str, str)
        What the file holds beside the tensors of the network, with the reason why it is not in the new one.
    out : Path or None
        The new file; None where a layer could not be brought below the maximum, and nothing was written.
    """

    model: str
    maximum: float
    minimum: float | None
    layers: tuple[LayerClip, ...]
    tensors: int
    left_out: tuple[tuple[str, str], ...]
    out: Path | None

    @property
    def complete(self) -> bool:
        """Whether every layer is below the maximum."""
        return all(layer.after is not None for layer in self.layers)

    def document(self) -> dict[str, Any]:
        """Plain data for JSON, as ``spectral-conv clip --json`` prints it; no NaN, no Infinity."""
        return {
            "model": self.model,
            "schema": SCHEMA,
            "version": importlib.metadata.version("spectral-conv"),
            "settings": {"maximum": self.maximum, "minimum": self.minimum},
            "layers": [_document(layer) for layer in self.layers],
            "tensors": self.tensors,
            "left_out": [{"name": name, "reason": reason} for name, reason in self.left_out],
            "out": None if self.out is None else os.fspath(self.out),
        }


def clip_model(
    model: Model | str | os.PathLike[str],
    maximum: float,
    out: str | os.PathLike[str],
    *,
    minimum: float | None = None,
    input_size: Sequence[int] | None = None,
    layers: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    select: str | None = None,
    overwrite: bool = False,
    rtol: float = 1e-4,
    maxiter: int = 1000,
    progress: bool = False,
) -> ClippedModel:
    """Write a model again with every layer's norm brought down to `maximum`, each kernel moved as little as possible.

    Every tensor of the file is in the new one, under its name, in its number format and layout; those that are not
    clipped are equal bit by bit. The norm is that of the kernel as written, rounded to its number format.

    Parameters
    ----------
    model : Model or path
        The model, as read from its file; a path is read with `spectral_conv.models.read_model`. Its layers are
        clipped, nothing else: biases, batch norms and fully connected layers stay.
    maximum : float
        Positive.
    out : path
        The new file, ``.safetensors``; it appears whole or not at all.
    minimum : float, optional
        Raise smallest singular values towards it: a heuristic, see `spectral_conv.orthogonal.clip`.
    input_size, layers
        As in `read_model`; only with a path.
    select : str, optional
        Only layers whose name has this part or, with one of ``*?[``, matches this glob.
    overwrite : bool
        Whether `out` may exist.
    rtol, maxiter
        As in `spectral_conv.orthogonal.clip`.
    progress : bool
        Show a bar on standard error where that is a terminal.

    Returns
    -------
    ClippedModel
        The layers before and after: ``after.sigma_max.upper <= maximum``, with its basis. A layer that is small
        enough is unchanged. Where one cannot be brought below, nothing is written and `out` is None.

    Raises
    ------
    ModelError
        The model cannot be read; a kernel is not stored as its layer applies it (in parts, turned, scaled), or serves
        several layers; a tensor has a type that safetensors lacks.
    ValueError
        A parameter that does not fit.
    OSError
        `out` cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from importlib.resources import files
    >>> data = files("spectral_conv") / "data"
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     clipped = clip_model(
    ...         data / "digits.safetensors", 12.0, f"{folder}/new.safetensors", layers=data / "digits.layers.json"
    ...     )
    >>> [layer.name for layer in clipped.layers if layer.changed]
    ['square.weight']
    """
    _check_interval(maximum, minimum)
    checked_tolerance("rtol", rtol)
    as_integer("maxiter", maxiter, minimum=1)
    opened = open_model(model, input_size=input_size, layers=layers)
    _check_file(opened)
    if select is not None:
        skipped = tuple(item for item in opened.skipped if matches(item.name, select))
        opened = dataclasses.replace(select_layers(opened, select), skipped=skipped)
    target = Path(out)
    stored = stored_tensors(opened.path)
    read = [*stored.files, *([Path(layers)] if isinstance(layers, str | os.PathLike) else [])]
    _check_target(target, read, overwrite)
    _check_kernels(opened, stored)
    found: list[LayerClip] = []
    replaced: dict[str, Bytes] = {}
    with work_bar(len(opened.layers), printable(opened.name), wanted=progress) as step:
        for layer in opened.layers:
            record, new = _clipped(layer, stored.tensors[layer.name], maximum, minimum, rtol, maxiter)
            found.append(record)
            if new is not None:
                replaced[layer.name] = new
            step()
    complete = all(record.after is not None for record in found)
    if complete:
        write_safetensors(target, stored.tensors.values(), stored.metadata, replaced)
    return ClippedModel(
        model=opened.name,
        maximum=float(maximum),
        minimum=None if minimum is None else float(minimum),
        layers=tuple(found),
        tensors=len(stored.tensors),
        left_out=tuple((item.name, item.reason) for item in stored.left_out),
        out=target if complete else None,
    )


def _check_interval(maximum: float, minimum: float | None) -> None:
    if isinstance(maximum, bool) or not 0.0 < maximum < math.inf:
        raise ValueError(f"`maximum` must be positive and finite; got {maximum!r}.")
    if minimum is not None and (isinstance(minimum, bool) or not 0.0 <= minimum <= maximum):
        raise ValueError(f"`minimum` must lie between 0 and the maximum, {maximum!r}; got {minimum!r}.")


def _check_file(model: Model) -> None:
    if model.format == MODULE:
        raise ModelError(
            f"{model.name} is a live module, which has no file to be written again. Save its state_dict, and clip "
            "that with a layers document (`layers_document`)."
        )


def _check_target(out: Path, read: Iterable[Path], overwrite: bool) -> None:
    if out.suffix.lower() != ".safetensors":
        raise ValueError(f"`out` must end in .safetensors; got {os.fspath(out)!r}.")
    for path in read:
        if out.resolve() == path.resolve() or (out.exists() and out.samefile(path)):
            raise ValueError(f"`out` must not be {path}, which is read. Choose another path.")
    if not out.parent.is_dir() or out.is_dir():
        raise ValueError(f"`out` must be a file in a folder that exists; got {os.fspath(out)!r}.")
    if out.exists() and not overwrite:
        raise ValueError(f"`out` must be a new file; {out} exists. Choose another path, or pass overwrite=True.")


def _check_kernels(model: Model, stored: StoredFile) -> None:
    """Refuse kernels that cannot be written again, or not for one layer alone."""
    left = "Or leave this layer out: `select` others."
    for item in model.skipped:
        if item.spoiled:
            raise ModelError(f"{item.name} cannot be brought below the maximum: {item.reason}. {left}")
    for layer in model.layers:
        if layer.folded:
            raise ModelError(
                f"{layer.name} is scaled by the batch norm {', '.join(layer.folded)}, which the file keeps apart. "
                "Read the model without `fold_batchnorm`."
            )
        tensor = stored.tensors.get(layer.name)
        if tensor is None or tensor.dtype is None or not _is_kernel(layer, tensor):
            raise ModelError(
                f"The file does not hold {layer.name} as its layer applies it, but in parts (weight or spectral "
                "normalization, pruning), as integers with a scale, or turned: there is no tensor to be clipped. "
                f"Save the plain weight in the program that wrote the file. {left}"
            )
        users = 0 if model.graph is None else sum(layer.name in n.weights for n in model.graph.nodes if n.inputs)
        if users > 1:
            raise ModelError(
                f"{layer.name} serves {users} layers, and what is below for one need not be for another. {left}"
            )
        for names in stored.tied:
            if layer.name in names:
                raise ModelError(
                    f"{', '.join(names)} are one tensor: clipping it for one layer changes the others. {left}"
                )


def _is_kernel(layer: ConvLayer, tensor: Verbatim) -> bool:
    """Whether the tensor holds the numbers of the layer's kernel, in the order that its layout says."""
    kernel = as_stored(layer.operator.kernel, layer.layout, layer.kernel_shape)
    return kernel.size == math.prod(tensor.shape) and np.array_equal(kernel.reshape(-1), _numbers(tensor))


def _numbers(tensor: Verbatim) -> NDArray[np.float64]:
    return tensor.bytes().view(tensor.dtype or np.float64).astype(np.float64)


def _clipped(
    layer: ConvLayer, tensor: Verbatim, maximum: float, minimum: float | None, rtol: float, maxiter: int
) -> tuple[LayerClip, Bytes | None]:
    """The layer before and after, and its new numbers as they are stored; None for those that it has."""
    start, dtype = time.perf_counter(), tensor.dtype
    assert dtype is not None
    conv = layer.operator
    before = layer_record(layer)
    try:
        norm = _sure_norm(conv, maximum)
        before = _with_ends(before, norm, None if minimum is None else smallest_singular_value(conv))
        if norm.upper <= maximum and (before.sigma_min is None or before.sigma_min.value >= (minimum or 0.0)):
            return LayerClip(before=before, after=before, dtype=dtype.name, seconds=time.perf_counter() - start), None
        # In its own precision where that is one of the operator's: then the result is what is written.
        own = conv.with_kernel(conv.kernel.astype(dtype)) if dtype == np.float32 else conv
        found = clip(own, maximum, minimum, rtol=rtol, maxiter=maxiter)
        kernel, norm = found.operator.kernel.astype(np.float64), found.norm
        if dtype not in (np.float32, np.float64):
            kernel, norm = _rounded(conv, kernel, dtype, maximum)
        smallest = None if minimum is None else smallest_singular_value(conv.with_kernel(kernel))
    except FAILURES as error:
        failed = LayerClip(
            before=before,
            after=None,
            dtype=dtype.name,
            reason=str(error) or type(error).__name__,
            seconds=time.perf_counter() - start,
        )
        return failed, None
    new = as_stored(kernel, layer.layout, layer.kernel_shape).astype(dtype)
    distance = float(np.linalg.norm(kernel - conv.kernel))
    size = float(np.linalg.norm(conv.kernel))
    record = LayerClip(
        before=before,
        after=_with_ends(before, norm, smallest),
        dtype=dtype.name,
        changed=distance > 0.0,
        distance=distance / size if size > 0.0 else distance,
        # What a smallest value costs is not known.
        gap=max(0.0, 1.0 - found.least_distance / distance) if minimum is None and distance > 0.0 else None,
        seconds=time.perf_counter() - start,
    )
    return record, np.ascontiguousarray(new).reshape(-1).view(np.uint8) if record.changed else None


def _sure_norm(conv: ConvOperator, maximum: float) -> Enclosure:
    """The norm, proved where it can be if it is to be below."""
    norm = spectral_norm(conv, rtol=_RTOL)
    if norm.basis.startswith("residual") and norm.value <= maximum:
        proved = spectral_norm(conv, certify=True)
        if proved.method != "bracket":
            return proved
    return norm


def _rounded(
    conv: ConvOperator, kernel: NDArray[np.float64], dtype: np.dtype[Any], maximum: float
) -> tuple[NDArray[np.float64], Enclosure]:
    """Shrink the kernel until it is below in a short number format; in float64, with its norm."""
    margin = 2.0**-20
    while True:
        short = kernel.astype(dtype).astype(np.float64)
        norm = _sure_norm(conv.with_kernel(short), maximum)
        if norm.upper <= maximum:
            return short, norm
        # Rounding may undo a small step: the next one is larger.
        kernel = kernel * (maximum / norm.upper) * (1.0 - margin)
        margin = min(2.0 * margin, 0.5)


def _with_ends(report: LayerReport, norm: Enclosure, smallest: Enclosure | None) -> LayerReport:
    reason = NOT_ASKED if smallest is None else None
    return dataclasses.replace(report, sigma_max=norm, sigma_min=smallest, sigma_min_reason=reason)


def _document(layer: LayerClip) -> dict[str, Any]:
    before = layer_document(layer.before)
    document = {key: value for key, value in before.items() if not key.startswith(_VALUES)}
    for key in ("bounds", "seconds"):
        del document[key]
    document |= {"dtype": layer.dtype, "changed": layer.changed, "distance": layer.distance, "gap": layer.gap}
    for word, record in (("before", layer.before), ("after", layer.after)):
        document[word] = None if record is None else _ends(record)
    if layer.reason is not None:
        document["reason"] = layer.reason
    return document | {"seconds": round(layer.seconds, 6)}


def _ends(report: LayerReport) -> dict[str, Any]:
    found = layer_document(report)
    return {end: found[end] for end in ("sigma_max", "sigma_min")}
