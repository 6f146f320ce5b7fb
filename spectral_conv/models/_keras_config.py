"""The configuration of a Keras model as plain layers and calls, for every spelling since Keras 1.

Nothing in it is ever executed: a Lambda layer, say, is only a name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from spectral_conv.models._entry import LARGEST_INTEGER

Shape = tuple[int | None, ...] | None  # without the batch axis; None where even the number of axes is unknown

_DEEPEST = 16
_NETWORKS = ("Sequential", "Functional", "Model", "Graph")
_WRAPPERS = ("TimeDistributed",)


class ConfigError(ValueError):
    """The configuration is not one that Keras writes."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The value that a call reads: which layer wrote it, in which of its calls, as which of its outputs."""

    layer: str
    call: int = 0
    index: int = 0
    shape: Shape = None


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerConfig:
    """One layer.

    Attributes
    ----------
    name, kind : str
        Its name, and its class without the package.
    settings : mapping
        Its configuration as the file has it.
    calls : tuple of tuple of Reference
        What it reads, each time that it is applied.
    network : Network or None
        A nested model.
    inner : LayerConfig or None
        The layer that a wrapper applies.
    built : tuple or None
        Shape of its input as the file states it.
    """

    name: str
    kind: str
    settings: Mapping[str, Any]
    calls: tuple[tuple[Reference, ...], ...] = ()
    network: Network | None = None
    inner: LayerConfig | None = None
    built: Shape = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Network:
    """Layers, and which of their values come from outside and are the result."""

    layers: tuple[LayerConfig, ...]
    inputs: tuple[Reference, ...]
    outputs: tuple[Reference, ...]


