"""The reference cases, and random geometries for property tests."""

from __future__ import annotations

import functools
import json
from typing import Any

import numpy as np
from hypothesis import strategies as st
from naive import dense_convolution, dense_transposed
from numpy.typing import NDArray
from shared_material import REFERENCE

from spectral_conv import ConvOperator

_FIRST = {1: "OIW", 2: "OIHW", 3: "OIDHW"}
_TRANSPOSED = {1: "IOW", 2: "IOHW", 3: "IODHW"}


@functools.cache
def reference_cases() -> tuple[dict[str, Any], ...]:
    """The stated geometry and extremes of every reference case; none where the folder is missing."""
    path = REFERENCE / "public.json"
    return tuple(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else ()


@functools.cache
def reference_array(name: str) -> NDArray[np.floating]:
    with np.load(REFERENCE / "public.npz") as arrays:
        return arrays[name]


def reference_operator(case: dict[str, Any], dtype: Any = None) -> ConvOperator:
    ndim = len(case["input_shape"])
    return ConvOperator(
        reference_array(f"{case['name']}/kernel"),
        case["input_shape"],
        layout=(_TRANSPOSED if case["transposed"] else _FIRST)[ndim],
        stride=case["stride"],
        padding=[tuple(pair) for pair in case["padding"]],
        padding_mode=case["padding_mode"],
        dilation=case["dilation"],
        groups=case["groups"],
        transposed=case["transposed"],
        output_padding=case["output_padding"],
        dtype=dtype,
    )


def naive_matrix(conv: ConvOperator) -> NDArray[np.floating]:
    """M of any operator by the loop reference."""
    g = conv.geometry
    before = [pair[0] for pair in g.padding]
    common = (conv.input_shape, conv.output_shape, g.stride, before, g.dilation, g.groups)
    if g.transposed:
        return dense_transposed(conv.kernel, *common)
    return dense_convolution(conv.kernel, *common, g.padding_mode)


@st.composite
def operators(draw: st.DrawFn, *, plain_zeros: bool = False, most_pixels: int = 7) -> ConvOperator:
    """Small operators over all geometries that the package knows."""
    ndim = draw(st.sampled_from([1, 1, 2, 2, 2, 3]))
    largest_kernel, pixels = (4, most_pixels) if ndim < 3 else (2, 4)

    def per_axis(low: int, high: int) -> list[int]:
        return [draw(st.integers(low, high)) for _ in range(ndim)]

    kernel, stride, dilation = per_axis(1, largest_kernel), per_axis(1, 3), per_axis(1, 3)
    inputs = per_axis(1, pixels)
    mode = "zeros" if plain_zeros else draw(st.sampled_from(["zeros", "zeros", "circular", "reflect", "replicate"]))
    transposed = not plain_zeros and mode == "zeros" and draw(st.booleans())
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    inner, outer = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    widest = {"zeros": [9] * ndim, "replicate": [9] * ndim, "circular": inputs, "reflect": [n - 1 for n in inputs]}
    padding = []
    for i in range(ndim):
        reach = dilation[i] * (kernel[i] - 1)
        low = 0 if transposed else max(0, reach + 1 - inputs[i])
        high = min(widest[mode][i], reach + 1)
        before = draw(st.integers(0, max(0, high)))
        after = draw(st.integers(0, max(0, high)))
        if transposed:
            # Leave at least one output pixel.
            room = (inputs[i] - 1) * stride[i] + reach
            before, after = min(before, room), max(0, min(after, room - before))
        elif before + after < low:
            inputs[i] = reach + 1
        padding.append((before, after))
    output_padding = [draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True)]
    channels = (inner * groups, outer) if transposed else (inner, outer * groups)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return ConvOperator(
        rng.standard_normal((*kernel, *channels)),
        inputs,
        layout={1: "WIO", 2: "HWIO", 3: "DHWIO"}[ndim],
        stride=stride,
        padding=padding,
        padding_mode=mode,
        dilation=dilation,
        groups=groups,
        transposed=transposed,
        output_padding=output_padding if transposed else 0,
    )
