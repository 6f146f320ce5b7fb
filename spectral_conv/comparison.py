"""Two models of one network: which layers moved, and how."""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from spectral_conv.geometry import ConvGeometry
from spectral_conv.inspection import Settings, analyze_layer
from spectral_conv.inspection._analysis import FAILURES
from spectral_conv.inspection._inspection import SCHEMA
from spectral_conv.models import ConvLayer, Model, ModelError
from spectral_conv.models._lookup import bare_name
from spectral_conv.models._open import open_model
from spectral_conv.progress import work_bar
from spectral_conv.report.change import QUANTILES, LayerChange
from spectral_conv.report.document import layer_document
from spectral_conv.report.record import LayerReport, is_reached
from spectral_conv.report.text import printable
from spectral_conv.results import Enclosure
from spectral_conv.symbols import circulant_singular_values

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

_ENDS = ("sigma_max", "sigma_min", "condition")
# What a document says of a layer's geometry once, and of its values for either model.
_VALUES = ("sigma_max", "sigma_min", "circulant")


@dataclass(frozen=True, kw_only=True)
class Unmatched:
    """A layer that could not be compared.

    Attributes
    ----------
    name : str
        Full name of its weight.
    model : str
        "a" or "b": the model that has it; "both" where the two layers do not fit each other.
    reason : str
        Why it was not compared.
    spoiled : bool
        Whether it is a convolution that cannot be analysed in one of the models.
    """

    name: str
    model: str
    reason: str
    spoiled: bool = False


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The convolutions that two models have in common.

    Attributes
    ----------
    models : (str, str)
        Names of the models.
    changes : tuple of LayerChange
        One per common layer; those whose largest singular value moved most come first, those without one last.
    unmatched : tuple of Unmatched
        The layers that could not be compared, with the reason.
    settings : Settings
        What was asked for.

    Examples
    --------
    >>> from importlib.resources import files
    >>> data = files("spectral_conv") / "data"
    >>> same = compare_models(*[data / "digits.safetensors"] * 2, layers=data / "digits.layers.json")
    >>> {change.weight_change for change in same.changes}
    {0.0}
    """

    models: tuple[str, str]
    changes: tuple[LayerChange, ...]
    unmatched: tuple[Unmatched, ...] = ()
    settings: Settings = field(default_factory=Settings)

    @property
    def complete(self) -> bool:
        """Whether every common layer has all values that were asked for, and no convolution was unusable."""
        return all(change.complete for change in self.changes) and not any(item.spoiled for item in self.unmatched)

    @functools.cached_property
    def dataset(self) -> xr.Dataset:
        """The numbers over the dimension `layer`, with `_a` and `_b` for the models; NaN where there is none."""
        import xarray as xr

        columns: dict[str, list[Any]] = {"weight_change": [change.weight_change for change in self.changes]}
        for end in _ENDS:
            for which, model in (("before", "a"), ("after", "b")):
                columns[f"{end}_{model}"] = [_number(_enclosure(change, end, which)) for change in self.changes]
            ratios = [change.ratios[end] for change in self.changes]
            columns[f"{end}_ratio"] = [math.nan if ratio is None else ratio for ratio in ratios]
        for i, share in enumerate(QUANTILES):
            for which, model in (("before", "a"), ("after", "b")):
                values = [getattr(change, f"quantiles_{which}") for change in self.changes]
                columns[f"circulant_quantile_{100 * share:.0f}_{model}"] = [
                    math.nan if value is None else value[i] for value in values
                ]
        variables = {name: ("layer", np.array(values), {"units": "1"}) for name, values in columns.items()}
        names = np.array([change.name for change in self.changes], dtype=object)
        attributes = {"model_a": self.models[0], "model_b": self.models[1], "schema": SCHEMA}
        return xr.Dataset(variables, coords={"layer": ("layer", names)}, attrs=attributes)

    def to_dataframe(self) -> pd.DataFrame:
        """One row per common layer, the columns of `dataset`."""
        return self.dataset.to_dataframe()

    def document(self) -> dict[str, Any]:
        """Plain data for JSON, as ``spectral-conv compare --json`` prints it; no NaN, no Infinity."""
        return {
            "a": self.models[0],
            "b": self.models[1],
            "schema": SCHEMA,
            "version": importlib.metadata.version("spectral-conv"),
            "settings": {"rtol": self.settings.rtol, "smallest": self.settings.smallest},
            "layers": [_document(change) for change in self.changes],
            "unmatched": [{"name": item.name, "model": item.model, "reason": item.reason} for item in self.unmatched],
        }


def compare_models(
    a: Model | str | os.PathLike[str],
    b: Model | str | os.PathLike[str],
    *,
    input_size: Sequence[int] | None = None,
    layers: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    memory_limit: float | None = None,
    rtol: float = 1e-8,
    smallest: bool = True,
    progress: bool = False,
) -> Comparison:
    """Compare the convolutions of two models, layer by layer, in float64.

    Layers are matched by name, with or without the prefixes that wrappers add (``module.``, ``model.``, ...).

    Parameters
    ----------
    a, b : Model or path
        The models; paths are read with `spectral_conv.models.read_model`.
    input_size, layers
        As in `read_model`, for both; only with paths.
    memory_limit, rtol, smallest
        As in `spectral_conv.inspect_model`.
    progress : bool
        Show a bar on standard error where that is a terminal.

    Returns
    -------
    Comparison
        For every common layer the exact extreme singular values in both, and quantiles of the circulant spectrum
        (an estimate); the layers that only one model has, or that do not fit each other, with the reason.

    Raises
    ------
    ModelError
        A model cannot be read, or the models have no layer in common.

    Examples
    --------
    >>> from importlib.resources import files
    >>> data = files("spectral_conv") / "data"
    >>> comparison = compare_models(*[data / "digits.safetensors"] * 2, layers=data / "digits.layers.json")
    >>> len(comparison.changes), comparison.unmatched
    (6, ())
    """
    first, second = (open_model(model, input_size=input_size, layers=layers) for model in (a, b))
    pairs, unmatched = _matched(first, second)
    if not pairs:
        reasons = "; ".join(f"{item.name}: {item.reason}" for item in unmatched[:4])
        raise ModelError(
            f"{first.name} and {second.name} have no convolution in common that could be compared. {reasons}. "
            "Compare two files of one network; `spectral-conv describe` shows the layers of each."
        )
    settings = Settings(rtol=rtol, smallest=smallest, memory_limit=memory_limit)
    changes = []
    with work_bar(len(pairs), printable(f"{first.name} and {second.name}"), wanted=progress) as step:
        for before, after in pairs:
            changes.append(_change(before, after, settings))
            step()
    # NaN sorts nowhere: unknown movements go last; equal ones by what the weights did.
    changes.sort(key=lambda c: (math.isnan(c.movement), -c.movement if c.movement >= 0 else 0.0, -c.weight_change))
    return Comparison(
        models=(first.name, second.name), changes=tuple(changes), unmatched=tuple(unmatched), settings=settings
    )


def _matched(first: Model, second: Model) -> tuple[list[tuple[ConvLayer, ConvLayer]], list[Unmatched]]:
    """Pairs of layers that mean the same, in the order of the first model, and the rest with the reason."""
    partners = _partners(first, second)
    pairs: list[tuple[ConvLayer, ConvLayer]] = []
    unmatched: list[Unmatched] = []
    for layer in first.layers:
        other = partners.get(layer.name)
        if other is None:
            unmatched.append(_alone(layer, "a", first, second))
            continue
        differences = _differences(layer.operator.geometry, other.operator.geometry)
        if differences:
            reason = f"{', '.join(differences)} (A, B)"
            unmatched.append(Unmatched(name=layer.name, model="both", reason=reason))
        else:
            pairs.append((layer, other))
    taken = {other.name for other in partners.values()}
    unmatched += [_alone(layer, "b", second, first) for layer in second.layers if layer.name not in taken]
    # Of a convolution that neither model has in a usable form one line is enough.
    named = {bare_name(item.name) for item in unmatched}
    for model, letter in ((first, "a"), (second, "b")):
        for entry in model.skipped:
            if entry.spoiled and bare_name(entry.name) not in named:
                named.add(bare_name(entry.name))
                reason = f"in {letter.upper()} {entry.reason}"
                unmatched.append(Unmatched(name=entry.name, model=letter, reason=reason, spoiled=True))
    return pairs, unmatched


def _partners(first: Model, second: Model) -> dict[str, ConvLayer]:
    """Layers of the second model by the full name in the first; a name that fits several layers has none."""
    exact = {layer.name: layer for layer in second.layers}
    found = {layer.name: exact[layer.name] for layer in first.layers if layer.name in exact}
    rest = [layer for layer in first.layers if layer.name not in found]
    others = [layer for layer in second.layers if layer.name not in found]
    for layer in rest:
        bare = bare_name(layer.name)
        alike = [other for other in others if bare_name(other.name) == bare]
        if len(alike) == 1 and sum(bare_name(other.name) == bare for other in rest) == 1:
            found[layer.name] = alike[0]
    return found


def _alone(layer: ConvLayer, letter: str, own: Model, other: Model) -> Unmatched:
    bare, there = bare_name(layer.name), {"a": "B", "b": "A"}[letter]
    alike = [entry.name for entry in other.layers if bare_name(entry.name) == bare]
    skipped = next((entry for entry in other.skipped if bare_name(entry.name) == bare), None)
    if alike:
        reason = (
            f"its name without wrappers' prefixes fits several layers of one model ({', '.join(alike)} of {there})"
        )
    elif skipped is not None:
        reason = f"in {there} {'' if skipped.spoiled else 'no convolution: '}{skipped.reason}"
    else:
        reason = f"only in {letter.upper()}"
    return Unmatched(
        name=layer.name, model=letter, reason=reason, spoiled=not alike and skipped is not None and skipped.spoiled
    )


def _differences(first: ConvGeometry, second: ConvGeometry) -> list[str]:
    found = []
    for item in dataclasses.fields(ConvGeometry):
        one, two = getattr(first, item.name), getattr(second, item.name)
        if one != two:
            word = {"input_shape": "input size", "in_channels": "input channels", "out_channels": "output channels"}
            found.append(f"{word.get(item.name, item.name.replace('_', ' '))} {_words(one)} and {_words(two)}")
    return found


def _words(value: Any) -> str:
    if not isinstance(value, tuple):
        return str(value)
    return "x".join("+".join(map(str, entry)) if isinstance(entry, tuple) else str(entry) for entry in value)


def _change(before: ConvLayer, after: ConvLayer, settings: Settings) -> LayerChange:
    first = analyze_layer(before, settings)
    kernels = (before.operator.kernel, after.operator.kernel)
    same = np.array_equal(*kernels)
    if same:  # the geometry is the same already, so is all the rest
        second = dataclasses.replace(first, name=after.name, assumed=after.assumed, seconds=0.0)
    else:
        second = analyze_layer(after, settings)
    quantiles = _quantiles(before, first)
    return LayerChange(
        before=first,
        after=second,
        weight_change=0.0 if same else _distance(*kernels),
        quantiles_before=quantiles,
        quantiles_after=quantiles if same else _quantiles(after, second),
    )


def _distance(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> float:
    scale = max(float(np.abs(first).max()), float(np.abs(second).max()))  # keeps the squares in range
    size = float(np.linalg.norm((first / scale).ravel()))
    return float(np.linalg.norm((second / scale - first / scale).ravel())) / size if size > 0.0 else math.inf


def _quantiles(layer: ConvLayer, report: LayerReport) -> tuple[float, ...] | None:
    if report.circulant is None:
        return None
    try:
        values = circulant_singular_values(layer.operator)
    except FAILURES:  # it was possible a moment ago; the record says what the layer has
        return None
    return tuple(float(value) for value in np.quantile(values, QUANTILES))


def _enclosure(change: LayerChange, end: str, which: str) -> Enclosure | None:
    if end == "condition":
        return change.condition_before if which == "before" else change.condition_after
    found: Enclosure | None = getattr(getattr(change, which), end)
    return found


def _number(enclosure: Enclosure | None) -> float:
    return enclosure.value if enclosure is not None and is_reached(enclosure) else math.nan


def _document(change: LayerChange) -> dict[str, Any]:
    before, after = layer_document(change.before), layer_document(change.after)
    document = {key: value for key, value in before.items() if not key.startswith(_VALUES)}
    for key in ("bounds", "seconds"):
        del document[key]
    document["name_b"] = after["name"]
    document["weight_change"] = _finite(change.weight_change)
    for letter, which, report in (("a", "before", before), ("b", "after", after)):
        part = {key: value for key, value in report.items() if key.startswith(_VALUES)}
        enclosure = _enclosure(change, "condition", which)
        part["condition"] = (
            None
            if enclosure is None
            else {
                "value": _finite(enclosure.value),
                "lower": _finite(enclosure.lower),
                "upper": _finite(enclosure.upper),
            }
        )
        quantiles = getattr(change, f"quantiles_{which}")
        part["circulant_quantiles"] = (
            None
            if quantiles is None
            else {f"{100 * share:.0f} %": value for share, value in zip(QUANTILES, quantiles, strict=True)}
        )
        document[letter] = part
    document["ratio"] = {end: _finite(ratio) for end, ratio in change.ratios.items()}
    return document


def _finite(number: float | None) -> float | None:
    return float(number) if number is not None and math.isfinite(number) else None
