"""Which tensors of a Keras file belong to which layer, and which of them are its kernels."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from spectral_conv.models._keras_config import Network
from spectral_conv.models._keras_hdf5 import Listing

Way = tuple[str, ...]  # names of the layers from the outermost model inwards
_CONTAINERS = ("layers", "_layer_checkpoint_dependencies")
_ROLES = {
    "conv": (r"kernel|W|depthwise_kernel",),
    "transposed": (r"kernel|W",),
    "depthwise": (r"depthwise_kernel|kernel|W",),
    "separable": (r"depthwise_kernel", r"pointwise_kernel"),
}


def in_order(listing: Listing) -> list[str]:
    """Return the names of the tensors in the order of the network, as far as the file tells it."""
    groups: dict[str, int] = {}
    for name in listing.names.get("", []):
        groups.setdefault(name, len(groups))
    ranks: dict[str, int] = {}
    for group, names in listing.names.items():
        if group:
            for name in names:
                ranks.setdefault(f"{group}/{name}", len(ranks))
    last = len(ranks)

    def key(name: str) -> tuple[int, int, tuple[tuple[bool, int, str], ...]]:
        group = next((prefix for prefix in _prefixes(name) if prefix in groups), None)
        return (len(groups) if group is None else groups[group]), ranks.get(name, last), natural(name)

    return sorted((dataset.name for dataset in listing.datasets), key=key)


def natural(name: str) -> tuple[tuple[bool, int, str], ...]:
    """Return a key that puts layer 2 before layer 10."""
    parts = re.split(r"(\d+)", name[:2000])
    return tuple((p.isdecimal(), int(p[:18]) if p.isdecimal() else 0, p) for p in parts)


def weights_by_layer(network: Network, names: Iterable[str], listing: Listing) -> dict[Way, tuple[str, ...]]:
    """Return the tensors of every layer, in the order of the layer's own list."""
    ordered = list(names)
    if any(_is_numbered(name) for name in ordered):
        return dict(_by_class(network, "", (), _numbered(ordered), listing))
    return dict(_by_name(network, ordered))


def kernels(family: str, names: Iterable[str], ranks: Mapping[str, int], ndim: int) -> list[str]:
    """Return the kernels of a layer; two of a separable one: depthwise, then pointwise."""
    large = [name for name in names if ndim + 2 <= ranks[name] <= 4 or ranks[name] == ndim + 2]
    found = []
    for i, role in enumerate(_ROLES[family]):
        pattern = re.compile(rf"(^|[/_])({role})(:0)?$")
        by_role = [name for name in large if pattern.search(name)]
        # Keras 3 only numbers the tensors of a layer: their order is that of their roles.
        chosen = by_role[:1] or [name for name in large if _is_numbered(name)][i : i + 1]
        found += chosen
    return found if len(found) == len(_ROLES[family]) else []


def without_output_number(name: str) -> str:
    """Return the last part of a name, without TensorFlow's output number."""
    return name.rpartition("/")[2].removesuffix(":0")


def _is_numbered(name: str) -> bool:
    return re.search(r"(^|[/\\])vars[/\\]\d+$", name) is not None


def _prefixes(name: str) -> Iterator[str]:
    parts = name.split("/")
    for count in range(1, len(parts)):
        yield "/".join(parts[:count])


def _by_name(network: Network, names: list[str]) -> Iterator[tuple[Way, tuple[str, ...]]]:
    """The older form: one group per layer of the outermost model, called like the layer."""
    outermost = {layer.name for layer in network.layers}
    groups: dict[str, list[str]] = {}
    for name in names:
        group = next((prefix for prefix in _prefixes(name) if prefix in outermost), None)
        if group is not None:
            groups.setdefault(group, []).append(name)
    known = set(_all_names(network))
    for layer in network.layers:
        own = groups.get(layer.name, [])
        yield (layer.name,), tuple(own)
        inner = layer.inner.network if layer.inner is not None else layer.network
        if inner is not None:
            by_part: dict[str, list[str]] = {}
            for name in own:
                for part in set(name.removeprefix(f"{layer.name}/").split("/")):
                    by_part.setdefault(part, []).append(name)
                    # Keras 2.0 appends a number, as in conv2d_1_1, to names that are already taken.
                    shorter = re.sub(r"_\d+$", "", part)
                    if part not in known and shorter != part:
                        by_part.setdefault(shorter, []).append(name)
            yield from _inner(inner, (layer.name,), by_part)


def _inner(network: Network, way: Way, by_part: Mapping[str, list[str]]) -> Iterator[tuple[Way, tuple[str, ...]]]:
    for layer in network.layers:
        yield (*way, layer.name), tuple(by_part.get(layer.name, ()))
        inner = layer.inner.network if layer.inner is not None else layer.network
        if inner is not None:
            yield from _inner(inner, (*way, layer.name), by_part)


def _all_names(network: Network) -> Iterator[str]:
    for layer in network.layers:
        yield layer.name
        inner = layer.inner.network if layer.inner is not None else layer.network
        if inner is not None:
            yield from _all_names(inner)


def _numbered(names: list[str]) -> dict[str, list[str]]:
    """Return the numbered tensors by the group of their layer."""
    groups: dict[str, list[str]] = {}
    for name in sorted(filter(_is_numbered, names), key=natural):
        group = re.sub(r"/?vars/\d+$", "", name.replace("\\", "/"))
        groups.setdefault(group, []).append(name)
    return groups


def _by_class(
    network: Network, group: str, way: Way, groups: Mapping[str, list[str]], listing: Listing
) -> Iterator[tuple[Way, tuple[str, ...]]]:
    """Keras 3: groups called like the class of the layer, numbered in the order of the model."""
    labels = {name.replace("\\", "/").removesuffix("/vars"): label for name, label in listing.labels.items()}
    counts: dict[str, int] = {}
    for layer in network.layers:
        word = snake_case(layer.kind)
        count = counts.get(word, 0)
        counts[word] = count + 1
        below = [f"{group}{container}/" for container in _CONTAINERS]
        paths = [f"{prefix}{word}_{count}" if count else f"{prefix}{word}" for prefix in below]
        labelled = [name for prefix in below for name in _labelled(labels, prefix, layer.name)]
        path = next(iter(labelled), None) or next((p for p in paths if _has(groups, p)), paths[0])
        inside = f"{path}/layer" if layer.inner is not None else path
        yield (*way, layer.name), tuple(groups.get(inside, ()))
        inner = layer.inner.network if layer.inner is not None else layer.network
        if inner is not None:
            yield from _by_class(inner, f"{inside}/", (*way, layer.name), groups, listing)


def _labelled(labels: Mapping[str, str], prefix: str, name: str) -> list[str]:
    return [
        group
        for group, label in labels.items()
        if label == name and group.startswith(prefix) and "/" not in group[len(prefix) :]
    ]


def _has(groups: Mapping[str, list[str]], path: str) -> bool:
    return path in groups or any(group.startswith(f"{path}/") for group in groups)


def snake_case(kind: str) -> str:
    """Return the class name as Keras 3 spells it in its files.

    Examples
    --------
    >>> snake_case("SeparableConv2D"), snake_case("Conv2DTranspose")
    ('separable_conv2d', 'conv2d_transpose')
    """
    words = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", kind))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", words).lower()


def layer_class(group: str) -> str:
    """Return the class of the layer, in snake case, that a group of Keras 3 belongs to."""
    return re.sub(r"_\d+$", "", group.replace("\\", "/").rpartition("/")[2])
