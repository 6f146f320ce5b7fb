"""In what order layers are worked on, and how many at a time: the costliest first, tiny ones together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# A batch takes about so long: what it costs to hand it over is then nothing, ...
SECONDS = 0.5
# ... so many times longer than its file takes to read, ...
READS = 10.0
# ... and little enough that at the end no worker waits long for another one.
SHARE = 8


@dataclass(frozen=True, kw_only=True)
class Load:
    """A layer as a load.

    Attributes
    ----------
    file : int
        Number of its file: layers of one batch are all of one.
    seconds : float
        That it will take.
    reading : float
        Seconds that a worker needs to read the file.
    """

    file: int
    seconds: float
    reading: float = 0.0


def batches(loads: Sequence[Load], workers: int, longest: float | None = None) -> list[list[int]]:
    """Divide layers into batches, in the order in which workers should take them.

    Parameters
    ----------
    loads : sequence of Load
        The layers.
    workers : int
        How many share them.
    longest : float, optional
        Seconds that no batch of several layers may be expected to take.

    Returns
    -------
    list of list of int
        Places in `loads`, each exactly once: the costliest batch first, within it the costliest layer.

    Examples
    --------
    >>> batches([Load(file=0, seconds=s) for s in (0.1, 9.0, 0.2, 0.1)], workers=1)
    [[1], [2, 0, 3]]
    """
    share = sum(load.seconds for load in loads) / (SHARE * workers)
    open_batches: dict[int, list[int]] = {}
    filled: dict[int, float] = {}
    found: list[list[int]] = []
    for place in sorted(range(len(loads)), key=lambda i: -loads[i].seconds):
        load = loads[place]
        most = min(max(SECONDS, READS * load.reading), share, longest or share)
        if load.file in open_batches and filled[load.file] + load.seconds <= most:
            open_batches[load.file].append(place)
            filled[load.file] += load.seconds
        else:
            open_batches[load.file] = [place]
            filled[load.file] = load.seconds
            found.append(open_batches[load.file])
    return sorted(found, key=lambda batch: -sum(loads[i].seconds for i in batch))
