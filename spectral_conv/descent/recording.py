"""What is recorded of every iteration of a descent, and where."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import json
import re
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spectral_conv.labels import label_snapshots
from spectral_conv.operator import ConvOperator
from spectral_conv.regularizers import Penalty
from spectral_conv.results import Enclosure, NotApplicableError, Snapshot
from spectral_conv.spectrum.tracker import ExtremeTracker
from spectral_conv.store import SpectrumStore
from spectral_conv.symbols import circulant_singular_values

if TYPE_CHECKING:
    import xarray as xr

ENDS = ("sigma_max", "sigma_min")
State = dict[str, NDArray[np.floating]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recording:
    """What is asked for.

    Attributes
    ----------
    track : tuple of str
        Exact ends of the spectrum, out of `ENDS`.
    track_rtol : float
        Width of their error intervals, relative to the largest value.
    circulant_every : int or None
        The circulant spectrum at every so many iterations.
    store : SpectrumStore or None
        On disk; else in memory.
    """

    track: tuple[str, ...]
    track_rtol: float
    circulant_every: int | None
    store: SpectrumStore | None


class Recorder:
    """Computes snapshots of one run, labels and keeps them.

    Parameters
    ----------
    recording : Recording
        What is asked for.
    penalty : Penalty
        Whose tracker serves the record too, where it is accurate enough.
    identity : dict of str
        Words for penalty, step rule and direction, for the attributes.
    """

    def __init__(self, recording: Recording, penalty: Penalty, identity: dict[str, str]) -> None:
        self._recording, self._penalty, self._words = recording, penalty, identity
        own = getattr(penalty, "tracker", None)
        self._tracker: ExtremeTracker = (
            own if own is not None and own.rtol <= recording.track_rtol else ExtremeTracker(rtol=recording.track_rtol)
        )
        self._circulant_shape: tuple[int, ...] | None = None
        self._circulant_applies = recording.circulant_every is not None
        self._kept: list[Snapshot] = []

    def check(self, conv: ConvOperator) -> None:
        """Raise now what the first record would meet: another run, or a place that cannot be written."""
        store = self._recording.store
        if store is None:
            return
        if store.last_iteration is not None:
            raise ValueError(
                f"`store` already holds a run of {store.last_iteration} iterations, {store.path}. Pass resume=True "
                "to go on with it, or another path."
            )
        nothing = _snapshot(conv, 0, 0.0, 0.0, 0.0)
        store.check(label_snapshots([nothing], conv.geometry))

    def keep(
        self,
        conv: ConvOperator,
        iteration: int,
        penalty: float,
        gradient_norm: float,
        step: float,
        clock: float,
        state: State,
    ) -> Snapshot:
        """Complete the record of an iterate and store it, with `state`; `clock` is when work on it began."""
        extremes = {name: self._extreme(conv, name) for name in self._recording.track}
        snapshot = dataclasses.replace(
            _snapshot(conv, iteration, penalty, gradient_norm, step),
            terms=self._penalty.terms(conv) if hasattr(self._penalty, "terms") else {},
            multiplicity=int(getattr(self._penalty, "multiplicity", None) or 0),
            extremes=extremes,
            circulant=self._circulant(conv, iteration),
        )
        snapshot = dataclasses.replace(snapshot, seconds=time.perf_counter() - clock)
        if self._recording.store is None:
            self._kept.append(snapshot)
        else:
            trackers = {f"{owner}_{k}": v for owner, one in self._trackers().items() for k, v in one.state().items()}
            self._recording.store.append(self._labelled([snapshot], conv), state | trackers)
        return snapshot

    def restore(self, conv: ConvOperator) -> tuple[xr.Dataset, State, Snapshot] | None:
        """Return the stored run, the state of its last iterate, and that one's snapshot, if there is such a run."""
        store = self._recording.store
        if store is None or store.last_iteration is None:
            return None
        stored, state = store.open(), store.state()
        self._check_same_run(conv, stored)
        store.check(stored.isel(iteration=[-1]))
        if "circulant_spectrum" in stored:
            self._circulant_shape = stored["circulant_spectrum"].shape[1:]
        self._circulant_applies &= self._circulant_shape is not None
        last = stored.isel(iteration=-1)
        now = conv.with_kernel(last["kernel"].values)
        for owner, tracker in self._trackers().items():
            prefix = f"{owner}_"
            own = {name.removeprefix(prefix): v for name, v in state.items() if name.startswith(prefix)}
            tracker.restore(own, now)
        numbers = [float(last[name]) for name in ("penalty", "gradient_norm", "step")]
        snapshot = dataclasses.replace(
            _snapshot(now, int(last["iteration"]), *numbers),
            seconds=float(last["seconds"]),
            multiplicity=int(last["multiplicity"]),
            extremes={name: _enclosure(last, name) for name in self._recording.track},
        )
        return stored, state, snapshot

    def history(self, conv: ConvOperator) -> xr.Dataset:
        """Everything recorded, labelled."""
        store = self._recording.store
        return self._labelled(self._kept, conv) if store is None else store.open()

    def _extreme(self, conv: ConvOperator, name: str) -> Enclosure:
        return self._tracker.triplets(conv, "largest" if name == "sigma_max" else "smallest").enclosure()

    def _circulant(self, conv: ConvOperator, iteration: int) -> NDArray[np.floating] | None:
        every = self._recording.circulant_every
        if every is None or not self._circulant_applies or iteration % every:
            return None
        try:
            found = circulant_singular_values(conv)
        except NotApplicableError:
            self._circulant_applies = False
            return None
        self._circulant_shape = found.shape
        return found

    def _trackers(self) -> dict[str, ExtremeTracker]:
        own = getattr(self._penalty, "tracker", None)
        trackers = {"record": self._tracker}
        return trackers if own is None or own is self._tracker else {**trackers, "penalty": own}

    def _labelled(self, snapshots: list[Snapshot], conv: ConvOperator) -> xr.Dataset:
        history = label_snapshots(snapshots, conv.geometry, self._circulant_shape)
        history.attrs = {
            "title": "Gradient descent on the kernel of a convolution layer",
            "package": "spectral_conv",
            "version": importlib.metadata.version("spectral_conv"),
            "created_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "geometry": _words_of(conv),
            **self._words,
            "track_rtol": self._tracker.rtol,
        }
        return history

    def _check_same_run(self, conv: ConvOperator, stored: xr.Dataset) -> None:
        ours = {"geometry": _words_of(conv), "penalty": self._words["penalty"]}
        for name, words in ours.items():
            if stored.attrs.get(name) != words:
                raise ValueError(
                    f"`store` holds a run of another {name}: {stored.attrs.get(name)}, not {words}. Resume it with "
                    "its own, or choose another path."
                )
        recorded = {name for name in ENDS if name in stored}
        if recorded != set(self._recording.track):
            raise ValueError(
                f"`track` must be that of the stored run, {sorted(recorded)}; got {sorted(self._recording.track)}."
            )
        kernels = stored["kernel"].values
        if not any(np.array_equal(conv.kernel, kernel) for kernel in (kernels[0], kernels[-1])):
            raise ValueError(
                "`store` holds a run that started from another kernel. Pass the layer that it started from, or "
                "choose another path."
            )


def described(thing: Any) -> str:
    """Words for a penalty or a step rule that are the same in every process."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(thing))


def _words_of(conv: ConvOperator) -> str:
    return json.dumps(dataclasses.asdict(conv.geometry))


def _snapshot(conv: ConvOperator, iteration: int, penalty: float, gradient_norm: float, step: float) -> Snapshot:
    """A record without what has to be searched for."""
    return Snapshot(
        iteration=iteration,
        kernel=conv.kernel,
        penalty=penalty,
        gradient_norm=gradient_norm,
        terms={},
        step=step,
        seconds=0.0,
        multiplicity=0,
        extremes={},
        circulant=None,
    )


def _enclosure(last: xr.Dataset, name: str) -> Enclosure:
    lower, value, upper = (float(last[f"{name}{suffix}"]) for suffix in ("_lower", "", "_upper"))
    return Enclosure(lower=lower, value=value, upper=upper, basis="stored", method="stored", applications=0)
