"""Gradient descent on the kernel of a layer: evaluate, record, step, stop."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence

from spectral_conv.descent.directions import ConjugateGradient, Direction, Gradient
from spectral_conv.descent.recording import ENDS, Recording
from spectral_conv.descent.run import Run
from spectral_conv.descent.steps import ExactLineSearch, Fixed, StepRule
from spectral_conv.descent.stopping import Stopping, message
from spectral_conv.geometry import as_integer
from spectral_conv.operator import ConvOperator
from spectral_conv.progress import work_bar
from spectral_conv.regularizers import Penalty
from spectral_conv.results import Descent, DescentStop, Snapshot
from spectral_conv.spectrum.checks import checked_positive
from spectral_conv.store import SpectrumStore


def descend(
    conv: ConvOperator,
    penalty: Penalty,
    step: StepRule = Fixed(1e-5),  # noqa: B008 - frozen
    *,
    maxiter: int,
    direction: Direction | None = None,
    rtol: float = 1e-12,
    gtol: float = 0.0,
    target: tuple[float, float] | None = None,
    track: Sequence[str] = ("sigma_max", "sigma_min"),
    track_rtol: float = 1e-8,
    circulant_every: int | None = 10,
    store: str | os.PathLike[str] | SpectrumStore | None = None,
    resume: bool = False,
    callback: Callable[[Snapshot], bool | None] | None = None,
    progress: bool = False,
) -> Descent:
    r"""Minimize a penalty over the kernel: ``K <- K + t D``, recording the exact spectrum of every iteration.

    With `OrthogonalityGap`, `Frobenius`, `SmallestSingularValue` and `FrobeniusMinusSmallest` these are the
    algorithms of the papers, with true gradients (the papers' G of the Frobenius norms is half of it: halve `t`).

    Parameters
    ----------
    conv : ConvOperator
        The layer with the first kernel; the work is in its dtype.
    penalty : Penalty
        Anything with ``value`` and ``value_and_grad``.
    step : StepRule
        The step size; see `spectral_conv.steps`.
    direction : Direction, optional
        Minus the gradient, as in the papers, for every step rule but `ExactLineSearch`, which goes along conjugate
        gradients; see `spectral_conv.descent.directions`.
    maxiter : int
        Iterations at most, counted from the start of the run, those of a resumed one included.
    rtol : float
        Stop where the penalty changes by at most `rtol` times its value; 0 for never.
    gtol : float
        Stop where the norm of the gradient is at most `gtol`.
    target : (float, float), optional
        Stop as soon as all singular values lie in this interval; both ends must be tracked.
    track : sequence of {"sigma_max", "sigma_min"}
        Which ends of the exact spectrum to compute at every iteration, each from the last one's vectors.
    track_rtol : float
        Width of their error intervals, relative to the largest value.
    circulant_every : int or None
        Compute the circulant spectrum at every so many iterations; it is left out where padding allows none.
    store : path or SpectrumStore, optional
        Where to keep every iteration (zarr). What a finished append has stored survives whatever ends the process.
    resume : bool
        Go on with the run in `store`, bit for bit as if it had not stopped; an empty store starts a new one.
    callback : callable, optional
        Called with the `Snapshot` of every iteration, after it was stored; a true result stops the run.
    progress : bool
        Show a bar on a terminal.

    Returns
    -------
    Descent
        Also after Ctrl-C, with what was reached.

    Raises
    ------
    NotConvergedError, MemoryLimitError, CostLimitError
        Where an exact value cannot be had; leave that end out of `track`.
    ValueError
        A parameter that does not fit, a store of another run.

    Examples
    --------
    >>> import numpy as np
    >>> from spectral_conv import ConvOperator, descend, regularizers, steps
    >>> conv = ConvOperator(np.random.default_rng(1).standard_normal((3, 3, 3, 1)), (20, 20))
    >>> run = descend(conv, regularizers.OrthogonalityGap(), steps.ExactLineSearch(), maxiter=5)
    >>> bool(run.history.sigma_max[-1] < run.history.sigma_max[0])
    True
    """
    if not isinstance(penalty, Penalty):
        raise ValueError(
            "`penalty` must have methods `value` and `value_and_grad`, such as regularizers.OrthogonalityGap(); got "
            f"{penalty!r}."
        )
    if direction is not None and not isinstance(direction, Direction):
        raise ValueError(f"`direction` must have a method `direction`; got {direction!r}.")
    if not isinstance(step, StepRule):
        raise ValueError(f"`step` must be a step rule such as steps.Fixed(1e-5); got {step!r}.")
    unknown = [name for name in track if name not in ENDS]
    if unknown or isinstance(track, str):
        raise ValueError(f"`track` must hold names out of {', '.join(ENDS)}; got {track!r}.")
    stopping = Stopping(
        maxiter=as_integer("maxiter", maxiter, minimum=0),
        rtol=_at_least_zero("rtol", rtol),
        gtol=_at_least_zero("gtol", gtol),
        target=_checked_target(target, track),
    )
    recording = Recording(
        track=tuple(track),
        track_rtol=checked_positive("track_rtol", track_rtol),
        circulant_every=_checked_period(circulant_every),
        store=SpectrumStore(store) if isinstance(store, str | os.PathLike) else store,
    )
    if recording.store is None and resume:
        raise ValueError("`resume=True` needs the `store` to resume from; got store=None.")
    if direction is None:
        direction = ConjugateGradient() if isinstance(step, ExactLineSearch) else Gradient()
    run = Run(conv, penalty, step, direction, stopping, recording)
    try:
        stop = _descend(run, resume=resume, callback=callback, maxiter=maxiter, progress=progress)
    except KeyboardInterrupt:
        if run.snapshot is None:
            raise
        stop = DescentStop.INTERRUPTED
    words = message(stop, run.penalties, run.gradient_norm, run.size)
    return Descent(kernel=run.conv.kernel, history=run.history(), stop_reason=stop, message=words)


def _descend(
    run: Run, *, resume: bool, callback: Callable[[Snapshot], bool | None] | None, maxiter: int, progress: bool
) -> DescentStop:
    """Advance until there is a reason to stop; the callback sees every new iterate once."""
    seen = resume and run.resume()
    if not seen:
        run.start()
    done = len(run.penalties) - 1
    with work_bar(max(maxiter, done), "descent", done=done, wanted=progress) as advance:
        while True:
            assert run.snapshot is not None
            if not seen and callback is not None and callback(run.snapshot):
                return DescentStop.CALLBACK
            seen = False
            reason = run.finished() or run.advance()
            if reason is not None:
                return reason
            advance(run.caption())


def _at_least_zero(name: str, value: float) -> float:
    number = float(value)
    if not 0.0 <= number < math.inf:
        raise ValueError(f"`{name}` must be a finite number, 0 or more; got {value!r}.")
    return number


def _checked_period(circulant_every: int | None) -> int | None:
    return None if circulant_every is None else as_integer("circulant_every", circulant_every, minimum=1)


def _checked_target(target: tuple[float, float] | None, track: Sequence[str]) -> tuple[float, float] | None:
    if target is None:
        return None
    low, high = (float(end) for end in target)
    if not low <= high or set(ENDS) - set(track):
        raise ValueError(
            f"`target` must be (low, high) with both ends of the spectrum in `track`; got {target!r} with "
            f"track={tuple(track)!r}."
        )
    return low, high
