"""The largest singular value: at most 1/4 of the applications and 1/2 of the time of ARPACK, PROPACK and PRIMME.

Every solver runs at the loosest of the same tolerances that gives the value to the goal; what it needs there counts.
"""

from __future__ import annotations

import functools
import importlib.util
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.sparse.linalg import LinearOperator, svds
from threadpoolctl import threadpool_limits

from spectral_conv import ConvOperator, singular_triplets
from validation.benchmarks.layers import MISSING, Layer, gaussian, gaussians, label, resnet20
from validation.benchmarks.timing import Row

TITLE = "largest singular value, BLAS on one thread, medians over layers: applications, then seconds"
SHAPES = [
    ((3, 3, 3, 1), 20),
    ((3, 3, 16, 16), 32),
    ((3, 3, 32, 64), 28),
    ((5, 5, 8, 8), 64),
    ((3, 3, 64, 64), 32),
    ((3, 3, 64, 64), 56),
]
GROWING = [(3, 3, 16, 16), (3, 3, 8, 8), (5, 5, 4, 4), (3, 3, 32, 32)]
SMALL, LARGE, GROWTH = 16, 128, 1.5
GOALS = (1e-6, 1e-10)
# Wanted: applications (aim for 8), time, time where one application costs more than DEAR seconds.
FEWER, FASTER, FASTER_DEAR, DEAR = 4.0, 2.0, 3.0, 2e-3
# Four tolerances per decade.
PER_DECADE = 4
TOLERANCES = [10.0 ** (-1 - i / PER_DECADE) for i in range(12 * PER_DECADE + 1)]
ROUNDS = 3

# From an operator and a tolerance to the value and the number of applications.
Solver = Callable[[ConvOperator, float], tuple[float, int]]


def ours(conv: ConvOperator, tolerance: float, method: str = "auto") -> tuple[float, int]:
    """Run this package."""
    found = singular_triplets(conv, rtol=tolerance, method=method)
    return float(found.values[0]), found.applications


class Counted(LinearOperator):
    """The same products for the rivals, counted."""

    def __init__(self, conv: ConvOperator) -> None:
        super().__init__(conv.dtype, conv.shape)
        self._conv, self.applications = conv, 0

    def _matvec(self, x: np.ndarray) -> np.ndarray:
        self.applications += 1
        return self._conv.matvec(x)

    def _rmatvec(self, x: np.ndarray) -> np.ndarray:
        self.applications += 1
        return self._conv.rmatvec(x)


def arpack(conv: ConvOperator, tolerance: float) -> tuple[float, int]:
    """SciPy's default, without vectors, which would cost it one application more."""
    counted, start = Counted(conv), np.random.default_rng(0).standard_normal(min(conv.shape))
    values = svds(counted, k=1, tol=tolerance, v0=start, solver="arpack", return_singular_vectors=False)
    return float(values[0]), counted.applications


def propack(conv: ConvOperator, tolerance: float) -> tuple[float, int]:
    """PROPACK; `maxiter` is the size of its basis, and the default of 10 always fails."""
    counted, start = Counted(conv), np.random.default_rng(0).standard_normal(conv.shape[0])
    most = min(*conv.shape, 1000)
    values = svds(
        counted, k=1, tol=tolerance, v0=start, solver="propack", maxiter=most, return_singular_vectors=False
    )
    return float(values[0]), counted.applications


def primme(conv: ConvOperator, tolerance: float) -> tuple[float, int]:
    """PRIMME's hybrid method, where it is installed."""
    import primme as library

    counted, start = Counted(conv), np.random.default_rng(0).standard_normal((conv.shape[1], 1))
    values = library.svds(counted, k=1, tol=tolerance, v0=start, return_singular_vectors=False)
    return float(values[0]), counted.applications


SOLVERS: dict[str, Solver] = {"ours": ours, "arpack": arpack, "propack": propack}
if importlib.util.find_spec("primme"):
    SOLVERS["primme"] = primme
RIVALS = [name for name in SOLVERS if name != "ours"]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One layer at one goal: what every solver that got there needed, and how far off it was."""

    family: str
    method: str
    application_seconds: float
    applications: dict[str, int]
    seconds: dict[str, float]
    error: float


def loosest(solver: Solver, conv: ConvOperator, exact: float) -> Iterator[tuple[float, int, float] | None]:
    """For each goal the loosest tolerance that reaches it, the applications and the error there."""

    @functools.cache
    def attempt(i: int) -> tuple[float, int]:
        try:
            value, applications = solver(conv, TOLERANCES[i])
        except (RuntimeError, np.linalg.LinAlgError):  # what every solver raises where it does not converge
            return np.inf, 0
        return abs(value - exact) / exact, applications

    first = 0
    for goal in GOALS:
        # The error falls with the tolerance: look once per decade, then at every tolerance of the decade.
        decades = range(first, len(TOLERANCES), PER_DECADE)
        found = next((i for i in decades if attempt(i)[0] <= goal), len(TOLERANCES) - 1)
        span = range(max(first, found - PER_DECADE + 1), found + 1)
        first = next((i for i in span if attempt(i)[0] <= goal), found)
        error, applications = attempt(first)
        yield (TOLERANCES[first], applications, error) if error <= goal else None


def measure(layer: Layer) -> Iterator[Measured]:
    """Find everyone's tolerances, then time them there in turn; raise where the others do not confirm the value."""
    conv = layer.conv
    exact = singular_triplets(conv, rtol=1e-12, on_failure="return")
    found = {name: list(loosest(solver, conv, float(exact.values[0]))) for name, solver in SOLVERS.items()}
    x = np.ones(conv.shape[1])
    application = min(_seconds(lambda: conv.rmatvec(conv.matvec(x))) for _ in range(5)) / 2
    for number, goal in enumerate(GOALS):
        there = {name: every[number] for name, every in found.items() if every[number] is not None}
        if "ours" not in there or len(there) == 1:
            raise AssertionError(f"{layer.name}: {sorted(there) or 'none'} found the value to {goal:.0e}")
        times: dict[str, list[float]] = {name: [] for name in there}
        for _ in range(ROUNDS):
            for name, (tolerance, _, _) in there.items():
                times[name].append(_seconds(functools.partial(SOLVERS[name], conv, tolerance)))
        yield Measured(
            family=layer.family,
            method=singular_triplets(conv, rtol=there["ours"][0]).method,
            application_seconds=application,
            applications={name: applications for name, (_, applications, _) in there.items()},
            seconds={name: statistics.median(times[name]) for name in there},
            error=there["ours"][2],
        )


