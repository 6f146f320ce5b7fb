"""What PyTorch convolves while a network runs: every call of a convolution, with its arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_FUNCTIONS = ("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
_ARGUMENTS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_ARGUMENTS_TRANSPOSED = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")


@dataclass(frozen=True, kw_only=True)
class Call:
    """One convolution as it was run.

    Attributes
    ----------
    weight : Tensor
        A copy of the weight that was applied.
    transposed : bool
        Whether it was a transposed convolution.
    stride, padding, dilation, groups
        The arguments of the function, one entry per axis.
    size, output_size : tuple of int
        Spatial sizes: of what the module read where a module of PyTorch's own ran, else of what the function read.
    """

    weight: Any
    transposed: bool
    stride: tuple[int, ...]
    padding: str | tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    size: tuple[int, ...]
    output_size: tuple[int, ...]


def is_stock(layer: Any) -> bool:
    """Say whether a convolution runs PyTorch's own forward pass, so that its attributes are its geometry."""
    methods = [getattr(type(layer), name, None) for name in ("forward", "_conv_forward")]
    own = all(method is None or method.__module__ == "torch.nn.modules.conv" for method in methods)
    return own and "forward" not in vars(layer) and "_conv_forward" not in vars(layer)


class Watch:
    """A context in which every convolution is recorded.

    Parameters
    ----------
    torch : module
        PyTorch.
    layers : mapping of str to Module
        The convolution modules, by the name of their weight.
    parameters : mapping of str to Parameter
        All parameters of the network: a function that applies one of them is a layer of its name.

    Attributes
    ----------
    calls : dict of str to Call
        The first call of every layer, in the order of the calls.
    other_sizes : dict of str to list of tuple
        Input sizes of later calls, where they differ.
    nameless : list of str
        Descriptions of calls whose weight is no parameter.
    """

    def __init__(self, torch: Any, layers: Mapping[str, Any], parameters: Mapping[str, Any]) -> None:
        self.calls: dict[str, Call] = {}
        self.other_sizes: dict[str, list[tuple[int, ...]]] = {}
        self.nameless: list[str] = []
        self._layers = layers
        self._names = {id(parameter): name for name, parameter in parameters.items()}
        self._inside: list[tuple[str, tuple[int, ...] | None]] = []
        self._handles: list[Any] = []
        self._mode = _mode(torch, self._record)

    def __enter__(self) -> Watch:
        for name, layer in self._layers.items():
            self._handles.append(
                layer.register_forward_pre_hook(self._opener(name, is_stock(layer)), with_kwargs=True)
            )
            self._handles.append(layer.register_forward_hook(self._close))
        self._mode.__enter__()
        return self

    def __exit__(self, *reason: object) -> None:
        self._mode.__exit__(*reason)
        for handle in self._handles:
            handle.remove()

    def _opener(self, name: str, stock: bool) -> Any:
        def open_layer(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            value = args[0] if args else kwargs.get("input")
            shape = tuple(getattr(value, "shape", ())) if stock else ()
            read = shape[-len(layer.kernel_size) :] or None
            self._inside.append((name, read))

        return open_layer

    def _close(self, layer: Any, args: Any, output: Any) -> None:
        self._inside.pop()

    def _record(self, function: str, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        transposed = "transpose" in function
        given = dict(zip(_ARGUMENTS_TRANSPOSED if transposed else _ARGUMENTS, args, strict=False)) | kwargs
        value, weight = given["input"], given["weight"]
        ndim = weight.ndim - 2
        name, read = self._inside[-1] if self._inside else (None, None)
        if read is None:  # no module of PyTorch's own: a parameter knows its name
            name = self._names.get(id(weight), name)
        size = read or tuple(value.shape[-ndim:])
        if name is None:
            self.nameless.append(
                f"{function} with a computed weight of shape {list(weight.shape)} on {list(size)} pixels: no "
                "parameter of the network, but its result; wrap it as a ConvOperator to look at it"
            )
            return
        if name in self.calls:
            if size != self.calls[name].size and size not in self.other_sizes.get(name, []):
                self.other_sizes.setdefault(name, []).append(size)
            return
        padding = given.get("padding", 0)
        self.calls[name] = Call(
            weight=weight.detach().clone(),
            transposed=transposed,
            stride=_per_axis(given.get("stride", 1), ndim),
            padding=padding if isinstance(padding, str) else _per_axis(padding, ndim),
            dilation=_per_axis(given.get("dilation", 1), ndim),
            groups=int(given.get("groups", 1)),
            size=size,
            output_size=tuple(output.shape[-ndim:]),
        )


def _per_axis(value: Any, ndim: int) -> tuple[int, ...]:
    sizes = tuple(int(size) for size in value) if hasattr(value, "__iter__") else (int(value),)
    return sizes * ndim if len(sizes) == 1 else sizes


def _mode(torch: Any, record: Any) -> Any:
    functions = {getattr(torch, name): name for name in _FUNCTIONS}

    class Recorder(torch.overrides.TorchFunctionMode):  # type: ignore[misc]
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            output = function(*args, **(kwargs or {}))
            if function in functions:
                record(functions[function], args, kwargs or {}, output)
            return output

    return Recorder()
