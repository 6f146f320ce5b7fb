"""Reading a model: a reader's tensors, the geometry stated or assumed for them, the layers."""

from __future__ import annotations

import dataclasses
import operator
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectral_conv.models._assumptions import assume_layers
from spectral_conv.models._batchnorm import fold_batchnorms
from spectral_conv.models._build import build_layer
from spectral_conv.models._complete import complete_layers
from spectral_conv.models._constants import small_constants
from spectral_conv.models._contents import Contents
from spectral_conv.models._entry import LARGEST_INTEGER, LayerEntry, short
from spectral_conv.models._kernel_names import refusal
from spectral_conv.models._linear import split_linear
from spectral_conv.models._lookup import match_name, suggestion
from spectral_conv.models._model import ConvLayer, Model, ModelError, Skipped
from spectral_conv.models._parametrized import fold_parametrized
from spectral_conv.models._registry import find_reader, supported_formats
from spectral_conv.models.layers_json import read_layers
from spectral_conv.models.torch_module import FORMAT as MODULE
from spectral_conv.models.torch_module import is_module, module_name, read_module

if TYPE_CHECKING:
    from torch.nn import Module


def read_model(
    path: str | os.PathLike[str] | Module,
    /,
    *,
    example_input: Any = None,
    input_size: Sequence[int] | None = None,
    layers: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    include_linear: bool = False,
    fold_batchnorm: bool = False,
) -> Model:
    """Read the convolution layers of a model file, or of a live PyTorch module.

    Weights alone tell no stride, padding, dilation or input size. `layers` states them; without it they are
    assumed (padding "same", stride 1, dilation 1, one group, PyTorch's layout), and each layer lists what. Weights
    that are stored in parts (weight and spectral normalization, pruning) become the weight that the layer applies.

    Parameters
    ----------
    path : path
        ONNX and Keras models (``.onnx``, ``.keras``, ``.h5``, ``.hdf5``), which carry their geometry; or weights:
        ``.safetensors`` (or the index of several), ``.npz``, Flax's ``.msgpack``, and with PyTorch installed state
        dicts (``.pt``, ``.pth``, ``.ckpt``, ...; never a pickle that needs code). The format is told by the first
        bytes, then by the suffix. Or a ``torch.nn.Module``.
    example_input : Tensor, tuple or mapping, optional
        What the forward pass of a module takes (a tuple of positional, a mapping of keyword arguments). It is run
        once, in evaluation mode and without gradients; the geometry is then exact. Without it, input sizes of a
        module are assumed.
    input_size : sequence of int, optional
        ``(channels, *spatial)`` in pixels, for every layer with as many axes, where `layers` is not given.
        Default: 64, 32 x 32 or 16 x 16 x 16 pixels.
    layers : path or mapping, optional
        A layers document: ``{"layers": [...]}`` with `weight, stride, padding, dilation, groups, input_size`
        per layer. Only the layers that it names are taken. What the file itself states stands.
    include_linear : bool, optional
        Whether fully connected layers are taken too, as 1 x 1 convolutions of one pixel. In a file of weights alone
        these are the matrices whose name ends in ``weight`` or ``kernel``.
    fold_batchnorm : bool, optional
        Whether the kernel of a convolution that a batch norm follows directly is scaled as the two act together at
        inference; the file must have the network. `ConvLayer.folded` names the batch norm; those that stay are in
        `skipped` with the reason.

    Returns
    -------
    Model
        The layers, their operators in float64, and every other tensor with the reason why it is none. A
        convolution that cannot be analysed (weights that are not finite, an input smaller than the kernel) is
        among the latter.

    Raises
    ------
    ModelError
        The file or the document cannot be read, they contradict each other, or no convolution is left.

    Examples
    --------
    >>> from importlib.resources import files
    >>> from spectral_conv.models import read_model
    >>> data = files("spectral_conv") / "data"
    >>> model = read_model(data / "digits.safetensors", layers=data / "digits.layers.json")
    >>> model.layers[0].name, model.layers[0].operator.shape, model.layers[0].assumed
    ('stem.weight', (1024, 64), ())
    """
    size = _checked_size(input_size)
    file, form, contents = _contents(path, example_input, include_linear)
    linear = None
    if form != MODULE:
        contents = contents if contents.stated is not None else fold_parametrized(contents)
        if include_linear:
            contents, linear = split_linear(contents)
    skipped = list(contents.unread)
    document = None if layers is None else read_layers(layers)
    if document is not None and linear is not None:
        contents, linear = _named_linear(document, contents, linear)
    if contents.stated is not None:
        entries, others = complete_layers(file, contents, document or (), size)
    elif document is None:
        entries, others = assume_layers(contents.tensors, size)
    else:
        entries, others = _stated_layers(file, contents, document)
    tensors = dict(contents.tensors)
    if linear is not None:
        entries += linear.stated or ()
        tensors |= linear.tensors
    skipped += others
    built = [build_layer(entry, tensors[entry.weight]) for entry in entries]
    found = tuple(layer for layer in built if isinstance(layer, ConvLayer))
    failed = [layer for layer in built if isinstance(layer, Skipped)]
    if not found:
        raise _no_convolution(file, contents, failed, skipped)
    if fold_batchnorm:
        found, kept = fold_batchnorms(file, contents, found)
        skipped += kept
    return Model(
        path=file,
        format=form,
        layers=found,
        skipped=(*failed, *skipped),
        graph=contents.graph,
        constants=small_constants(contents, tensors, {layer.name for layer in found}),
    )


