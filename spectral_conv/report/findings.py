"""What to know first about a model, in sentences: computed from the numbers, each with the layers it is about."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from spectral_conv.certification import network_lipschitz
from spectral_conv.report.record import LayerReport, is_reached
from spectral_conv.report.summary import summarize
from spectral_conv.report.text import exact_text, off_by
from spectral_conv.results import Enclosure, NotApplicableError

EXPLODES = 10.0  # a norm above it
VANISHES = 1e-3  # a smallest singular value below it
MISLEADS = 1.1  # the FFT is off by this factor or more


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing to know.

    Attributes
    ----------
    topic : str
        A few words.
    sentences : tuple of str
        What there is to say; names of layers are as in the file.
    tone : str
        "grave" if it calls for attention, "fine" if all is well, "open" for information.
    layers : tuple of int
        Places of the layers that it is about, from 0.
    """

    topic: str
    sentences: tuple[str, ...]
    tone: str = "open"
    layers: tuple[int, ...] = ()


def findings(reports: Sequence[LayerReport], lipschitz: Finding | None = None) -> list[Finding]:
    """What to know first: norms, smallest values, the FFT, the network.

    Parameters
    ----------
    reports : sequence of LayerReport
        Analysed layers.
    lipschitz : Finding, optional
        What is known of the network as a whole.

    Returns
    -------
    list of Finding
        In this order; what could not be analysed comes first.

    Examples
    --------
    >>> from spectral_conv import ConvOperator, inspect_model
    >>> findings(inspect_model([ConvOperator([[[[20.0]]]], (4, 4))]).reports)[0].sentences[0]
    '1 of 1 layers can stretch a signal more than 10 times. The largest norm is 20.00, in layer0.'
    """
    found = [_unfinished(reports), _norms(reports), _smallest(reports), _fourier(reports), lipschitz]
    return [finding for finding in found if finding is not None]


def network_finding(model: Any) -> Finding:
    """What is known of the network as a whole.

    Parameters
    ----------
    model : Model
        With a graph, or without: then the sentence says that nothing is known, and the remedy.

    Returns
    -------
    Finding
        The bound of the Lipschitz constant, whether it is proved, or why there is none.

    Examples
    --------
    >>> from spectral_conv.models import Model
    >>> from pathlib import Path
    >>> network_finding(Model(path=Path("a"), format="none", layers=(), skipped=())).sentences[0][:21]
    'No bound is known: Th'
    """
    topic = "The network as a whole"
    try:
        found = network_lipschitz(model)
    except (NotApplicableError, ValueError, RuntimeError, ArithmeticError, MemoryError) as error:
        return Finding(topic=topic, sentences=(f"No bound is known: {error}",))
    if found.kind == "upper":
        says = f"Its Lipschitz constant is at most {found.value:.4g}: no change of an input is stretched more. "
    else:
        says = f"Its Lipschitz constant is about {found.value:.4g} or less, an estimate, for a link is not proved. "
    text = f"{says}The bound has {len(found.links)} links; the true constant is usually far below."
    return Finding(topic=topic, sentences=(text,))


def explodes(report: LayerReport) -> bool:
    """Whether the layer can stretch a signal more than ten times, for sure."""
    return report.sigma_max is not None and report.sigma_max.lower > EXPLODES


def vanishes(report: LayerReport) -> bool:
    """Whether some signal (or gradient) has less than a thousandth left behind the layer, for sure."""
    return report.sigma_min is not None and report.sigma_min.upper < VANISHES


def misleads(report: LayerReport) -> bool:
    """Whether the FFT's largest or smallest value is off by 10 % or more."""
    ends = (report.sigma_max, report.sigma_min)
    pairs = zip(report.circulant or (), ends, strict=False)
    return any(end is not None and off_by(estimate, end)[1] >= MISLEADS for estimate, end in pairs)


def _places(reports: Sequence[LayerReport], holds: Callable[[LayerReport], bool]) -> tuple[int, ...]:
    return tuple(i for i, report in enumerate(reports) if holds(report))


def _tone(places: Sequence[int]) -> str:
    return "grave" if places else "fine"


def _unfinished(reports: Sequence[LayerReport]) -> Finding | None:
    places = _places(reports, lambda report: not report.complete)
    if not places:
        return None
    text = f"{len(places)} of {len(reports)} layers could not be analysed to the end; the reasons are beside them."
    return Finding(topic="Not complete", sentences=(text,), tone="grave", layers=places)


def _reached(reports: Sequence[LayerReport], end: str) -> list[tuple[str, Enclosure]]:
    return [(report.name, getattr(report, end)) for report in reports if is_reached(getattr(report, end))]


def _norms(reports: Sequence[LayerReport]) -> Finding | None:
    known = _reached(reports, "sigma_max")
    if not known:
        return None
    name, largest = max(known, key=lambda pair: pair[1].value)
    places = _places(reports, explodes)
    count = f"{len(places)} of {len(reports)} layers can" if places else "No layer can"
    value = exact_text(largest, 4)
    text = f"{count} stretch a signal more than {EXPLODES:g} times. The largest norm is {value}, in {name}."
    return Finding(topic="Norms that explode a signal", sentences=(text,), tone=_tone(places), layers=places)


def _smallest(reports: Sequence[LayerReport]) -> Finding | None:
    known = _reached(reports, "sigma_min")
    if not known:
        return None
    name, least = min(known, key=lambda pair: pair[1].value)
    places = _places(reports, vanishes)
    count = f"{len(places)} of {len(reports)} layers leave" if places else "No layer leaves"
    value = exact_text(least, 4).replace("<", "below")
    text = (
        f"{count} less than a thousandth of some signal on its way forward (or of some gradient on its way back, "
        f"where a layer has more inputs than outputs). The smallest singular value is {value}, in {name}."
    )
    return Finding(topic="Smallest values that kill a signal", sentences=(text,), tone=_tone(places), layers=places)


def _fourier(reports: Sequence[LayerReport]) -> Finding | None:
    sentences = summarize(reports)
    places = _places(reports, misleads)
    if not sentences:
        return None
    tone = "grave" if places else "open"
    return Finding(topic="Where the FFT misleads", sentences=tuple(sentences), tone=tone, layers=places)
