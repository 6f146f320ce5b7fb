"""The JSON schema of a layers document; each description completes "`key` must be ..."."""

from __future__ import annotations

from typing import Any

from spectral_conv.models._entry import LARGEST_INTEGER
from spectral_conv.models._layouts import CHANNELS_LAST, DEPTHWISE, PLAIN, TRANSPOSED

REQUIRED = ("weight", "stride", "padding", "dilation", "groups", "input_size")
PADDING_MODES = ("zeros", "circular", "reflect", "replicate")
PADDING_WORDS = ("same", "valid")
OPS = ("conv", "conv_transpose")
LAYOUTS = (*PLAIN, *CHANNELS_LAST, *DEPTHWISE, *TRANSPOSED)


def _integer(minimum: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": minimum, "maximum": LARGEST_INTEGER}


def _list(items: dict[str, Any], least: int = 1, most: int = 3) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": least, "maxItems": most}


def _per_axis(minimum: int) -> dict[str, Any]:
    return {
        "anyOf": [_integer(minimum), _list(_integer(minimum))],
        "description": f"an int from {minimum} to {LARGEST_INTEGER}, or a list of them, one per axis",
    }


def _word(words: tuple[str, ...]) -> dict[str, Any]:
    return {"enum": list(words), "description": "one of " + ", ".join(map(repr, words))}


LAYER: dict[str, Any] = {
    "type": "object",
    "required": list(REQUIRED),
    "properties": {
        "weight": {"type": "string", "minLength": 1, "description": "the name of the weight tensor"},
        "op": _word(OPS),
        "layout": _word(LAYOUTS),
        "stride": _per_axis(1),
        "padding": {
            "anyOf": [
                {"enum": list(PADDING_WORDS)},
                _integer(0),
                _list({"anyOf": [_integer(0), _list(_integer(0), 2, 2)]}),
            ],
            "description": "'same', 'valid', an int of at least 0, or a list with an int or a [before, "
            "after] pair per axis",
        },
        "padding_mode": _word(PADDING_MODES),
        "dilation": _per_axis(1),
        "groups": {**_integer(1), "description": f"an int from 1 to {LARGEST_INTEGER}"},
        "output_padding": _per_axis(0),
        "input_size": _per_axis(1),
        "output_size": _per_axis(1),
        "shape": {**_list(_integer(0), 1, 8), "description": "the shape of the weight tensor as stored"},
    },
}
DOCUMENT: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "required": ["layers"],
    "properties": {"layers": {"type": "array", "minItems": 1, "items": LAYER}},
}
