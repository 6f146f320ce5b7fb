"""A deep plain classifier with and without the penalty `orthogonality_gap`: gradients, spectra, accuracy.

After P.-C. Guo, "A Frobenius norm regularization method for convolutional kernels to avoid unstable gradient
problem". Needs PyTorch::

    python examples/orthogonality_gap.py

Twelve convolutions of PyTorch's usual start values stretch most signals by less than 1, and half of what passes is
lost in each ReLU, so that little of the gradient reaches the first layer. The penalty ``||M^T M - alpha I||_F^2``,
summed over the layers, pulls the squares of all singular values towards alpha = 2, which makes up for the ReLU. (With
zero padding no kernels but those of a single tap get there.)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from _digits import Digits, load_digits
from _record import Settings, settings, spread
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional

from spectral_conv.torch import InvertibleDownsampling, SpectrumMonitor, regularize

DEPTH, CHANNELS, BLOCK = 12, 16, 4
WEIGHTS = {"without": 0.0, "with": 1e-3}
ALPHA = 2.0
BATCH, RATE = 128, 1e-3


@dataclass(frozen=True, kw_only=True)
class Course:
    """What one training showed: after each epoch, and before the first."""

    accuracy: list[float]
    gradients: list[list[float]]
    largest: list[list[float]]
    smallest: list[list[float]]


def network(side: int) -> nn.Sequential:
    """Blocks of pixels to channels, convolutions that keep the size, one matrix."""
    layers: list[nn.Module] = [InvertibleDownsampling(BLOCK)]
    for _ in range(DEPTH):
        layers += [nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(CHANNELS * (side // BLOCK) ** 2, 10))


def gradient_norms(net: nn.Sequential, images: Tensor, labels: Tensor) -> list[float]:
    """Norm of the derivative of the loss by the input of each convolution, the mean over samples."""
    inputs = []
    x = images
    for layer in net:
        if isinstance(layer, nn.Conv2d):
            x = x.requires_grad_(True) if not x.requires_grad else x
            inputs.append(x)
        x = layer(x)
    gradients = torch.autograd.grad(functional.cross_entropy(x, labels, reduction="sum"), inputs)
    return [gradient.flatten(1).norm(dim=1).mean().item() for gradient in gradients]


def accuracy(net: nn.Sequential, digits: Digits) -> float:
    """Share of test images that are classified rightly."""
    with torch.no_grad():
        return (net(digits.test_images).argmax(1) == digits.test_labels).double().mean().item()


def train(digits: Digits, weight: float, epochs: int, seed: int) -> Course:
    """Adam on cross entropy, plus the penalty if it has a weight."""
    torch.manual_seed(seed)
    net, shape = network(digits.side), tuple(digits.train_images.shape[1:])
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(net.parameters(), lr=RATE)
    images, labels = digits.train_images, digits.train_labels
    probe = images[:256], labels[:256]
    shown, gradients = [accuracy(net, digits)], [gradient_norms(net, *probe)]
    with SpectrumMonitor(net, shape, every=1, circulant=False) as monitor:
        monitor.step()
        for _ in range(epochs):
            for batch in torch.randperm(len(images), generator=generator).split(BATCH):
                loss = functional.cross_entropy(net(images[batch]), labels[batch])
                if weight:
                    loss = loss + regularize(net, {"orthogonality_gap": (weight, {"alpha": ALPHA})}, shape)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            monitor.step()
            shown.append(accuracy(net, digits))
            gradients.append(gradient_norms(net, *probe))
    spectra = monitor.history()
    return Course(
        accuracy=shown,
        gradients=gradients,
        largest=spectra["sigma_max"].values.tolist(),
        smallest=spectra["sigma_min"].values.tolist(),
    )


def draw(courses: dict[str, Course], run: Settings) -> None:
    """Gradients layer by layer, and both ends of all spectra over the epochs."""
    figure = Figure(figsize=(10.0, 3.0), layout="constrained")
    left, *others = figure.subplots(1, 3)
    layers = np.arange(1, DEPTH + 1)
    left.semilogy(layers, courses["with"].gradients[0], color="0.5", linestyle=":", label="before training")
    for color, (name, course) in zip(("C0", "C1"), courses.items(), strict=True):
        left.semilogy(layers, course.gradients[-1], color=color, label=f"{name} the penalty")
    left.set(title="gradient by a layer's input", xlabel="layer", ylabel="norm, mean over samples", xticks=layers)
    left.legend(fontsize="small")
    for axes, (name, course) in zip(others, courses.items(), strict=True):
        epochs = np.arange(len(course.largest))
        for color, label, values in (("C3", "largest", course.largest), ("C2", "smallest", course.smallest)):
            lines = axes.plot(epochs, values, color=color, linewidth=0.8)
            lines[0].set_label(f"{label}, of each layer")
        axes.axhline(ALPHA**0.5, color="0.7", linewidth=0.8, zorder=0)
        axes.set(title=f"{name} the penalty", xlabel="epoch", ylabel="singular values", xticks=epochs)
        axes.sharey(others[0])
    others[-1].legend(fontsize="small", loc="upper right")
    figure.savefig(run.output / f"{run.name}.png", dpi=110)


def summary(courses: list[Course]) -> dict[str, Any]:
    """Numbers of all seeds: accuracy, how much gradients differ from layer to layer, ends of the spectra."""
    return {
        "accuracy_by_epoch": [
            round(float(np.mean(row)), 4) for row in zip(*(c.accuracy for c in courses), strict=True)
        ],
        "accuracy": spread([c.accuracy[-1] for c in courses]),
        "largest_gradient_over_smallest": {
            when: spread([max(c.gradients[place]) / min(c.gradients[place]) for c in courses])
            for when, place in (("before", 0), ("after", -1))
        },
        "largest_singular_value": spread([max(c.largest[-1]) for c in courses]),
        "smallest_singular_value": spread([min(c.smallest[-1]) for c in courses]),
    }


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Train with and without the penalty, with all seeds; write the numbers and the figure."""
    run = settings(argv, __file__, "A plain classifier with and without a penalty.", epochs=5)
    digits = load_digits(run.samples)
    print(digits.source)
    courses: dict[str, list[Course]] = {name: [] for name in WEIGHTS}
    for seed in range(run.seeds):
        for name, weight in WEIGHTS.items():
            course = train(digits, weight, run.epochs, seed)
            courses[name].append(course)
            ratio = max(course.gradients[-1]) / min(course.gradients[-1])
            shown = f"accuracy {course.accuracy[-1]:.4f}, largest gradient / smallest {ratio:.3g}"
            print(f"{name} the penalty, seed {seed}: {shown}", flush=True)
    results = {
        "training": f"Adam, rate {RATE}, {BATCH} images at a time; penalty {WEIGHTS['with']}, alpha {ALPHA}",
        "courses": {name: summary(found) for name, found in courses.items()},
    }
    run.write(digits.source, **results)
    draw({name: found[0] for name, found in courses.items()}, run)
    return results


if __name__ == "__main__":
    main()
