"""Penalties, step sizes and targets by their words on the command line, and the way back."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spectral_conv.descent.steps import StepRule
    from spectral_conv.regularizers import Penalty

PENALTIES = {
    "frobenius": "Frobenius",
    "smallest-singular-value": "SmallestSingularValue",
    "frobenius-minus-smallest": "FrobeniusMinusSmallest",
    "orthogonality-gap": "OrthogonalityGap",
    "two-norm-gap": "TwoNormGap",
    "spectral-norm": "SpectralNorm",
    "lip-bound": "LipBound",
    "gram": "gram",
    "fantastic-four": "fantastic_four",
    "circulant-embedding": "circulant_embedding",
}
STEPS = {"exact": "ExactLineSearch", "armijo": "Armijo", "barzilai-borwein": "BarzilaiBorwein"}
_WITH_ALPHA = ("orthogonality-gap", "two-norm-gap")
# The package speaks of parameters, the command line of options.
_OPTIONS = (
    (r"`(maxiter|rtol|target|store)`", r"`--\1`"),
    (r"`circulant_every`", "`--circulant-every`"),
    (r"`path`", "`--store`"),
    (r"Pass resume=True", "Pass --resume"),
    (r"steps\.Fixed\(([^)]+)\)", r"--step \1"),
    (r"steps\.Armijo\(\)", "--step armijo"),
    # An engine's error interval has no option.
    (r" Pass on_failure='return' to get this result instead of the error\.", ""),
)


def in_options(text: str) -> str:
    """Return a message of the package in the words of the command line.

    Examples
    --------
    >>> in_options("Take a smaller one, such as steps.Fixed(1e-06), or steps.Armijo().")
    'Take a smaller one, such as --step 1e-06, or --step armijo.'
    """
    for parameter, option in _OPTIONS:
        text = re.sub(parameter, option, text)
    return text


def parse_penalty(word: str, alpha: float | None) -> Penalty:
    """Return the penalty of that name.

    Raises
    ------
    ValueError
        There is none, or it knows no `alpha`.

    Examples
    --------
    >>> parse_penalty("orthogonality-gap", 4.0)
    OrthogonalityGap(alpha=4.0)
    """
    from spectral_conv import bounds, regularizers
    from spectral_conv.geometry import checked_word

    name = PENALTIES[checked_word("--penalty", word, list(PENALTIES))]
    kind = getattr(bounds, name, None) or getattr(regularizers, name)
    if alpha is None:
        return kind if isinstance(kind, bounds.BoundMethod) else kind()
    if word not in _WITH_ALPHA:
        raise ValueError(
            f"`--alpha` is for `--penalty` {' or '.join(_WITH_ALPHA)}; got {alpha:g} with {word}. Leave it out."
        )
    try:
        return kind(alpha)
    except ValueError as error:
        raise ValueError(str(error).replace("`alpha`", "`--alpha`")) from error


def parse_step(text: str | None, penalty: Penalty) -> StepRule:
    """Return the step rule that the text names; without one the best that the penalty allows.

    Raises
    ------
    ValueError
        It names none, or one that the penalty does not allow.

    Examples
    --------
    >>> from spectral_conv import regularizers
    >>> parse_step("1:1e-5,10:1e-4", regularizers.SpectralNorm())
    Schedule(sizes={1: 1e-05, 10: 0.0001})
    >>> parse_step(None, regularizers.SpectralNorm())
    Armijo(first=None, decrease=0.0001, factor=0.5)
    """
    from spectral_conv.descent import steps
    from spectral_conv.regularizers import PolynomialPenalty

    polynomial = isinstance(penalty, PolynomialPenalty)
    if text is None:
        return steps.ExactLineSearch() if polynomial else steps.Armijo()
    word = text.strip().lower()
    if word == "exact" and not polynomial:
        raise ValueError(
            f"`--step exact` needs a penalty that is a polynomial along a line; {type(penalty).__name__} is none. "
            "Use --step armijo or --step barzilai-borwein."
        )
    if word in STEPS:
        return getattr(steps, STEPS[word])()
    try:
        if ":" in word:
            pairs = [entry.split(":") for entry in word.split(",")]
            sizes = {int(iteration): float(size) for iteration, size in pairs}
            return steps.Schedule(sizes)
        return steps.Fixed(float(word))
    except ValueError as error:
        # What a step rule says of a number is the better message; of no number it says nothing.
        because = f" {error}" if str(error).startswith("`") else ""
        close = difflib.get_close_matches(word, list(STEPS), n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(
            f"`--step` must be one of {', '.join(map(repr, STEPS))}, a number such as 1e-5, or sizes by iteration "
            f"such as 1:1e-5,10:1e-4; got {text!r}.{because}{hint}"
        ) from error


def parse_target(text: str | None) -> tuple[float, float] | None:
    """Return the ends of ``LOW,HIGH``.

    Examples
    --------
    >>> parse_target("0.9,1.1")
    (0.9, 1.1)
    """
    if text is None:
        return None
    try:
        low, high = (float(end) for end in text.split(","))
    except ValueError:
        low, high = 1.0, 0.0
    if not low <= high:
        raise ValueError(f"`--target` must be two numbers, LOW,HIGH with LOW at most HIGH; got {text!r}.")
    return low, high
