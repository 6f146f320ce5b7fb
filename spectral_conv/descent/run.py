"""A descent in progress: the present kernel, and what the next step depends on."""

from __future__ import annotations

import dataclasses
import math
import time
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spectral_conv.descent.directions import Direction
from spectral_conv.descent.iterate import Iterate, Previous, length
from spectral_conv.descent.recording import Recorder, Recording, described
from spectral_conv.descent.steps import StepRule
from spectral_conv.descent.stopping import Stopping
from spectral_conv.operator import ConvOperator
from spectral_conv.regularizers import Penalty
from spectral_conv.results import DescentStop, Snapshot

if TYPE_CHECKING:
    import xarray as xr


class Run:
    """A descent: `start` or `resume` it, then `advance` until there is a reason to stop.

    Attributes
    ----------
    conv : ConvOperator
        The layer with its present kernel.
    penalties : list of float
        The penalty at every iterate so far.
    snapshot : Snapshot or None
        The record of the present iterate; None before the start.
    size : float
        Of the last step tried.
    """

    def __init__(
        self,
        conv: ConvOperator,
        penalty: Penalty,
        step: StepRule,
        direction: Direction,
        stopping: Stopping,
        recording: Recording,
    ) -> None:
        self.conv, self._penalty, self._step, self._direction = conv, penalty, step, direction
        self._stopping = stopping
        words = {"penalty": described(penalty), "step_rule": described(step), "direction": described(direction)}
        self._recorder = Recorder(recording, penalty, words)
        self._previous: Previous | None = None
        self._gradient: NDArray[np.floating]
        self.penalties: list[float] = []
        self.snapshot: Snapshot | None = None
        self.size = 0.0

    def start(self) -> None:
        """Evaluate and record the first kernel."""
        self._recorder.check(self.conv)
        clock = time.perf_counter()
        value, gradient = self._evaluate(self.conv)
        if not _finite(value, gradient):
            raise ValueError(
                f"`penalty` must be finite at the first kernel; {type(self._penalty).__name__} is {value}. Scale the "
                "kernel, or choose another penalty."
            )
        self._accept(self.conv, value, gradient, clock, None)

    def resume(self) -> bool:
        """Take up the run in the store, if there is one."""
        restored = self._recorder.restore(self.conv)
        if restored is None:
            return False
        stored, state, self.snapshot = restored
        self.conv = self.conv.with_kernel(self.snapshot.kernel)
        self.penalties = [float(value) for value in stored["penalty"].values]
        self.size = self.snapshot.step
        self._gradient = state["gradient"]
        if "previous_gradient" in state:
            self._previous = Previous(
                kernel=stored["kernel"].values[-2].astype(np.float64),
                gradient=state["previous_gradient"],
                direction=state["previous_direction"],
                size=self.size,
            )
        return True

    def finished(self) -> DescentStop | None:
        """Why to stop here, if at all."""
        assert self.snapshot is not None
        return self._stopping.reason(self.penalties, self.gradient_norm, self.snapshot.extremes)

    @property
    def gradient_norm(self) -> float:
        """Norm of the present gradient."""
        return length(self._gradient)

    def advance(self) -> DescentStop | None:
        """Take one step and record where it led, or say why there is none."""
        clock = time.perf_counter()
        at = Iterate(
            iteration=len(self.penalties),
            conv=self.conv,
            penalty=self._penalty,
            value=self.penalties[-1],
            gradient=self._gradient,
            direction=-self._gradient,
            previous=self._previous,
        )
        with np.errstate(over="ignore", invalid="ignore"):
            at = dataclasses.replace(at, direction=self._direction.direction(at))
            self.size = self._step.size(at)
        if self.size == 0.0:
            return DescentStop.NO_DECREASE
        if not math.isfinite(self.size):
            return DescentStop.DIVERGED
        kernel = at.kernel_after(self.size)
        if not np.isfinite(kernel).all():
            return DescentStop.DIVERGED
        conv = self.conv.with_kernel(kernel)
        value, gradient = self._evaluate(conv)
        if not _finite(value, gradient):
            return DescentStop.DIVERGED
        previous = Previous(
            kernel=self.conv.kernel.astype(np.float64),
            gradient=self._gradient,
            direction=at.direction,
            size=self.size,
        )
        self._accept(conv, value, gradient, clock, previous)
        return None

    def history(self) -> xr.Dataset:
        """Everything recorded, labelled."""
        return self._recorder.history(self.conv)

    def caption(self) -> str:
        """One line for a bar."""
        assert self.snapshot is not None
        ends = " ".join(f"{name} {end.value:.4g}" for name, end in self.snapshot.extremes.items())
        return f"penalty {self.snapshot.penalty:.4g} {ends}"

    def _evaluate(self, conv: ConvOperator) -> tuple[float, NDArray[np.floating]]:
        # A step that was too long overflows; that is a reason to stop, not a warning.
        with np.errstate(over="ignore", invalid="ignore"):
            value, gradient = self._penalty.value_and_grad(conv)
        return float(value), np.asarray(gradient, dtype=np.float64)

    def _accept(
        self,
        conv: ConvOperator,
        value: float,
        gradient: NDArray[np.floating],
        clock: float,
        previous: Previous | None,
    ) -> None:
        """Record an iterate, then make it the present one: what was not recorded did not happen."""
        state = {"gradient": gradient}
        if previous is not None:
            state |= {"previous_gradient": previous.gradient, "previous_direction": previous.direction}
        norm = length(gradient)
        self.snapshot = self._recorder.keep(conv, len(self.penalties), value, norm, self.size, clock, state)
        self.conv, self._gradient, self._previous = conv, gradient, previous
        self.penalties.append(value)


def _finite(value: float, gradient: NDArray[np.floating]) -> bool:
    return math.isfinite(value) and bool(np.isfinite(gradient).all())
