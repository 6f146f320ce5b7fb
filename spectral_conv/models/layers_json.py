"""Layers documents (``layers.json``): the geometry that weights alone do not tell, read and written."""

from __future__ import annotations

import difflib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spectral_conv.models._entry import LayerEntry, short
from spectral_conv.models._layers_schema import DOCUMENT, LAYER, PADDING_WORDS
from spectral_conv.models._model import ConvLayer, Model, ModelError

_LARGEST_DOCUMENT = 64 * 2**20  # bytes


def layers_document(model: Model) -> dict[str, Any]:
    """Write down the geometry of every layer, in the form that ``read_model(layers=...)`` takes.

    Parameters
    ----------
    model : Model
        From `read_model`.

    Returns
    -------
    dict
        Plain data for `json.dumps`. `assumed` lists the fields of a layer that nobody stated: correct them,
        then read the model again with the document. Reading ignores `assumed`, as every unknown key.

    Raises
    ------
    Nothing
        Every model can be written down.

    Examples
    --------
    >>> from importlib.resources import files
    >>> from spectral_conv.models import layers_document, read_model
    >>> data = files("spectral_conv") / "data"
    >>> model = read_model(data / "digits.safetensors", input_size=(1, 8, 8))
    >>> layers_document(model)["layers"][0]["stride"]
    [1, 1]
    """
    return {"original_file": model.name, "layers": [_layer_document(layer) for layer in model.layers]}


def read_layers(source: str | os.PathLike[str] | Mapping[str, Any]) -> list[LayerEntry]:
    """Read and check a layers document: a path, or the parsed document itself.

    Raises
    ------
    ModelError
        The file cannot be read, is not JSON, or does not follow the schema; names the layer and the key.
    """
    if isinstance(source, Mapping):
        document, where = source, "`layers`"
    elif isinstance(source, str | os.PathLike):
        path = Path(source)
        document, where = _load(path), path.name
    else:
        raise ModelError(
            f"`layers` must be the path of a layers document, or the parsed document; got {type(source).__name__}."
        )
    _check_schema(document, where)
    entries = [_entry(layer, _name_of(where, document, i)) for i, layer in enumerate(document["layers"])]
    for name, times in Counter(entry.weight for entry in entries).items():
        if times > 1:
            raise ModelError(
                f"{where}: `weight` {name!r} occurs {times} times. Keep one entry; a weight that is used at "
                "several input sizes needs a document for each."
            )
    return entries


def _layer_document(layer: ConvLayer) -> dict[str, Any]:
    geometry = layer.operator.geometry
    document: dict[str, Any] = {
        "weight": layer.name,
        "op": "conv_transpose" if geometry.transposed else "conv",
        "ndim": geometry.ndim,
        "shape": list(layer.kernel_shape),
        "layout": layer.layout,
        "kernel": list(geometry.kernel_size),
        "stride": list(geometry.stride),
        "padding": [list(pair) for pair in geometry.padding],
        "dilation": list(geometry.dilation),
        "groups": geometry.groups,
        "padding_mode": geometry.padding_mode,
        "input_size": list(geometry.input_shape),
        "output_size": list(geometry.output_shape),
    }
    if geometry.transposed:
        document["output_padding"] = list(geometry.output_padding)
    if layer.assumed:
        document["assumed"] = list(layer.assumed)
    return document


def _load(path: Path) -> Any:
    try:
        if path.exists() and not path.is_file():
            raise ModelError(f"`layers` must be a JSON file; {path} is a folder or a device.")
        if path.stat().st_size > _LARGEST_DOCUMENT:
            raise ModelError(f"{path.name} is larger than {_LARGEST_DOCUMENT} bytes: not a layers document.")
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"There is no layers document {path}. Check the path.") from error
    except OSError as error:
        raise ModelError(f"The layers document {path} cannot be opened: {error}.") from error
    except ModelError:
        raise
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path.name} is not valid JSON: {error}. A layers document is JSON text.") from error


def _check_schema(document: Any, where: str) -> None:
    from jsonschema import Draft202012Validator

    errors = sorted(Draft202012Validator(DOCUMENT).iter_errors(document), key=lambda error: list(error.path))
    if not errors:
        return
    path, error = list(errors[0].absolute_path), errors[0]
    if len(path) < 2:
        raise ModelError(
            f'{where} must be an object {{"layers": [...]}} whose list has at least one layer; got {short(document)}.'
        )
    name = _name_of(where, document, path[1])
    layer = document["layers"][path[1]]
    if len(path) == 2 and error.validator == "required":
        missing = [key for key in LAYER["required"] if key not in layer]
        raise ModelError(
            f"{name}: {', '.join(f'`{key}`' for key in missing)} missing. A layer needs "
            f"{', '.join(LAYER['required'])}."
        )
    if len(path) == 2:
        raise ModelError(
            f"{name} must be an object with the keys {', '.join(LAYER['required'])}; got {short(layer)}."
        )
    key = path[2]
    got, properties = layer[key], LAYER["properties"][key]
    close = difflib.get_close_matches(str(got), properties.get("enum", PADDING_WORDS), n=1)
    hint = f" Did you mean {close[0]!r}?" if close and isinstance(got, str) else ""
    raise ModelError(f"{name}: `{key}` must be {properties['description']}; got {short(got)}.{hint}")


def _name_of(where: str, document: Mapping[str, Any], index: int) -> str:
    layer = document["layers"][index]
    weight = layer.get("weight") if isinstance(layer, Mapping) else None
    return f"{where}: layers[{index}]" + (f" ({short(weight)})" if isinstance(weight, str) else "")


def _entry(layer: Mapping[str, Any], where: str) -> LayerEntry:
    shape = layer.get("shape")
    padding = layer["padding"]
    return LayerEntry(
        weight=layer["weight"],
        where=where,
        layout=layer.get("layout"),
        transposed=layer.get("op", "conv") == "conv_transpose",
        stride=_numbers(layer["stride"]),
        padding=padding if isinstance(padding, str) else _numbers(padding),
        padding_mode=layer.get("padding_mode", "zeros"),
        dilation=_numbers(layer["dilation"]),
        groups=int(layer["groups"]),
        output_padding=_numbers(layer.get("output_padding", 0)),
        input_size=_numbers(layer["input_size"]),
        shape=None if shape is None else _numbers(shape),
        output_size=None if "output_size" not in layer else _numbers(layer["output_size"]),
    )


def _numbers(value: Any) -> Any:
    # The schema lets 2.0 pass for the integer 2, as JSON has but one kind of number.
    return tuple(_numbers(item) for item in value) if isinstance(value, Sequence) else int(value)
