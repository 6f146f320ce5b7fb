"""Exact spectra while a model trains, off the training thread."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from spectral_conv.geometry import ConvGeometry, as_integer
from spectral_conv.operator import ConvOperator
from spectral_conv.results import Enclosure, NotApplicableError
from spectral_conv.spectrum.tracker import ExtremeTracker
from spectral_conv.store import SpectrumStore
from spectral_conv.symbols import circulant_singular_values
from spectral_conv.torch._layers import convolutions, operator_of

if TYPE_CHECKING:
    import xarray as xr

_AXES = {1: ("x",), 2: ("y", "x"), 3: ("z", "y", "x")}
# Copies of the weights that wait for the worker; then the training waits.
_WAITING = 2


@dataclass(frozen=True, kw_only=True)
class _Snapshot:
    """What the worker found for one training step: per layer both ends, and the circulant spectrum if it has one."""

    step: int
    largest: list[Enclosure]
    smallest: list[Enclosure]
    circulants: list[NDArray[np.floating] | None]


class SpectrumMonitor:
    r"""Records the exact extremes and the circulant spectrum of a model's convolutions while it trains.

    A thread of its own computes in double precision on the CPU, on copies of the weights, each search started from
    the last result. The record of all layers is one of a `SpectrumStore`, along `iteration`, with the training step
    in `step`: ``sigma_max``, ``sigma_min`` and their bounds (iteration, layer), and per layer
    ``circulant_spectrum_<layer>``.

    Parameters
    ----------
    model : Module
        Watched, never changed.
    input_shape : sequence of int
        Shape of the model's input without the batch, ``(channels, *spatial)``.
    layers : sequence of str, optional
        Names of convolutions; default: all that a forward pass reaches.
    every : int
        Every so many calls of `step` the weights are looked at, the first time at the first one.
    store : str, PathLike or SpectrumStore, optional
        Where records are kept safe against whatever kills the process; default: in memory.
    writer : object, optional
        With TensorBoard's ``add_scalar(tag, value, step)``; called in the training thread.
    rtol : float
        Error of the values, relative to the largest.
    circulant : bool
        Whether to record the circulant spectrum, an estimate unless padding is circular.

    Notes
    -----
    At most two copies of the weights wait for the worker, then `step` waits. What fails in the worker, or in the
    store, is raised by the next call of `step` or by `close`. Use it as a context, or call `close`: what still waits
    is recorded then.

    Examples
    --------
    >>> import torch
    >>> from spectral_conv.torch import SpectrumMonitor
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3, padding=1))
    >>> with SpectrumMonitor(model, input_shape=(1, 8, 8), every=10) as monitor:
    ...     for _ in range(20):
    ...         monitor.step()
    >>> monitor.history()["sigma_max"].dims, monitor.history()["step"].values.tolist()
    (('iteration', 'layer'), [0, 10])
    """

    def __init__(
        self,
        model: nn.Module,
        input_shape: Sequence[int],
        *,
        layers: Sequence[str] | None = None,
        every: int = 100,
        store: Any = None,
        writer: Any = None,
        rtol: float = 1e-6,
        circulant: bool = True,
    ) -> None:
        found = list(convolutions(model, input_shape, layers))
        if not found:
            raise ValueError("`model` must have a convolution that a forward pass reaches; it has none.")
        self.layers = [name for name, _, _ in found]
        self._modules = [module for _, module, _ in found]
        self._geometries: list[ConvGeometry] = [geometry for _, _, geometry in found]
        self.every = as_integer("every", every, minimum=1)
        self.store = store if store is None or isinstance(store, SpectrumStore) else SpectrumStore(store)
        self._writer, self._circulant = writer, bool(circulant)
        self._trackers = [ExtremeTracker(rtol=rtol) for _ in found]
        self._count, self._recorded = 0, 0
        if self.store is not None and self.store.last_iteration is not None:
            self._recorded = self.store.last_iteration + 1
        self._kept: list[xr.Dataset] = []
        self._done: queue.SimpleQueue[_Snapshot] = queue.SimpleQueue()
        self._error: BaseException | None = None
        self._queue: queue.Queue[tuple[int, list[torch.Tensor]] | None] = queue.Queue(_WAITING)
        self._thread: threading.Thread | None = threading.Thread(
            target=self._work, name="spectrum-monitor", daemon=True
        )
        self._thread.start()

    def step(self, step: int | None = None) -> None:
        """Call once per training step, after the optimizer; `step` is its number, by default counted from 0."""
        if self._thread is None:
            raise RuntimeError("`step` must be called before `close`; this monitor is closed. Make another one.")
        self._report()
        count, self._count = self._count, self._count + 1
        if count % self.every:
            return
        with torch.no_grad():
            weights = [module.weight.detach().to("cpu", torch.float64, copy=True) for module in self._modules]
        self._queue.put((count if step is None else int(step), weights))

    def close(self) -> None:
        """Record what still waits, and end the thread; raise what went wrong since the last call of `step`."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None
        self._report()

    def __enter__(self) -> SpectrumMonitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        with contextlib.suppress(Exception):  # what the training raised comes first
            self.close()

    def history(self) -> xr.Dataset:
        """All records so far, labelled along `iteration` and `layer`."""
        if self.store is not None:
            return self.store.open()
        if not self._kept:
            raise RuntimeError("`history` needs a record; there is none yet. Call `step`, then `close`.")
        import xarray as xr

        return xr.concat(
            self._kept, "iteration", data_vars="minimal", coords="minimal", compat="equals", join="exact"
        )

    def _report(self) -> None:
        """Write the scalars of what is done, and raise what went wrong."""
        while self._writer is not None and not self._done.empty():
            done = self._done.get()
            for number, name in enumerate(self.layers):
                self._writer.add_scalar(f"sigma_max/{name}", done.largest[number].value, done.step)
                self._writer.add_scalar(f"sigma_min/{name}", done.smallest[number].value, done.step)
        if self._error is not None:
            error, self._error = self._error, None
            raise RuntimeError(
                f"The spectra could not be recorded: {error}. Later steps are recorded again if that was mended."
            ) from error

    def _work(self) -> None:
        while (taken := self._queue.get()) is not None:
            try:
                snapshot = self._snapshot(*taken)
                record = self._labelled(snapshot)
                if self.store is not None:
                    self.store.append(record)
                else:
                    self._kept.append(record)
                self._recorded += 1
                if self._writer is not None:
                    self._done.put(snapshot)
            except Exception as error:  # whatever it is, the training thread shall know
                self._error = error

    def _snapshot(self, step: int, weights: list[torch.Tensor]) -> _Snapshot:
        largest, smallest, circulants = [], [], []
        for weight, geometry, tracker in zip(weights, self._geometries, self._trackers, strict=True):
            conv = operator_of(weight, geometry)
            largest.append(tracker.triplets(conv, "largest").enclosure())
            smallest.append(tracker.triplets(conv, "smallest").enclosure())
            circulants.append(_circulant(conv) if self._circulant else None)
        return _Snapshot(step=step, largest=largest, smallest=smallest, circulants=circulants)

    def _labelled(self, snapshot: _Snapshot) -> xr.Dataset:
        import xarray as xr

        variables: dict[str, Any] = {"step": ("iteration", [snapshot.step])}
        for name, ends in (("sigma_max", snapshot.largest), ("sigma_min", snapshot.smallest)):
            for suffix, field in {"": "value", "_lower": "lower", "_upper": "upper"}.items():
                values = [[getattr(end, field) for end in ends]]
                variables[name + suffix] = (("iteration", "layer"), values, {"units": "1"})
        for name, geometry, spectrum in zip(self.layers, self._geometries, snapshot.circulants, strict=True):
            if spectrum is not None:
                axes = [f"frequency_{axis}_{name}" for axis in _AXES[geometry.ndim]]
                variables[f"circulant_spectrum_{name}"] = (("iteration", *axes, f"rank_{name}"), spectrum[None])
        return xr.Dataset(
            variables,
            coords={"iteration": [self._recorded], "layer": np.array(self.layers, dtype=str)},
            attrs={"title": "Spectra of the convolutions of a model in training", "package": "spectral_conv"},
        )


def _circulant(conv: ConvOperator) -> NDArray[np.floating] | None:
    try:
        return circulant_singular_values(conv)
    except NotApplicableError:
        return None
