"""Draw the floors of the package as an SVG in the colours of the page: ``python docs/figures/floors.py``.

The rooms are those of ``tests/test_layers.py``, which fails where an import goes up.
"""

from __future__ import annotations

import argparse
import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]
OUTPUT = ROOT / "docs" / "_static" / "floors.svg"
WIDTH, HEIGHT, GAP, LEFT = 720, 40, 8, 84
LETTER, MARGIN = 7.6, 12  # of a room's name, in pixels


def floors() -> list[list[str]]:
    """Rooms by floor, the lowest first."""
    found = runpy.run_path(str(ROOT / "tests" / "test_layers.py"))["FLOORS"]
    return [sorted(rooms, key=lambda room: (room.startswith("_"), room)) for rooms in found]


def draw(rooms_by_floor: list[list[str]]) -> str:
    """Return the drawing: a row per floor, the highest on top."""
    parts = []
    for number, rooms in enumerate(rooms_by_floor):
        top = GAP + (len(rooms_by_floor) - 1 - number) * (HEIGHT + GAP)
        parts.append(
            f'<rect class="floor" x="{LEFT}" y="{top}" width="{WIDTH - LEFT - 2}" height="{HEIGHT}" rx="6"/>'
        )
        parts.append(f'<text class="level" x="{LEFT - 12}" y="{top + 25}" text-anchor="end">L{number}</text>')
        x = LEFT + 10.0
        for room in rooms:
            width = LETTER * len(room) + 2 * MARGIN
            parts.append(f'<rect class="room" x="{x:.1f}" y="{top + 7}" width="{width:.1f}" height="26" rx="4"/>')
            parts.append(f'<text x="{x + width / 2:.1f}" y="{top + 25}" text-anchor="middle">{room}</text>')
            x += width + 8
    bottom = GAP + len(rooms_by_floor) * (HEIGHT + GAP)
    parts.append(f'<path class="arrow" d="M 26 {GAP + 10} V {bottom - 22} m -6 -9 l 6 10 l 6 -10"/>')
    parts.append(f'<text class="level" transform="translate(16 {bottom / 2}) rotate(-90)">imports</text>')
    label = "The floors of the package; imports go down only"
    return (
        f'<svg class="floors" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom}" role="img" '
        f'aria-label="{label}">\n' + "\n".join(parts) + "\n</svg>\n"
    )


def main() -> None:
    """Write the drawing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.parse_args().output.write_text(draw(floors()), encoding="utf-8")


if __name__ == "__main__":
    main()