def parse_config(text: str) -> Network | None:
    """Return the network that the text describes, None for a class that only its own program knows.

    Raises
    ------
    ConfigError
        It is no configuration that Keras writes.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"it is not JSON ({str(error)[:120]})") from error
    layer = _layer(document, 0)
    return layer.network


def first(settings: Mapping[str, Any], *keys: str) -> Any:
    """Return the first of the keys that is there: the newer spelling goes first."""
    return next((settings[key] for key in keys if settings.get(key) is not None), None)


def split_kind(kind: str) -> tuple[str, int]:
    """Return the class name without its number of axes, and that number; 0 where it has none.

    Examples
    --------
    >>> split_kind("MaxPooling2D"), split_kind("Conv1DTranspose"), split_kind("Dense")
    (('MaxPooling', 2), ('ConvTranspose', 1), ('Dense', 0))
    """
    match = re.fullmatch(r"(\w*?)([123])[Dd](\w*)", kind)
    return (match[1] + match[3], int(match[2])) if match else (kind, 0)


def shape_of(value: Any) -> Shape:
    """Return a stated shape without its batch axis."""
    if isinstance(value, Mapping):  # {"class_name": "__tuple__", "items": [...]}, {"class_name": "TensorShape", ...}
        value = value.get("items")
    if not isinstance(value, list) or not 1 <= len(value) <= 8:
        return None
    return tuple(size if type(size) is int and 1 <= size <= LARGEST_INTEGER else None for size in value[1:])


def _layer(document: Any, depth: int) -> LayerConfig:
    if depth > _DEEPEST:
        raise ConfigError(f"models are nested more than {_DEEPEST} deep")
    kind = document.get("class_name") if isinstance(document, Mapping) else None
    if not isinstance(kind, str):
        raise ConfigError("a layer has no `class_name`")
    kind = re.split(r"[>.]", kind)[-1]  # "package>Class" for registered classes
    config = document.get("config")
    settings: Mapping[str, Any] = config if isinstance(config, Mapping) else {}
    name = document.get("name", settings.get("name"))
    name = name if isinstance(name, str) else kind
    layers = config if isinstance(config, list) else settings.get("layers")
    network = inner = None
    if isinstance(layers, list) and (kind in _NETWORKS or "input_layers" in settings):
        build = _sequential if kind == "Sequential" else _functional
        network = build(settings, layers, depth)
    elif kind in _WRAPPERS and isinstance(settings.get("layer"), Mapping):
        inner = _layer(settings["layer"], depth + 1)
    calls = document.get("inbound_nodes", [])
    built = document.get("build_config")
    return LayerConfig(
        name=name,
        kind=kind,
        settings=settings,
        calls=tuple(tuple(references(call)) for call in calls) if isinstance(calls, list) else (),
        network=network,
        inner=inner,
        built=shape_of(built.get("input_shape")) if isinstance(built, Mapping) else None,
    )


def _functional(settings: Mapping[str, Any], documents: list[Any], depth: int) -> Network:
    layers = tuple(_layer(document, depth + 1) for document in documents)
    _check_names(layers)
    return Network(
        layers=layers,
        inputs=tuple(references(settings.get("input_layers"))),
        outputs=tuple(references(settings.get("output_layers"))),
    )


def _sequential(settings: Mapping[str, Any], documents: list[Any], depth: int) -> Network:
    """Write a sequence as a graph: every layer reads what the one before it wrote."""
    parsed = [_layer(document, depth + 1) for document in documents]
    _check_names(tuple(parsed))
    if not parsed:
        raise ConfigError("a Sequential model has no layers")
    if parsed[0].kind != "InputLayer":
        stated = {"batch_input_shape": first(settings, "build_input_shape") or _first_shape(parsed[0])}
        parsed.insert(0, LayerConfig(name="(input)", kind="InputLayer", settings=stated))
    layers = [_with_calls(parsed[0], ())]
    for layer in parsed[1:]:
        layers.append(_with_calls(layer, (Reference(layer=layers[-1].name),)))
    return Network(
        layers=tuple(layers),
        inputs=(Reference(layer=layers[0].name),),
        outputs=(Reference(layer=layers[-1].name),),
    )


def _first_shape(layer: LayerConfig) -> Any:
    for settings in (layer.settings, layer.inner.settings if layer.inner else {}):
        shape = first(settings, "batch_input_shape", "batch_shape")
        if shape is not None:
            return shape
        if isinstance(settings.get("input_shape"), list):
            return [None, *settings["input_shape"]]
    if layer.network is not None:
        reads = {reference.layer for reference in layer.network.inputs}
        source = next((inner for inner in layer.network.layers if inner.name in reads), None)
        return None if source is None else first(source.settings, "batch_input_shape", "batch_shape")
    return None if layer.built is None else [None, *layer.built]


def _with_calls(layer: LayerConfig, call: tuple[Reference, ...]) -> LayerConfig:
    return LayerConfig(
        name=layer.name,
        kind=layer.kind,
        settings=layer.settings,
        calls=(call,),
        network=layer.network,
        inner=layer.inner,
        built=layer.built,
    )


def _check_names(layers: tuple[LayerConfig, ...]) -> None:
    names = [layer.name for layer in layers]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError(f"two layers are called {twice[:80]!r}")


def references(node: Any, depth: int = 0) -> Iterator[Reference]:
    """Find the values that a call reads, in order.

    Keras 1 and 2 write ``["conv", 0, 0, {...}]``, keywords included; Keras 3 writes objects with `keras_history`
    and the shape of the value.
    """
    if depth > _DEEPEST:
        return
    if isinstance(node, list):
        if _is_history(node):
            yield Reference(layer=node[0], call=node[1], index=node[2])
            node = node[3:]
        for item in node:
            if isinstance(item, list | Mapping):
                yield from references(item, depth + 1)
    elif isinstance(node, Mapping):
        if _is_history(node.get("keras_history")):
            layer, call, index = node["keras_history"][:3]
            yield Reference(layer=layer, call=call, index=index, shape=shape_of(node.get("shape")))
        else:
            for item in node.values():
                yield from references(item, depth + 1)


def _is_history(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) >= 3
        and isinstance(value[0], str)
        and all(type(number) is int and 0 <= number < 10**6 for number in value[1:3])
    )
