"""What every example writes: a JSON file that says how its numbers came about."""

import argparse
import json
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How large a run is, where its files go, and the command that repeats it."""

    name: str
    epochs: int
    seeds: int
    samples: int | None
    output: Path
    command: str
    started: float

    def write(self, data: str, **results: Any) -> None:
        """Write ``<name>.json``: settings, versions and minutes before the results."""
        document = {
            "command": self.command,
            "minutes": round((time.perf_counter() - self.started) / 60.0, 1),
            "versions": {
                "python": platform.python_version(),
                **{name: version(name) for name in ("numpy", "torch", "spectral-conv")},
            },
            "data": data,
            "epochs": self.epochs,
            "seeds": list(range(self.seeds)),
            **results,
        }
        self.output.mkdir(parents=True, exist_ok=True)
        path = self.output / f"{self.name}.json"
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        print(f"wrote {path.name} after {document['minutes']} minutes")


def settings(argv: Sequence[str] | None, script: str, about: str, *, epochs: int, seeds: int = 3) -> Settings:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--epochs", type=int, default=epochs, help="passes over the training set (%(default)s)")
    parser.add_argument("--seeds", type=int, default=seeds, help="runs of each kind (%(default)s)")
    parser.add_argument("--samples", type=int, help="images to train with (all)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the JSON file and the figure")
    given = parser.parse_args(argv)
    torch.set_num_threads(1)
    path = Path(script)
    chosen = [f"--epochs {given.epochs}", f"--seeds {given.seeds}"]
    chosen += [] if given.samples is None else [f"--samples {given.samples}"]
    return Settings(
        name=path.stem,
        epochs=given.epochs,
        seeds=given.seeds,
        samples=given.samples,
        output=given.output,
        command=" ".join([f"python examples/{path.name}", *chosen]),
        started=time.perf_counter(),
    )


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean, sample deviation (None of a single run) and the values themselves, to five digits."""
    deviation = float(f"{np.std(values, ddof=1):.5g}") if len(values) > 1 else None
    return {
        "mean": float(f"{np.mean(values):.5g}"),
        "deviation": deviation,
        "values": [float(f"{value:.5g}") for value in values],
    }


def compared(first: Sequence[float], second: Sequence[float]) -> str:
    """Which has the larger mean; "undecided" within twice the root of the sum of both squared deviations."""
    if min(len(first), len(second)) < 2:
        return "undecided"
    deviation = float(np.hypot(np.std(first, ddof=1), np.std(second, ddof=1)))
    gap = float(np.mean(first) - np.mean(second))
    if abs(gap) <= 2.0 * deviation:
        return "undecided"
    return "larger" if gap > 0.0 else "smaller"
