"""One tracked iteration of a descent: gradient and both exact extremes, against dense matrices."""

from __future__ import annotations

import time
from collections.abc import Iterator
from statistics import median

import numpy as np

from spectral_conv import ConvOperator, descend, regularizers, steps
from spectral_conv._threads import serial_blas
from spectral_conv.spectrum.tracker import ExtremeTracker
from validation.benchmarks.layers import gaussian
from validation.benchmarks.penalties import dense_gap
from validation.benchmarks.timing import Row, within

TITLE = "descent with OrthogonalityGap, extremes to 1e-8, one thread"
WANTED, FEWER = 100.0, 5.0
SCHEDULE = {1: 1e-5, 10: 1e-4, 20: 1e-3}
KERNELS = ((3, 3, 3, 1), (3, 3, 1, 3), (3, 3, 3, 6), (3, 3, 6, 3))
_ITERATIONS = 60


def run(*, quick: bool = False) -> Iterator[Row | str]:
    """Time along the schedule of the paper; then count iterations of the exact line search."""
    with serial_blas():
        for shape in KERNELS[2:3] if quick else KERNELS:
            yield _tracked(gaussian(shape, 20, 1))
        for shape in KERNELS:
            yield from _counts(gaussian(shape, 20, 1))


def _tracked(conv: ConvOperator) -> Row:
    """Median over the iterations of the paper's run; each pair of extremes is checked against the dense ones."""
    gap, tracker = regularizers.OrthogonalityGap(), ExtremeTracker(rtol=1e-8)
    schedule = steps.Schedule(SCHEDULE)
    ours, theirs, worst = [], [], 0.0
    for iteration in range(1, _ITERATIONS + 1):
        start = time.perf_counter()
        gradient = gap.value_and_grad(conv)[1]
        ends = [float(tracker.triplets(conv, which).values[0]) for which in ("largest", "smallest")]
        ours.append(time.perf_counter() - start)
        if iteration % 10 == 0:
            start = time.perf_counter()
            dense = dense_gap(conv)
            s = np.linalg.svd(conv.to_dense(), compute_uv=False)
            theirs.append(time.perf_counter() - start)
            worst = max(worst, abs(ends[0] - s[0]) / s[0], abs(ends[1] - s[-1]) / s[0])
            worst = max(worst, float(np.abs(dense[1:] - gradient.ravel()).max() / np.abs(dense[1:]).max()))
        size = schedule.sizes[max(n for n in SCHEDULE if n <= iteration)]
        conv = conv.with_kernel(conv.kernel - size / 2.0 * gradient)  # the paper's G is half of the gradient
    if not worst <= 1e-8:
        raise AssertionError(f"off by {worst:.1e}")
    mine, dense_time = median(ours), median(theirs)
    task = f"{'x'.join(map(str, conv.kernel.shape))} at 20, tracked iteration"
    wanted = WANTED if conv.kernel.shape == (3, 3, 3, 6) else 0.0
    return Row(
        task=task,
        rival="dense SVD and gradient",
        ours=mine,
        theirs=dense_time,
        ratio=dense_time / mine,
        wanted=wanted,
        agreement=worst,
    )


def _counts(conv: ConvOperator) -> Iterator[Row]:
    """Iterations to the penalty that the paper's schedule reaches after 100 and 200."""
    gap = regularizers.OrthogonalityGap()
    halved = steps.Schedule({n: t / 2.0 for n, t in SCHEDULE.items()})
    paper = descend(conv, gap, halved, maxiter=200, track=()).history.penalty.values
    exact = descend(conv, gap, steps.ExactLineSearch(), maxiter=100, track=()).history.penalty.values
    for count in (100, 200):
        reached = next((n for n, value in enumerate(exact) if value <= paper[count]), np.inf)
        task = f"{'x'.join(map(str, conv.kernel.shape))}: to the penalty after {count}"
        yield within(task, float(reached), count / FEWER, unit="", rival="a fifth of the schedule's")
