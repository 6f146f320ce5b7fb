"""Results on disk, one small file per layer: whole or not there, and found again by what they are a function of."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
from pathlib import Path
from typing import Any

import numpy as np

from spectral_conv._whole_file import write_whole
from spectral_conv.inspection._analysis import OUT_OF_MEMORY, Settings
from spectral_conv.operator import ConvOperator
from spectral_conv.report.record import LayerReport
from spectral_conv.report.stored import restored_report, stored_report

SCHEMA = 1


def record_key(conv: ConvOperator, settings: Settings) -> str:
    """Return the name of a layer's result: a digest of all that it is a function of.

    Parameters
    ----------
    conv : ConvOperator
        The layer; its name and its file do not count, so that equal layers of several models share a result.
    settings : Settings
        What was asked for.

    Returns
    -------
    str
        64 hexadecimal digits, SHA-256 over geometry, settings, version of the package and the float64 kernel.

    Examples
    --------
    >>> one, same, other = (ConvOperator([[[[x]]]], (4, 4)) for x in (2.0, 2.0, 3.0))
    >>> keys = [record_key(conv, Settings()) for conv in (one, same, other)]
    >>> keys[0] == keys[1], keys[0] == keys[2]
    (True, False)
    """
    limit = None if settings.memory_limit is None else float(settings.memory_limit)
    about = {
        "schema": SCHEMA,
        "version": _version(),
        "geometry": dataclasses.asdict(conv.geometry),
        "settings": dataclasses.asdict(settings) | {"memory_limit": limit},
    }
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    digest.update(np.ascontiguousarray(conv.kernel, dtype="<f8").data)
    return digest.hexdigest()


def keep_record(folder: Path, key: str, report: LayerReport) -> None:
    """Write a result, unless memory ran out: another attempt may find more.

    Raises
    ------
    OSError
        It cannot be written.
    """
    if any((reason or "").startswith(OUT_OF_MEMORY) for reason in _reasons(report)):
        return
    stored = stored_report(report)
    content = json.dumps({"sha256": _checksum(key, stored), "report": stored}).encode()
    file = _file(folder, key)
    file.parent.mkdir(exist_ok=True)
    write_whole(file, lambda opened: opened.write(content))


def find_record(folder: Path, key: str) -> LayerReport | None:
    """Return a result that was kept; None where there is none, or a damaged one, or that of another layer."""
    try:
        document = json.loads(_file(folder, key).read_bytes())
        stored = document["report"]
        return restored_report(stored) if document["sha256"] == _checksum(key, stored) else None
    except (FileNotFoundError, ValueError, LookupError, TypeError, AttributeError):
        return None


def _reasons(report: LayerReport) -> list[str | None]:
    return [report.sigma_max_reason, report.sigma_min_reason, report.circulant_reason, report.bounds_reason]


def _checksum(key: str, stored: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps([key, stored], sort_keys=True).encode()).hexdigest()


def _file(folder: Path, key: str) -> Path:
    # Folders of some thousand files at most, also for a million layers.
    return folder / key[:2] / f"{key}.json"


@functools.cache
def _version() -> str:
    return importlib.metadata.version("spectral-conv")
