"""What to know first about a model, in sentences: computed from the numbers, each with the layers it is about."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Context
from typing import Any

from spectral_conv.certification import network_lipschitz
from spectral_conv.report.record import LayerReport, is_reached
from spectral_conv.report.summary import summarize
from spectral_conv.report.text import exact_text, off_by
from spectral_conv.results import Enclosure, NotApplicableError

EXPLODES = 10.0  # a norm above it
VANISHES = 1e-3  # a smallest singular value below it
MISLEADS = 1.1  # the FFT is off by this factor or more
_FOUR_DIGITS = Context(prec=4, rounding=ROUND_CEILING)
_CONVOLUTIONS = ("Conv", "ConvTranspose")


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
        Places of the layers that it is about, from 0, the worst first.
    flag : str
        The word by which the table shows these layers only.
    """

    topic: str
    sentences: tuple[str, ...]
    tone: str = "open"
    layers: tuple[int, ...] = ()
    flag: str = ""


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
        With a graph, or without: then the sentence says that nothing is known, and the remedy. So it does where only
        some of the layers were chosen.

    Returns
    -------
    Finding
        The bound of the Lipschitz constant, whether it is proved, or why there is none.

    Examples
    --------
    >>> from spectral_conv.models import Model
    >>> from pathlib import Path
    >>> network_finding(Model(path=Path("a"), format="none", layers=(), skipped=())).sentences[0][:21]
    'No Lipschitz bound is'
    """
    topic = "The network as a whole"
    if getattr(model, "graph", None) is None:
        text = (
            "No Lipschitz bound is known: the weights alone do not say which layer follows which. Inspect an ONNX "
            "export, which does; or pass the operators of a chain of layers to "
            "`spectral_conv.certification.network_lipschitz`."
        )
        return Finding(topic=topic, sentences=(text,))
    absent = _absent(model)
    if absent:
        some = "1 of its convolutions is" if absent == 1 else f"{absent} of its convolutions are"
        text = (
            f"No Lipschitz bound is given: it would be that of the whole network, and {some} not among the layers "
            "that were chosen. Inspect all layers to get it."
        )
        return Finding(topic=topic, sentences=(text,))
    try:
        found = network_lipschitz(model)
    except (NotApplicableError, ValueError, RuntimeError, ArithmeticError, MemoryError) as error:
        return Finding(topic=topic, sentences=(f"No Lipschitz bound is known. {error}",))
    value = _upwards(found.value)
    if found.kind == "upper":
        says = f"Its Lipschitz constant is at most {value}: no change of an input is stretched more. "
    else:
        says = f"Its Lipschitz constant is about {value} or less, an estimate, for a link is not proved. "
    text = f"{says}The bound has {len(found.links)} links; the true constant is usually far below."
    return Finding(topic=topic, sentences=(text,))


def _upwards(value: float) -> str:
    """Four digits, rounded upwards: what is called an upper bound has to be one.

    Examples
    --------
    >>> _upwards(410.31), _upwards(2.0)
    ('410.4', '2')
    """
    return f"{float(_FOUR_DIGITS.create_decimal_from_float(value)):.4g}"


def _absent(model: Any) -> int:
    """Number of convolutions of the network that are neither layers of the model nor among what was left out."""
    known = {layer.name for layer in model.layers} | {tensor.name for tensor in model.skipped}
    kernels = {node.weights[0] for node in model.graph.nodes if node.op in _CONVOLUTIONS and node.weights}
    return len(kernels - known)


def explodes(report: LayerReport) -> bool:
    """Whether the layer can stretch a signal more than ten times, for sure."""
    return report.sigma_max is not None and report.sigma_max.lower > EXPLODES


def vanishes(report: LayerReport) -> bool:
    """Whether some signal (or gradient) has less than a thousandth left behind the layer, for sure."""
    return report.sigma_min is not None and report.sigma_min.upper < VANISHES


def misleads(report: LayerReport) -> bool:
    """Whether the FFT's largest or smallest value is off by 10 % or more."""
    return _distance(report) >= MISLEADS


