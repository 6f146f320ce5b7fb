"""Draw the picture of the README, for light and for dark pages: ``python docs/figures/exact_and_fft.py``."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from spectral_conv import (
    ConvOperator,
    circulant_singular_values,
    models,
    read_model,
    singular_triplets,
    singular_values,
)

LAYER = "square.weight"
OUTPUT = Path(__file__).parents[1] / "_static"


@dataclass(frozen=True)
class Look:
    """Colours of a page."""

    ink: str
    exact: str
    fft: str
    ground: str


LOOKS = {
    "light": Look(ink="#24292f", exact="#0b62c4", fft="#c2540a", ground="#ffffff"),
    "dark": Look(ink="#d7dce2", exact="#6cb6ff", fft="#f0984b", ground="#131416"),
}


def layer() -> ConvOperator:
    """A square layer of the network that comes with the package."""
    data = files("spectral_conv") / "data"
    model = read_model(data / "digits.safetensors", layers=data / "digits.layers.json")
    return models.find_layer(model, LAYER).operator


def draw(conv: ConvOperator, look: Look) -> Figure:
    """All singular values in order, exact and by FFT, and the signal of which least is left."""
    style = dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), look.ink)
    with matplotlib.rc_context({**style, "font.size": 10, "svg.hashsalt": "spectral_conv"}):
        figure = Figure(figsize=(9.2, 3.6), layout="constrained")
        spectrum, image = figure.subplots(1, 2, width_ratios=[1.75, 1.0])
        exact = singular_values(conv)
        fft = np.sort(circulant_singular_values(conv).ravel())[::-1]
        rank = np.arange(1, exact.size + 1)
        spectrum.semilogy(rank, fft, color=look.fft, lw=2.0)
        spectrum.semilogy(rank, exact, color=look.exact, lw=2.0)
        spectrum.plot(rank[-1], exact[-1], "o", color=look.exact)
        spectrum.plot(rank[-1], fft[-1], "o", color=look.fft)
        told = {"va": "center", "ha": "right"}
        spectrum.text(990, exact[-1], f"exact: {exact[-1]:.1e}", color=look.exact, weight="bold", **told)
        spectrum.text(960, 0.55 * fft[-1], f"the FFT says {fft[-1]:.3f}", color=look.fft, weight="bold", **told)
        spectrum.set(
            xlabel="number, the largest first", ylabel="singular value", xlim=(0, 1060), xticks=range(0, 1001, 250)
        )
        spectrum.set_title(
            "All singular values of a trained layer (16 channels, 8 x 8 pixels)", loc="left", fontsize=10.5
        )
        spectrum.spines[["top", "right"]].set_visible(False)
        spectrum.patch.set_alpha(0.0)
        larger = ConvOperator(conv.kernel, input_shape=(24, 24))
        lost = singular_triplets(larger, which="smallest")
        image.imshow(np.sqrt((lost.right[0] ** 2).sum(axis=0)), cmap="magma", vmin=0.0)
        image.set(xticks=[], yticks=[])
        image.set_title("The signal it loses sits at the border", loc="left", fontsize=10.5)
        image.set_xlabel(f"same kernel on 24 x 24 pixels: {lost.values[0]:.1e}")
    return figure


def main() -> None:
    """Write both pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    folder = parser.parse_args().output
    conv = layer()
    for name, look in LOOKS.items():
        figure = draw(conv, look)
        target = folder / f"exact_and_fft_{name}.svg"
        figure.savefig(target, metadata={"Date": None}, facecolor=look.ground)


if __name__ == "__main__":
    main()
