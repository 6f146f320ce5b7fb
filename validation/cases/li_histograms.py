"""Four ways to stretch nothing: where their singular values lie.

OSSN divides a kernel by its norm, RKO orthogonalizes the reshaped kernel, SVCM clips singular values, BCOP builds
an orthogonal convolution. The paper shows the second layer of its large network before and after training: OSSN and
RKO push many values to 0, SVCM starts near 0.5 and pushes some towards 1, BCOP has all of them at 1. Here the maps
are applied to a random and to a trained kernel, and a small network is trained, for a shorter time.
"""

from __future__ import annotations

from importlib.resources import files

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from spectral_conv import ConvOperator, circulant_singular_values, orthogonal, read_model
from spectral_conv.models import find_layer
from validation.checks.cached import cached, provenance
from validation.checks.check import Check, at_least, at_most, between, skipped
from validation.checks.papers import LI
from validation.checks.picture import LINES, Picture

FIGURE = LI.at("Figure 2")
METHODS = ("OSSN", "RKO", "SVCM", "BCOP")
SIZE, CHANNELS, SCALE = 16, 16, 1 / 12  # of the random kernel: its norm is about 2, as wide layers start
LOW = 0.5
PUSHED = 0.5  # a smallest value that falls by less than half was not pushed to 0
KINDS = ("random kernel", "trained kernel")


def run() -> list[Check]:
    """Map a random and a trained kernel by all four, then read what training made of them."""
    spectra = {kind: {method: mapped(method, kernel) for method in METHODS} for kind, kernel in kernels().items()}
    histograms = Picture(
        title="All circular singular values after each map",
        text=f"16 to 16 channels, 3 x 3, {SIZE} x {SIZE} pixels: share of the values by size, of a random kernel and "
        "of the square layer of a network trained on digits.",
        draw=lambda figure: _draw(figure, spectra),
        size=(7.2, 3.9),
    )
    results = cached("certified_mnist")
    ends, note = results["singular_values_of_conv2"], provenance(results)
    trained = Picture(
        title="Second layer before and after training",
        text="Smallest, median and largest circular singular value of the second convolution of the small network on "
        "MNIST, by method.",
        draw=lambda figure: _draw_ends(figure, ends),
    )
    largest = max(float(values.max()) for found in spectra.values() for values in found.values())
    text = "None of the four stretches anything: excess of the largest value over 1"
    checks = [at_most(text, FIGURE, largest - 1.0, 1e-5, picture=histograms)]
    for kind, found in spectra.items():
        off = float(np.abs(found["BCOP"] - 1.0).max())
        checks.append(
            at_most(f"BCOP, {kind}: all values are 1; largest distance", FIGURE, off, 1e-12, picture=histograms)
        )
        for method in ("OSSN", "RKO"):
            share = float((found[method] < LOW).mean())
            text = f"{method}, {kind}: share of values below {LOW}"
            checks.append(at_least(text, FIGURE, share, 0.5, picture=histograms))
        medians = [float(np.median(found[method])) for method in ("SVCM", "OSSN")]
        text = f"SVCM, {kind}: its median over that of OSSN"
        checks.append(at_least(text, FIGURE, medians[0] / medians[1], 1.0, picture=histograms))
    checks.append(
        between(
            "SVCM before training: its median lies near 0.5",
            FIGURE,
            ends["SVCM"]["before"]["median"],
            0.4,
            0.6,
            note=note,
            picture=trained,
        )
    )
    for method in ("OSSN", "RKO"):
        before, after = (ends[method][when]["smallest"] for when in ("before", "after"))
        text = f"{method}: training pushes values to 0; the smallest after over that before"
        if after <= PUSHED * before:
            checks.append(at_most(text, FIGURE, after / before, PUSHED, note=note, picture=trained))
        else:
            reason = f"not reproduced by this short training: from {before:.3g} to {after:.3g}"
            checks.append(skipped(text, FIGURE, reason, note=note, picture=trained))
    rise = ends["SVCM"]["after"]["largest"] - ends["SVCM"]["before"]["largest"]
    text = "SVCM: training pushes values up to 1; rise of the largest"
    checks.append(at_least(text, FIGURE, rise, 1e-4, note=note, picture=trained))
    distance = max(abs(value - 1.0) for when in ends["BCOP"].values() for value in when.values())
    checks.append(
        at_most(
            "BCOP: all values are 1 before and after; largest distance, rounded to 1e-4",
            FIGURE,
            distance,
            0.0,
            note=note,
            picture=trained,
        )
    )
    return checks


def kernels() -> dict[str, NDArray[np.floating]]:
    """A Gaussian kernel, and the trained one of the network that the package brings along."""
    data = files("spectral_conv") / "data"
    model = read_model(data / "digits.safetensors", layers=data / "digits.layers.json")
    trained = find_layer(model, "square.weight").operator.kernel.astype(np.float64)
    random = SCALE * np.random.default_rng(0).standard_normal((3, 3, CHANNELS, CHANNELS))
    return dict(zip(KINDS, (random, trained), strict=True))


def mapped(method: str, kernel: NDArray[np.floating]) -> NDArray[np.floating]:
    """All circular singular values of the kernel that a method makes of another."""
    conv = ConvOperator(kernel, (SIZE, SIZE), padding_mode="circular")
    if method == "BCOP":
        found = orthogonal.sample_bcop(3, CHANNELS, CHANNELS, rng=0)  # it has free parameters of its own
    elif method == "SVCM":
        found = orthogonal.svcm(conv).kernel
    else:
        found = orthogonal.ossn(conv) if method == "OSSN" else orthogonal.rko(kernel)
    return circulant_singular_values(conv.with_kernel(found)).ravel()


def _draw(figure: Figure, spectra: dict[str, dict[str, NDArray[np.floating]]]) -> None:
    panels = figure.subplots(2, 2, sharex=True, sharey=True)
    bins = np.linspace(0.0, 1.05, 43)
    for ax, method in zip(panels.flat, METHODS, strict=True):
        for colour, hatch, (kind, found) in zip(LINES[1::-1], ("", "//"), spectra.items(), strict=True):
            weights = np.full(found[method].size, 1.0 / found[method].size)
            ax.hist(
                found[method],
                bins,
                weights=weights,
                histtype="step",
                hatch=hatch,
                color=colour,
                linewidth=1.1,
                label=kind,
            )
        ax.set_title(method, fontsize="medium")
        ax.set_yscale("log")
        ax.grid(alpha=0.35)
    panels[0, 0].legend(frameon=False, fontsize="x-small")
    figure.supxlabel("singular value (dimensionless)", fontsize="medium")
    figure.supylabel("share of the values (dimensionless)", fontsize="medium")


def _draw_ends(figure: Figure, ends: dict[str, dict[str, dict[str, float]]]) -> None:
    ax = figure.add_subplot()
    for place, method in enumerate(METHODS):
        for colour, shift, when in zip(LINES[1::-1], (-0.13, 0.13), ("before", "after"), strict=True):
            found, x = ends[method][when], place + shift
            label = f"{when} training" if place == 0 else None
            ax.plot([x, x], [found["smallest"], found["largest"]], "_-", color=colour, markersize=9, label=label)
            ax.plot(x, found["median"], "o", color=colour, markersize=5)
    ax.set_xticks(range(len(METHODS)), METHODS)
    ax.set(xlabel="method", ylabel="singular value (dimensionless)", ylim=(0.0, 1.08))
    ax.grid(alpha=0.35, axis="y")
    ax.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(0.0, 0.95))