def run(*, quick: bool = False) -> Iterator[Row | str]:
    """Report every family, then the claims over all layers; one seed instead of five where `quick`."""
    with threadpool_limits(1):
        layers = [*gaussians(SHAPES, 1 if quick else 5), *(resnet20()[:3] if quick else resnet20())]
        found = [list(measure(layer)) for layer in layers]
        for number, goal in enumerate(GOALS):
            measured = [every[number] for every in found]
            for family in dict.fromkeys(layer.family for layer in layers):
                part = [one for one in measured if one.family == family]
                yield from _rows(f"{family}", goal, part)
            dear = [one for one in measured if one.application_seconds > DEAR]
            yield from _rows("all", goal, measured, (FEWER, FASTER))
            yield from _rows(f"M over {1e3 * DEAR:.0f} ms", goal, dear, (0.0, FASTER_DEAR))
        yield from _growth(1 if quick else 3)
    if not resnet20():
        yield f"without ResNet-20: {MISSING}"
    if "primme" not in SOLVERS:
        yield "without PRIMME, which is not installed"


def _rows(task: str, goal: float, part: list[Measured], wanted: tuple[float, float] = (0.0, 0.0)) -> Iterator[Row]:
    """Compare each layer with the best of the others there: applications, of those that iterated, and time."""
    iterated = [one for one in part if one.applications["ours"]]
    methods = "+".join(sorted({one.method for one in part}))
    for unit, some, bar in (("", iterated, wanted[0]), ("s", part, wanted[1])):
        if not some:
            continue
        amounts = [one.seconds if unit else one.applications for one in some]
        names = [min(RIVALS, key=lambda name: amount.get(name, np.inf)) for amount in amounts]
        bests = [amount[name] for amount, name in zip(amounts, names, strict=True)]
        yield Row(
            task=f"{task}, {goal:.0e}",
            rival=f"{Counter(names).most_common(1)[0][0]}; {methods}",
            ours=statistics.median(amount["ours"] for amount in amounts),
            theirs=statistics.median(bests),
            ratio=statistics.median(their / amount["ours"] for amount, their in zip(amounts, bests, strict=True)),
            wanted=bar,
            agreement=max(one.error for one in some),
            unit=unit,
        )


def _growth(seeds: int) -> Iterator[Row]:
    """Applications to the first goal on large images and on small ones, the same kernel."""
    every: list[tuple[int, int, str]] = []
    for shape in GROWING:
        counts = [_both_sizes(shape, seed) for seed in range(seeds)]
        every += counts
        yield _growth_row(label(shape, LARGE), counts)
    yield _growth_row(f"all at {LARGE}, median", every, 1 / GROWTH)
    yield _growth_row(f"all at {LARGE}, worst", [max(every, key=lambda count: count[0] / count[1])])


def _both_sizes(shape: tuple[int, ...], seed: int) -> tuple[int, int, str]:
    """Applications at both sizes, and the methods; where a small one is direct, by the method of the large one."""
    counts, methods, method = [], [], "auto"
    for size in (LARGE, SMALL):
        conv = gaussian(shape, size, seed)
        exact = singular_triplets(conv, rtol=1e-8)
        value = float(exact.values[0])
        if exact.applications == 0:
            method = methods[0]
        there = next(loosest(functools.partial(ours, method=method), conv, value))
        # The rival that is cheapest on large images, where it gets there at once.
        confirmed = any(abs(propack(conv, tol)[0] - value) <= GOALS[0] * value for tol in (1e-3, 1e-6))
        if there is None or not confirmed:
            raise AssertionError(f"{label(shape, size)}, seed {seed}: the value is not confirmed to {GOALS[0]:.0e}")
        counts.append(there[1])
        methods.append(singular_triplets(conv, rtol=there[0], method=method).method)
    return counts[0], counts[1], "+".join(dict.fromkeys(methods))


def _growth_row(task: str, counts: list[tuple[int, int, str]], wanted: float = 0.0) -> Row:
    return Row(
        task=task,
        rival=f"at {SMALL}; {'+'.join(sorted({count[2] for count in counts}))}",
        ours=statistics.median(count[0] for count in counts),
        theirs=statistics.median(count[1] for count in counts),
        ratio=statistics.median(count[1] / count[0] for count in counts),
        wanted=wanted,
        agreement=GOALS[0],
        unit="",
    )


def _seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
