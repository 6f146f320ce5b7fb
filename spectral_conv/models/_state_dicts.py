"""State dicts inside checkpoints: dictionaries and lists around them are unwrapped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from spectral_conv.models._model import ModelError, Skipped

_DEEPEST = 32


def flatten(checkpoint: Any, is_tensor: Callable[[Any], bool]) -> tuple[dict[str, Any], list[Skipped]]:
    """Return the tensors of a checkpoint by name, and what was left alone.

    The one state dict that holds weights gives its own names (``state_dict`` or ``model`` around it, or a
    list of one, adds nothing). Where several do, the way to each precedes its names:
    ``ema.conv.weight``, or ``0.conv.weight`` in a list.

    Raises
    ------
    ModelError
        The checkpoint is nested too deeply, or two tensors would have one name.
    """
    unread: list[Skipped] = []
    if is_tensor(checkpoint):
        return {"tensor": checkpoint}, unread
    groups = list(_state_dicts(checkpoint, (), is_tensor, unread, {}))
    weighty = [way for way, group in groups if any(value.ndim >= 2 for value in group.values())]
    total = sum(len(group) for _, group in groups)
    for bare in (weighty[0] if len(weighty) == 1 else None, None):
        found = {_full(way, name, bare): value for way, group in groups for name, value in group.items()}
        if len(found) == total:
            return found, unread
    raise ModelError(
        "Two tensors of the checkpoint would have the same name (dots in one key, nesting in another). Save "
        "the state dicts to separate files."
    )


def _full(way: tuple[str, ...], name: str, bare: tuple[str, ...] | None) -> str:
    return name if way == bare else ".".join((*way, name))


def _state_dicts(
    value: Any,
    way: tuple[str, ...],
    is_tensor: Callable[[Any], bool],
    unread: list[Skipped],
    seen: dict[int, str],
) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    if len(way) > _DEEPEST:
        raise ModelError(f"The checkpoint is nested more than {_DEEPEST} levels deep. Save a plain state dict.")
    if isinstance(value, Mapping):
        items = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, list | tuple):
        items = [(str(index), item) for index, item in enumerate(value)]
    else:
        return
    own = {key: item for key, item in items if is_tensor(item)}
    # A pickle may hold a container several times, even within itself; opening each once keeps that finite.
    name = ".".join(way) or "the checkpoint"
    if id(value) in seen:
        if own:
            unread.append(Skipped(name=name, reason=f"the same state dict as {seen[id(value)]}"))
        return
    seen[id(value)] = name
    if isinstance(value, Mapping) and {"state", "param_groups"} <= value.keys():
        unread.append(Skipped(name=name, reason="optimizer state, not weights"))
        return
    if own:
        yield way, own
    for key, item in items:
        if key not in own:
            yield from _state_dicts(item, (*way, key), is_tensor, unread, seen)
