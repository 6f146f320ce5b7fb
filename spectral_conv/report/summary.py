"""What the numbers of a model show, in plain words: computed from the results, nothing is canned."""

from __future__ import annotations

from collections.abc import Sequence

from spectral_conv.report.record import LayerReport, is_reached
from spectral_conv.report.text import estimate_text, exact_text, off_by
from spectral_conv.results import Enclosure

SAME = 1e-6  # relative difference below which the FFT is called right
FAR = 2.0  # factor from which the FFT's smallest value is called far off

Pair = tuple[LayerReport, Enclosure, float]


def summarize(reports: Sequence[LayerReport]) -> list[str]:
    """Sentences that say how far the FFT is from the exact values.

    Parameters
    ----------
    reports : sequence of LayerReport
        Analysed layers; those without an exact value or an FFT value do not enter.

    Returns
    -------
    list of str
        One finding each; empty if no layer can be compared.

    Examples
    --------
    >>> summarize([])
    []
    """
    largest = [
        (report, report.sigma_max, report.circulant[0])
        for report in reports
        if report.sigma_max is not None and is_reached(report.sigma_max) and report.circulant is not None
    ]
    smallest = [
        (report, report.sigma_min, report.circulant[1])
        for report in reports
        if report.sigma_min is not None and is_reached(report.sigma_min) and report.circulant is not None
    ]
    return [*_about_largest(largest), *_about_smallest(smallest), *_about_agreement([*largest, *smallest])]


def _about_largest(pairs: Sequence[Pair]) -> list[str]:
    off = [pair for pair in pairs if _factor(pair) > 1.0 + SAME]
    if not off:
        return []
    over = sum(estimate > exact.value for _, exact, estimate in off)
    report, exact, estimate = max(off, key=_factor)
    says, truth, difference = estimate_text(estimate), exact_text(exact, 4), off_by(estimate, exact)[0]
    direction = "too large" if over == len(off) else "too small" if over == 0 else "wrong"
    where = f"in {len(off)} of {len(pairs)} layers"
    return [
        f"The FFT's largest singular value is {direction} {where}, most of all in {report.name}: "
        f"it says {says}, the truth is {truth} ({difference})."
    ]


def _about_smallest(pairs: Sequence[Pair]) -> list[str]:
    off = [pair for pair in pairs if _factor(pair) >= FAR]
    if not off:
        return []
    report, exact, estimate = max(off, key=_factor)
    says, truth = estimate_text(estimate), exact_text(exact, 4).replace("<", "below")
    sentences = [
        f"Its smallest one is off by a factor of two or more in {len(off)} of {len(pairs)} layers, "
        f"most of all in {report.name}: it says {says}, the truth is {truth} ({off_by(estimate, exact)[0]})."
    ]
    bordered = [report for report, exact, estimate in off if estimate > exact.value and _reads_zeros(report)]
    if bordered:
        which = "" if len(bordered) == len(off) else f" ({_names(bordered)})"
        sentences.append(
            "The cause: beyond the border these layers read zeros, the FFT's version of them reads the "
            f"opposite side of the image{which}."
        )
    return sentences


def _about_agreement(pairs: Sequence[Pair]) -> list[str]:
    wrong = {pair[0].name for pair in pairs if _factor(pair) > 1.0 + SAME}
    right = list({report.name: report for report, _, _ in pairs if report.name not in wrong}.values())
    if not right:
        return []
    pointwise = all(k == 1 for report in right for k in report.kernel_size)
    reason = ": a 1x1 kernel never reaches over the border" if pointwise else ""
    return [f"The FFT is right for {_names(right)}{reason}."]


def _reads_zeros(report: LayerReport) -> bool:
    return report.padding_mode == "zeros" and any(before or after for before, after in report.padding)


def _names(reports: Sequence[LayerReport], most: int = 4) -> str:
    names = ", ".join(report.name for report in reports[:most])
    return names if len(reports) <= most else f"{names} and {len(reports) - most} more"


def _factor(pair: Pair) -> float:
    _, exact, estimate = pair
    return off_by(estimate, exact)[1]