def _distance(report: LayerReport) -> float:
    """The factor that the FFT is off by, at the end of the spectrum where it is off most."""
    ends = (report.sigma_max, report.sigma_min)
    pairs = zip(report.circulant or (), ends, strict=False)
    return max((off_by(estimate, end)[1] for estimate, end in pairs if end is not None), default=1.0)


def _places(
    reports: Sequence[LayerReport],
    holds: Callable[[LayerReport], bool],
    worst: Callable[[LayerReport], float] = lambda _: 0.0,
) -> tuple[int, ...]:
    places = [i for i, report in enumerate(reports) if holds(report)]
    return tuple(sorted(places, key=lambda i: worst(reports[i]), reverse=True))


def _tone(places: Sequence[int], undecided: int) -> str:
    return "grave" if places else "open" if undecided else "fine"


def _count(
    places: Sequence[int], undecided: int, reports: Sequence[LayerReport], *, many: str, one: str, stem: str
) -> str:
    if places:
        return f"{len(places)} of {len(reports)} layers {many}"
    return f"No layer is known to {stem}" if undecided else f"No layer {one}"


def _open(undecided: int) -> str:
    if not undecided:
        return ""
    return f" For {undecided} {'layer' if undecided == 1 else 'layers'} it is not known."


def _unfinished(reports: Sequence[LayerReport]) -> Finding | None:
    places = _places(reports, lambda report: not report.complete)
    if not places:
        return None
    text = f"{len(places)} of {len(reports)} layers could not be analysed to the end; the reasons are beside them."
    return Finding(topic="Not complete", sentences=(text,), tone="grave", layers=places, flag="incomplete")


def _reached(reports: Sequence[LayerReport], end: str) -> list[tuple[str, Enclosure]]:
    return [(report.name, getattr(report, end)) for report in reports if is_reached(getattr(report, end))]


def _norms(reports: Sequence[LayerReport]) -> Finding | None:
    known = _reached(reports, "sigma_max")
    places = _places(reports, explodes, lambda report: report.sigma_max.lower if report.sigma_max else 0.0)
    if not known and not places:
        return None
    clear = sum(report.sigma_max is not None and report.sigma_max.upper <= EXPLODES for report in reports)
    undecided = len(reports) - len(places) - clear
    count = _count(places, undecided, reports, many="can stretch", one="can stretch", stem="stretch")
    text = f"{count} a signal more than {EXPLODES:g} times.{_open(undecided)}"
    if known:
        name, largest = max(known, key=lambda pair: pair[1].value)
        text += f" The largest norm is {exact_text(largest, 4)}, in {name}."
    tone = _tone(places, undecided)
    return Finding(topic="Norms that explode a signal", sentences=(text,), tone=tone, layers=places, flag="explodes")


def _smallest(reports: Sequence[LayerReport]) -> Finding | None:
    known = _reached(reports, "sigma_min")
    places = _places(reports, vanishes, lambda report: -report.sigma_min.upper if report.sigma_min else 0.0)
    if not known and not places:
        return None
    clear = sum(report.sigma_min is not None and report.sigma_min.lower >= VANISHES for report in reports)
    undecided = len(reports) - len(places) - clear
    count = _count(places, undecided, reports, many="leave", one="leaves", stem="leave")
    text = (
        f"{count} less than a thousandth of some signal on its way "
        "forward (or of some gradient on its way back, where a layer has more inputs than outputs)."
        f"{_open(undecided)}"
    )
    if known:
        name, least = min(known, key=lambda pair: pair[1].value)
        value = exact_text(least, 4).replace("<", "below")
        text += f" The smallest singular value is {value}, in {name}."
    tone = _tone(places, undecided)
    return Finding(
        topic="Smallest values that kill a signal", sentences=(text,), tone=tone, layers=places, flag="vanishes"
    )


def _fourier(reports: Sequence[LayerReport]) -> Finding | None:
    sentences = summarize(reports)
    places = _places(reports, misleads, _distance)
    if not sentences:
        return None
    tone = "grave" if places else "open"
    topic = "Where the FFT misleads"
    return Finding(topic=topic, sentences=tuple(sentences), tone=tone, layers=places, flag="misleads")
