"""Read hundreds of damaged copies of model files: a model or a clear error, in time, and nothing else.

``python -m validation.fuzz [copies=300] [suffix ...]``; exit code 1 where a copy led to anything else. Files come
from the folder `shared` beside the repository where there is one, and from the package.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
import tracemalloc
import warnings
from collections import Counter
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import numpy as np

from spectral_conv import ModelError, read_model

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "models"
# Smaller files are read faster, and more of their bytes matter.
LARGEST = 3_000_000
SECONDS, BYTES = 10.0, 2e9


def samples() -> Iterator[Path]:
    """The smallest file of every suffix, and an .npz archive made here."""
    found: dict[str, Path] = {}
    own = Path(str(files("spectral_conv") / "data" / "digits.safetensors"))
    there = sorted(SHARED.iterdir(), key=lambda path: path.stat().st_size) if SHARED.is_dir() else []
    for path in [own, *there]:
        if path.suffix != ".json" and path.stat().st_size <= LARGEST:
            found.setdefault(path.suffix, path)
    archive = Path(tempfile.mkdtemp()) / "weights.npz"
    np.savez(archive, **{"conv.weight": np.random.default_rng(0).standard_normal((4, 3, 3, 3))})
    yield archive
    yield from found.values()


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Cut the end off, flip some bits, or overwrite a run of bytes."""
    kind = rng.randrange(4)
    if kind == 0:
        return content[: rng.randrange(len(content))]
    copy = bytearray(content)
    # Headers are where damage does most.
    reach = len(copy) if kind == 1 else min(len(copy), 4096)
    if kind < 3:
        for _ in range(rng.choice([1, 4, 32])):
            copy[rng.randrange(reach)] ^= 1 << rng.randrange(8)
    else:
        start = rng.randrange(reach)
        copy[start : start + 8] = rng.choice([b"\xff" * 8, b"\x00" * 8, rng.randbytes(8)])
    return bytes(copy)


def check(path: Path) -> str:
    """Read one file; say what came of it, or raise `AssertionError`."""
    start = time.perf_counter()
    tracemalloc.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model = read_model(path)
        outcome = "partial" if model.skipped else "read"
    except ModelError as error:
        outcome = "refused" if str(error).strip() else "refused without words"
    except Exception as error:
        raise AssertionError(f"{type(error).__name__}: {error}") from error
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    seconds = time.perf_counter() - start
    assert outcome != "refused without words", outcome
    assert seconds <= SECONDS, f"took {seconds:.1f} s"
    assert peak <= BYTES, f"took {peak / 1e9:.1f} GB"
    return outcome


def main(words: list[str]) -> int:
    """Print a line per format and per failure."""
    copies = int(words[0]) if words else 300
    failures = 0
    for sample in samples():
        if words[1:] and sample.suffix not in words[1:]:
            continue
        content, rng, outcomes = sample.read_bytes(), random.Random(0), Counter[str]()
        with tempfile.TemporaryDirectory() as folder:
            for number in range(copies):
                path = Path(folder) / f"copy{number}{sample.suffix}"
                path.write_bytes(damaged(content, rng))
                try:
                    outcomes[check(path)] += 1
                except AssertionError as error:
                    failures += 1
                    print(f"{sample.name}, copy {number}: {error}", flush=True)
                path.unlink()
        counts = ", ".join(f"{count} {name}" for name, count in sorted(outcomes.items()))
        print(f"{sample.suffix}: {copies} copies of {sample.name}: {counts}", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
