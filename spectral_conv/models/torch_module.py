"""Live ``torch.nn.Module`` objects: the geometry of every convolution, watched while the network runs once.

Modules of PyTorch's own classes state their geometry; hooks give the input size. A class that overrides the forward
pass may pad or rescale by itself, and a function may be called without any module: for these the arguments of the
function that PyTorch finally runs are the geometry, and its weight is the weight.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectral_conv.models._contents import Contents, StoredTensor
from spectral_conv.models._entry import LayerEntry
from spectral_conv.models._layouts import default_layout
from spectral_conv.models._linear import as_kernel, linear_entry
from spectral_conv.models._model import ModelError, Skipped
from spectral_conv.models._module_calls import Call, Watch, is_stock
from spectral_conv.models._parametrized import whole_of

FORMAT = "PyTorch module"
_SILENT = ("input_size",)
_SILENT_CUSTOM = ("padding", "padding_mode", "input_size")


def is_module(value: object) -> bool:
    """Say whether `value` is a ``torch.nn.Module``, without importing torch."""
    neural = sys.modules.get("torch.nn")
    return neural is not None and isinstance(value, neural.Module)


def module_name(module: Any) -> str:
    """Return how messages and tables name a module: ``ResNet (module)``."""
    return f"{type(_unwrapped(module)).__name__} (module)"


def read_module(module: Any, example_input: Any, include_linear: bool) -> Contents:
    """Return the convolutions of a module with their geometry, and every other parameter.

    Parameters
    ----------
    module : torch.nn.Module
        Its training flags are as before afterwards; the forward pass runs in evaluation mode, without gradients.
    example_input : Tensor, tuple, list or mapping, optional
        What the forward pass takes: one tensor, the positional arguments, or the keyword arguments. Without it,
        input sizes are left open.
    include_linear : bool
        Whether fully connected layers are taken as 1 x 1 convolutions.

    Raises
    ------
    ModelError
        The forward pass fails.
    """
    import torch

    module = _unwrapped(module)
    if isinstance(module, torch.jit.ScriptModule):
        raise ModelError(
            "A TorchScript program shows none of its layers. Pass the module that it was made from, or save "
            "torch.save(program.state_dict(), 'weights.pth') and read that."
        )
    layers = {_weight_name(path): layer for path, layer in module.named_modules() if _is_convolution(torch, layer)}
    found = _Found()
    with torch.no_grad(), _evaluating(module):
        if example_input is None:
            _add_stated(torch, layers, found)
        else:
            _add_called(torch, module, layers, example_input, found)
        if include_linear:
            _add_linear(torch, module, found)
    _add_others(torch, module, found)
    return Contents(tensors=found.tensors, unread=tuple(found.skipped), stated=tuple(found.entries))


@dataclass(frozen=True)
class _Found:
    """What the steps of `read_module` collect."""

    tensors: dict[str, StoredTensor] = field(default_factory=dict)
    entries: list[LayerEntry] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)

    def skip(self, name: str, reason: str) -> None:
        self.skipped.append(Skipped(name=name, reason=reason))

    def add(self, entry: LayerEntry, tensor: StoredTensor) -> None:
        self.entries.append(entry)
        self.tensors[entry.weight] = tensor


def _add_stated(torch: Any, layers: Mapping[str, Any], found: _Found) -> None:
    for name, layer in layers.items():
        weight = _weight(torch, name, layer, found)
        if weight is not None:
            silent = _SILENT if is_stock(layer) else _SILENT_CUSTOM
            found.add(_entry_of_module(name, layer, silent), _stored(name, weight))


def _add_called(torch: Any, module: Any, layers: Mapping[str, Any], example_input: Any, found: _Found) -> None:
    watch = Watch(torch, layers, dict(module.named_parameters()))
    _run(module, watch, *_arguments(example_input))
    for name, call in watch.calls.items():
        found.add(_entry_of_call(name, call, layers.get(name)), _stored(name, call.weight))
    for name, sizes in watch.other_sizes.items():
        others, first = " and to ".join(map(_times, sizes)), _times(watch.calls[name].size)
        found.skip(name, f"also applied to {others} pixels; the table has its first call, {first}")
    for number, what in enumerate(watch.nameless):
        found.skip(f"function call {number}", what)
    reason = "a convolution that the forward pass of `example_input` never reaches: its input size is unknown"
    for name in layers:
        if name not in watch.calls:
            found.skip(name, reason)


def _add_linear(torch: Any, module: Any, found: _Found) -> None:
    for path, layer in module.named_modules():
        name = _weight_name(path)
        if isinstance(layer, torch.nn.Linear) and name not in found.tensors:
            weight = _weight(torch, name, layer, found)
            if weight is not None:
                found.add(linear_entry(name), as_kernel(_stored(name, weight)))


def _add_others(torch: Any, module: Any, found: _Found) -> None:
    """List every other parameter and buffer, so that nothing is left out silently."""
    told = {item.name for item in found.skipped}
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if name in found.tensors or name in told:
            continue
        whole = whole_of(name)
        if whole in found.tensors:
            found.skip(name, f"part of the parametrization of {whole}")
        elif torch.nn.parameter.is_lazy(tensor):
            found.skip(name, "not initialized: its layer has not been called yet")
        else:
            found.tensors[name] = _stored(name, tensor.detach())


def _unwrapped(module: Any) -> Any:
    """Return what torch.compile or a parallel wrapper runs; hooks inside these are not reliable."""
    import torch

    while True:
        inner = getattr(module, "_orig_mod", None)
        if inner is None and isinstance(module, torch.nn.DataParallel | torch.nn.parallel.DistributedDataParallel):
            inner = module.module
        if not isinstance(inner, torch.nn.Module):
            return module
        module = inner


def _weight_name(path: str) -> str:
    return f"{path}.weight" if path else "weight"


def _is_convolution(torch: Any, layer: Any) -> bool:
    nn = torch.nn
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    return isinstance(layer, kinds)


@contextlib.contextmanager
def _evaluating(module: Any) -> Iterator[None]:
    # Flags one by one: `eval` may be overridden (merging adapters, say), and parts may already be frozen.
    flags = [(layer, layer.training) for layer in module.modules()]
    try:
        for layer, _ in flags:
            layer.training = False
        yield
    finally:
        for layer, flag in flags:
            layer.training = flag


def _run(module: Any, watch: Watch, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    try:
        with watch:
            module(*args, **kwargs)
    except Exception as error:  # whatever the forward pass raises
        first_line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        raise ModelError(
            f"The forward pass of {module_name(module)} with this `example_input` fails ({type(error).__name__}: "
            f"{first_line[:200]}). Check its shape, number format and device; a network of several inputs takes them "
            "as a tuple, or by name as a dictionary."
        ) from error


def _times(size: tuple[int, ...]) -> str:
    return " x ".join(map(str, size))


def _arguments(example_input: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(example_input, Mapping):
        return (), dict(example_input)
    if isinstance(example_input, tuple | list):
        if example_input and all(isinstance(size, int) for size in example_input):
            raise ModelError(
                f"`example_input` must be what the module takes, not its shape: torch.zeros{tuple(example_input)}."
            )
        return tuple(example_input), {}
    return (example_input,), {}


def _refresh(layer: Any) -> None:
    """Let old-style weight and spectral normalization recompute `weight`, as every forward pass does."""
    for hook in list(layer._forward_pre_hooks.values()):
        if type(hook).__module__.startswith("torch.nn.utils."):
            hook(layer, ())


def _weight(torch: Any, name: str, layer: Any, found: _Found) -> Any:
    _refresh(layer)
    if torch.nn.parameter.is_lazy(layer.weight):
        found.skip(name, "not initialized: pass `example_input`, or call the module once")
        return None
    return layer.weight.detach().clone()  # the numbers of now, whatever training does to them later


def _entry_of_module(name: str, layer: Any, silent: tuple[str, ...]) -> LayerEntry:
    ndim = len(layer.kernel_size)
    return LayerEntry(
        weight=name,
        where=f"layer {name!r}",
        layout=default_layout(ndim, layer.transposed),
        transposed=layer.transposed,
        stride=tuple(layer.stride),
        padding=_padding(layer.padding, layer.kernel_size, layer.dilation),
        padding_mode=layer.padding_mode,
        dilation=tuple(layer.dilation),
        groups=layer.groups,
        output_padding=tuple(layer.output_padding) if layer.transposed else 0,
        assumed=silent,
    )


def _entry_of_call(name: str, call: Call, layer: Any) -> LayerEntry:
    ndim = call.weight.ndim - 2
    if layer is not None and is_stock(layer):
        stride, padding, dilation = tuple(layer.stride), layer.padding, tuple(layer.dilation)
        mode, groups = layer.padding_mode, layer.groups
    else:
        stride, padding, dilation = call.stride, call.padding, call.dilation
        mode, groups = "zeros", call.groups
    kernel = tuple(call.weight.shape[2:])
    pairs = _padding(padding, kernel, dilation)
    extra: tuple[int, ...] | int = 0
    if call.transposed:  # what `output_size` asked for included
        extra = tuple(
            call.output_size[i] - ((call.size[i] - 1) * stride[i] - sum(pairs[i]) + dilation[i] * (kernel[i] - 1) + 1)
            for i in range(ndim)
        )
    return LayerEntry(
        weight=name,
        where=f"layer {name!r}",
        layout=default_layout(ndim, call.transposed),
        transposed=call.transposed,
        stride=stride,
        padding=pairs,
        padding_mode=mode,
        dilation=dilation,
        groups=groups,
        output_padding=extra,
        input_size=call.size,
        output_size=call.output_size,
    )


def _padding(
    padding: str | tuple[int, ...], kernel: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[tuple[int, int], ...]:
    if padding == "valid":
        return ((0, 0),) * len(kernel)
    if padding == "same":  # of an odd number of pixels PyTorch puts the one more at the end
        totals = [factor * (size - 1) for factor, size in zip(dilation, kernel, strict=True)]
        return tuple((total // 2, total - total // 2) for total in totals)
    return tuple((int(size), int(size)) for size in padding)


def _stored(name: str, tensor: Any) -> StoredTensor:
    return StoredTensor(
        name=name,
        shape=tuple(tensor.shape),
        dtype=str(tensor.dtype).removeprefix("torch."),
        floating=tensor.dtype.is_floating_point and tensor.device.type != "meta",
        load=functools.partial(_numbers, name, tensor),
    )


def _numbers(name: str, tensor: Any) -> NDArray[Any]:
    import torch

    try:
        numbers: NDArray[Any] = tensor.to("cpu", torch.float64).numpy()
    except (RuntimeError, TypeError) as error:
        raise ModelError(f"{name!r} cannot be converted to float64: {error}") from error
    return np.array(numbers)
