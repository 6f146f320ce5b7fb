"""What was measured, kept as data beside its page: each benchmark as it last ran, with machine and date."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spectral_conv._whole_file import write_whole
from validation.benchmarks.timing import Row
from validation.checks.document import finite
from validation.checks.machine import machine
from validation.checks.page import render

SCHEMA = 1
VERDICTS = {"met": "✓ met", "missed": "✗ MISSED", "shown": ""}


def record(
    title: str, rows: Sequence[Row], remarks: Sequence[str], *, void: bool, seconds: float, options: Sequence[str]
) -> dict[str, Any]:
    """Return a benchmark as plain data; what is no finite number, such as the time of something given up, is null."""
    return {
        "title": title,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "options": list(options),
        "seconds": round(seconds, 1),
        "void": void,
        "rows": [
            {key: finite(value) if isinstance(value, float) else value for key, value in vars(row).items()}
            | {"verdict": row.verdict}
            for row in rows
        ],
        "remarks": list(remarks),
    }


def keep(page: Path, records: dict[str, dict[str, Any]]) -> None:
    """Put records in place of the older ones in the JSON file beside a page, and write the page anew from all.

    Raises
    ------
    OSError
        A file cannot be written.
    ValueError
        As in `kept`.
    """
    data = page.with_suffix(".json")
    found = kept(page) | records
    document = {"schema": SCHEMA, "benchmarks": found}
    page.parent.mkdir(parents=True, exist_ok=True)
    for path, text in (
        (data, json.dumps(document, indent=1, allow_nan=False) + "\n"),
        (page, benchmarks_page(found)),
    ):
        write_whole(path, lambda file, text=text: file.write(text.encode()))


def benchmarks_page(records: dict[str, dict[str, Any]]) -> str:
    """Write the page: a table per benchmark, ours and theirs side by side."""
    return render("benchmarks.html", title="What was measured", records=records, words=VERDICTS)


def kept(page: Path) -> dict[str, dict[str, Any]]:
    """Return the records beside a page; none where there are none yet.

    Raises
    ------
    ValueError
        The page would not end in .html, or the JSON file is something else.
    """
    if page.suffix != ".html":
        raise ValueError(f"`--page` must end in .html; got {page}.")
    path = page.with_suffix(".json")
    if not path.exists():
        return {}
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        is_ours = document["schema"] == SCHEMA and isinstance(document["benchmarks"], dict)
    except (ValueError, KeyError, TypeError):
        is_ours = False
    if not is_ours:
        raise ValueError(f"`--page` must have no JSON file beside it but its own; got {path}. Choose another name.")
    found: dict[str, dict[str, Any]] = document["benchmarks"]
    return found
