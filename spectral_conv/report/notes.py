"""The footnotes of a table: what its words mean, and what could not be computed, with the reason."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from spectral_conv.report.record import NOT_ASKED, LayerReport
from spectral_conv.report.text import error_of, seconds_text
from spectral_conv.results import Enclosure

BASES = {
    "certified": "the bounds are proved, rounding errors included",
    "theorem": "the bounds are proved in exact arithmetic",
    "residual": "a singular value lies that close; that it is the extreme one is not proved",
}


@dataclass(frozen=True)
class Note:
    """One footnote: its mark, its text, and the rich style of both."""

    mark: str
    text: str
    style: str = "dim"


def footnotes(reports: Sequence[LayerReport], skipped: Sequence[tuple[str, str]] = ()) -> list[Note]:
    """All footnotes that these layers call for.

    Parameters
    ----------
    reports : sequence of LayerReport
        The layers of the table.
    skipped : sequence of (str, str)
        Name and reason of the tensors that were not taken as convolutions.

    Returns
    -------
    list of Note
        What is wrong or assumed first, then what the words mean.

    Examples
    --------
    >>> [note.mark for note in footnotes([], [("fc.bias", "one axis")])]
    ['-']
    """
    notes = [*_problems(reports), *assumptions(reports)]
    values = list(_values(reports))
    if values:
        notes.append(Note("-", _meaning_of_exact(values)))
        words = {basis_word(value) for _, value in values} & BASES.keys()
        notes += [Note("-", f"{word}: {BASES[word]}.") for word in BASES if word in words]
    if any(report.circulant for report in reports):
        notes.append(Note("-", "by FFT: the same layer with wrap-around (circular) padding."))
    if any(report.bounds is not None for report in reports):
        notes.append(Note("-", "bound: the tightest upper bound of max, how far it is off and its method."))
    notes += _missing_estimates(reports)
    notes += _left_out(skipped)
    if reports:
        seconds = seconds_text(sum(report.seconds for report in reports))
        notes.append(Note("-", f"{_count(len(reports), 'layer')} in {seconds} s."))
    return notes


def basis_word(enclosure: Enclosure) -> str:
    """First word of the basis: certified, theorem or residual; "bracket" where a limit left only a theorem."""
    word = enclosure.basis.partition(":")[0]
    return "bracket" if enclosure.method == "bracket" and word != "certified" else word


def _values(reports: Iterable[LayerReport]) -> Iterable[tuple[LayerReport, Enclosure]]:
    for report in reports:
        for enclosure in (report.sigma_max, report.sigma_min):
            if enclosure is not None:
                yield report, enclosure


def _meaning_of_exact(values: list[tuple[LayerReport, Enclosure]]) -> str:
    worst = max(
        (
            error_of(value) / report.sigma_max.value
            for report, value in values
            if value.method != "bracket" and report.sigma_max is not None and report.sigma_max.value > 0
        ),
        default=0.0,
    )
    return (
        "exact: with the layer's own padding and input size, to "
        f"{max(worst, 1e-16):.0e} of the layer's largest value."
    )


def _problems(reports: Sequence[LayerReport]) -> list[Note]:
    notes = []
    for word, end in (("max", "sigma_max"), ("min", "sigma_min")):
        failed, brackets = [], []
        for report in reports:
            enclosure, reason = getattr(report, end), getattr(report, f"{end}_reason")
            if enclosure is None and reason != NOT_ASKED:
                failed.append((report.name, str(reason)))
            elif enclosure is not None and enclosure.method == "bracket":
                brackets.append((report.name, f"only a bracket. {enclosure.stop_reason.value}"))
        for pairs, style in ((failed, "red"), (brackets, "yellow")):
            for reason, names in by_reason(pairs).items():
                notes.append(Note("!", f"{word} of {_one_or_count(names, 'layer')}: {reason}", style))
    failed = [(r.name, str(r.bounds_reason)) for r in reports if r.bounds is None and r.bounds_reason != NOT_ASKED]
    for reason, names in by_reason(failed).items():
        notes.append(Note("!", f"bounds of {_one_or_count(names, 'layer')}: {reason}", "red"))
    return notes


def assumptions(reports: Sequence[LayerReport]) -> list[Note]:
    """Return the note on the geometry that was assumed, if any was."""
    assumed = list(dict.fromkeys(text for report in reports for text in report.assumed))
    if not assumed:
        return []
    text = (
        f"assumed, for the file does not say: {', '.join(assumed)}. State them in a layers.json; "
        "`spectral-conv layers FILE` prints one to edit."
    )
    return [Note("*", text, "yellow")]


def by_reason(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Collect the names of (name, reason) pairs under their reason, in order.

    Examples
    --------
    >>> by_reason([("a", "too small"), ("b", "too small")])
    {'too small': ['a', 'b']}
    """
    groups: dict[str, list[str]] = {}
    for name, reason in pairs:
        groups.setdefault(reason, []).append(name)
    return groups


def _left_out(skipped: Sequence[tuple[str, str]]) -> list[Note]:
    groups = by_reason(skipped).items()
    return [Note("-", f"left out {_one_or_count(names, 'tensor')}: {reason}") for reason, names in groups]


def _missing_estimates(reports: Sequence[LayerReport]) -> list[Note]:
    groups = by_reason(
        (r.name, r.circulant_reason) for r in reports if r.circulant is None and r.circulant_reason
    ).items()
    return [Note("-", f"no FFT values for {_one_or_count(names, 'layer')}: {reason}") for reason, names in groups]


def _one_or_count(names: Sequence[str], noun: str) -> str:
    # The rows themselves say which layers are meant; one note per reason keeps the page short.
    return names[0] if len(names) == 1 else _count(len(names), noun)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