def _contents(path: Any, example_input: Any, include_linear: bool) -> tuple[Path, str, Contents]:
    if is_module(path):
        return Path(module_name(path)), MODULE, read_module(path, example_input, include_linear)
    if not isinstance(path, str | os.PathLike):
        raise ModelError(
            f"A model must be given as the path of its file, or as a torch.nn.Module; got {type(path).__name__}."
        )
    if example_input is not None:
        raise ModelError(
            "`example_input` is for a torch.nn.Module, which can be run; for a file, give `input_size` or `layers`."
        )
    file = Path(path)
    reader = find_reader(file)
    return file, reader.FORMAT, reader.read(file)


def _named_linear(document: Sequence[LayerEntry], contents: Contents, linear: Contents) -> tuple[Contents, Contents]:
    """Leave the matrices that a layers document names to the document, as kernels of 1 x 1."""
    every = {**contents.tensors, **linear.tensors}
    named = {match_name(entry.weight, every) for entry in document} & linear.tensors.keys()
    given = {name: tensor for name, tensor in linear.tensors.items() if name in named}
    kept = tuple(entry for entry in linear.stated or () if entry.weight not in named)
    stated = contents.stated
    if stated is not None:
        stated = (*stated, *(entry for entry in linear.stated or () if entry.weight in named))
    contents = dataclasses.replace(contents, tensors={**contents.tensors, **given}, stated=stated)
    return contents, dataclasses.replace(linear, stated=kept)


def _checked_size(input_size: Any) -> tuple[int, ...] | None:
    if input_size is None:
        return None
    entries = tuple(input_size) if isinstance(input_size, Iterable) else ()
    try:
        sizes = tuple(operator.index(entry) for entry in entries)
    except TypeError:
        sizes = ()
    if not 2 <= len(sizes) <= 4 or not all(1 <= size <= LARGEST_INTEGER for size in sizes):
        raise ModelError(
            "`input_size` must be (channels, *spatial), 2 to 4 positive integers such as (3, 32, 32); got "
            f"{short(input_size)}."
        )
    return sizes


def _stated_layers(
    file: Path, contents: Contents, stated: Sequence[LayerEntry]
) -> tuple[list[LayerEntry], list[Skipped]]:
    tensors = contents.tensors
    entries: dict[str, LayerEntry] = {}
    for entry in stated:
        name = match_name(entry.weight, tensors)
        if name is None:
            raise _missing(file, contents, entry)
        if name in entries:
            raise ModelError(f"{entry.where}: the tensor {name!r} of {file.name} is named twice. Keep one entry.")
        entries[name] = dataclasses.replace(entry, weight=name)
    skipped = [
        Skipped(
            name=tensor.name,
            reason=refusal(tensor, tensors) or "looks like a kernel, but the layers document does not name it",
        )
        for tensor in tensors.values()
        if tensor.name not in entries
    ]
    return list(entries.values()), skipped


def _missing(file: Path, contents: Contents, entry: LayerEntry) -> ModelError:
    for item in contents.unread:
        if item.name == entry.weight:
            return ModelError(f"{entry.where}: {item.name!r} of {file.name} was not read: {item.reason}.")
    close = suggestion(entry.weight, contents.tensors)
    return ModelError(f"{entry.where}: {file.name} has no tensor {entry.weight!r}.{close}")


def _no_convolution(file: Path, contents: Contents, failed: list[Skipped], skipped: list[Skipped]) -> ModelError:
    if failed:
        reasons = "; ".join(f"{item.name}: {item.reason}" for item in failed[:5])
        more = f"; and {len(failed) - 5} more" if len(failed) > 5 else ""
        return ModelError(f"None of the {len(failed)} convolutions of {file.name} can be analysed. {reasons}{more}.")
    if not contents.tensors and not skipped:
        return ModelError(f"{file.name} holds no tensors. Readable are weights in {supported_formats()}.")
    # The tensors with the most axes are what a reader of the message looks for.
    axes = {tensor.name: len(tensor.shape) for tensor in contents.tensors.values()}
    shown = sorted(skipped, key=lambda item: -axes.get(item.name, 9))[:5]
    reasons = "; ".join(f"{item.name}{_shape(contents, item.name)}: {item.reason}" for item in shown)
    return ModelError(
        f"{file.name} has no convolution among its {len(skipped)} tensors. {reasons}. If one of them is a "
        "kernel, name it in a layers document and pass that as `layers` (--layers)."
    )


def _shape(contents: Contents, name: str) -> str:
    tensor = contents.tensors.get(name)
    return f" {list(tensor.shape)}" if tensor else ""
