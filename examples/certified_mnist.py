"""Certified classifiers of digits: four ways to keep convolutions from stretching anything, compared.

After Li et al., "Preventing Gradient Attenuation in Lipschitz Constrained Convolutional Networks" (NeurIPS 2019,
arXiv:1911.00937), Table 1 and Figure 2, with far fewer images and updates than theirs. Needs PyTorch::

    python examples/certified_mnist.py

Clean accuracy, accuracy certified within 1.58 by the exact norms of the layers, accuracy under two attacks of that
length, and the singular values of the second convolution before and after training.
"""

import copy
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from _digits import Digits, load_digits
from _lipschitz import LipschitzNet
from _record import Settings, compared, settings, spread
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from spectral_conv import circulant_singular_values
from spectral_conv.certification import certified_accuracy, certified_radius
from spectral_conv.torch import MaxMin

# Mean and deviation of the certified accuracy in Table 1 ("Small"), in their order.
PAPER = {"BCOP": (0.4584, 0.0090), "RKO": (0.4358, 0.0044), "OSSN": (0.4295, 0.0109), "SVCM": (0.2894, 0.0158)}
METHODS = tuple(PAPER)
RADIUS = 1.58
MARGIN = 2.12
# Attacks keep this far inside the ball, so that rounding cannot put them outside.
INSIDE = RADIUS * (1.0 - 1e-5)
BATCH, RATE, LAST_RATE = 128, 1e-3, 1e-5
PROJECT_EVERY = 100
STEPS = 20
ATTACKED = 250


def train(net: LipschitzNet, digits: Digits, epochs: int, seed: int) -> None:
    """Adam on the multi-class hinge loss, the rate falling exponentially."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(net.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, (LAST_RATE / RATE) ** (1.0 / epochs))
    images, labels = digits.train_images, digits.train_labels
    updates = 0
    for _ in range(epochs):
        for batch in torch.randperm(len(images), generator=generator).split(BATCH):
            loss = functional.multi_margin_loss(net(images[batch]), labels[batch], margin=MARGIN)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            updates += 1
            if net.method == "SVCM" and updates % PROJECT_EVERY == 0:
                net.project()
        schedule.step()


def attack_losses(net: LipschitzNet, images: Tensor, labels: Tensor) -> Tensor:
    """Best logit of another class minus that of the label (the loss of Carlini and Wagner); positive: it is wrong."""
    logits = net(images)
    own = logits.gather(1, labels[:, None])
    return logits.scatter(1, labels[:, None], -torch.inf).amax(1) - own[:, 0]


def direction(net: LipschitzNet, images: Tensor, labels: Tensor) -> Tensor:
    """Unit gradients of the losses by the images."""
    images = images.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(attack_losses(net, images, labels).sum(), images)
    return gradient / norms(gradient).clamp_min(1e-12)


def norms(images: Tensor) -> Tensor:
    """Euclidean norm of each image, ``(samples, 1, 1, 1)``."""
    return images.flatten(1).norm(dim=1)[:, None, None, None]


def fast_gradient(net: LipschitzNet, images: Tensor, labels: Tensor) -> Tensor:
    """One step along the gradient, cut to [0, 1]: the images after it."""
    return (images + INSIDE * direction(net, images, labels)).clamp(0.0, 1.0)


def projected_gradient(net: LipschitzNet, images: Tensor, labels: Tensor, seed: int) -> Tensor:
    """Steps along the gradient, each projected to the ball and cut to [0, 1]: of each image the worst one met."""
    start = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
    moved = (images + INSIDE * start / norms(start)).clamp(0.0, 1.0)
    worst, highest = images, attack_losses(net, images, labels)
    for _ in range(STEPS):
        step = moved + 2.5 * RADIUS / STEPS * direction(net, moved, labels) - images
        step = step * (INSIDE / norms(step).clamp_min(INSIDE))
        # Both sets are convex and hold the image itself: cutting moves nearer to it.
        moved = (images + step).clamp(0.0, 1.0)
        losses = attack_losses(net, moved, labels)
        worst = torch.where((losses > highest)[:, None, None, None], moved, worst)
        highest = torch.maximum(losses, highest)
    return worst


def evaluate(net: LipschitzNet, digits: Digits, seed: int) -> dict[str, float]:
    """Accuracies of a frozen network; a certificate that an attack breaks ends the program."""
    images, labels = digits.test_images, digits.test_labels
    proof = net.proof()
    logits = net(images.double()).numpy()
    certified = torch.from_numpy((logits.argmax(1) == labels.numpy()) & (certified_radius(logits, proof) > RADIUS))
    # Attacks are searched in single precision, a few images at a time; whether they succeed is seen in double.
    single = copy.deepcopy(net).float()
    attacks = {"pgd": lambda x, y: projected_gradient(single, x, y, seed), "fgsm": partial(fast_gradient, single)}
    stands = {}
    for name, attack in attacks.items():
        batches = zip(images.split(ATTACKED), labels.split(ATTACKED), strict=True)
        moved = torch.cat([attack(x, y) for x, y in batches]).double()
        stands[name] = attack_losses(net, moved, labels) < 0.0
        if norms(moved - images.double()).max() > RADIUS:
            raise SystemExit(f"An image was moved farther than {RADIUS} by {name}.")
        if (certified & ~stands[name]).any():
            raise SystemExit(f"{int((certified & ~stands[name]).sum())} certified samples did not stand {name}.")
    return {
        "clean": certified_accuracy(logits, labels.numpy(), proof, 0.0),
        "certified": certified_accuracy(logits, labels.numpy(), proof, RADIUS),
        **{name: right.double().mean().item() for name, right in stands.items()},
        "lipschitz": proof.value,
    }


def order(certified: dict[str, list[float]]) -> dict[str, str]:
    """What the runs say of each pair that the paper orders."""
    words = {"larger": "as in the paper", "smaller": "the other way round", "undecided": "undecided"}
    return {
        f"{first} > {second}": words[compared(certified[first], certified[second])]
        for i, first in enumerate(METHODS)
        for second in METHODS[i + 1 :]
    }


def draw(spectra: dict[str, list[NDArray[np.floating]]], run: Settings) -> None:
    """Singular values of the second convolution before and after training, method by method."""
    figure = Figure(figsize=(9.0, 2.6), layout="constrained")
    edges = np.linspace(-0.01, 1.03, 53)  # 1 lies inside of a bin
    panels = figure.subplots(1, len(spectra), sharey=True)
    for axes, (method, (before, after)) in zip(panels, spectra.items(), strict=True):
        axes.hist(before, edges, histtype="stepfilled", alpha=0.5, label="before training")
        axes.hist(after, edges, histtype="stepfilled", alpha=0.5, label="after training")
        axes.set(title=method, xlabel="singular value", yscale="log")
    figure.axes[0].set_ylabel("number")
    figure.axes[0].legend(loc="upper left", fontsize="small")
    figure.savefig(run.output / f"{run.name}.png", dpi=110)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Train and evaluate all methods with all seeds; write the numbers and the figure."""
    run = settings(argv, __file__, "Certified classifiers of digits.", epochs=10)
    digits = load_digits(run.samples)
    print(digits.source)
    scores: dict[str, list[dict[str, float]]] = {method: [] for method in METHODS}
    spectra = {}
    for seed in range(run.seeds):
        for method in METHODS:
            torch.manual_seed(seed)
            net = LipschitzNet(digits.side, 10, method, MaxMin())
            before = circulant_singular_values(net.frozen().convolutions()[1]).ravel()
            train(net, digits, run.epochs, seed)
            frozen = net.frozen()
            scores[method].append(evaluate(frozen, digits, seed))
            if seed == 0:
                spectra[method] = [before, circulant_singular_values(frozen.convolutions()[1]).ravel()]
            shown = ", ".join(f"{name} {value:.4f}" for name, value in scores[method][-1].items())
            print(f"{method} seed {seed}: {shown}", flush=True)
    table = {
        method: {name: spread([score[name] for score in found]) for name in found[0]}
        for method, found in scores.items()
    }
    values = {
        method: {
            when: dict(zip(("smallest", "median", "largest"), np.quantile(found, (0, 0.5, 1)).round(4), strict=True))
            for when, found in zip(("before", "after"), pair, strict=True)
        }
        for method, pair in spectra.items()
    }
    verdict = order({method: [score["certified"] for score in found] for method, found in scores.items()})
    for pair, word in verdict.items():
        print(f"{pair}: {word}")
    optimizer = f"Adam, {BATCH} images at a time, rate {RATE} falling to {LAST_RATE}"
    results = {
        "training": f"hinge loss, margin {MARGIN}; {optimizer}",
        "radius": RADIUS,
        "methods": table,
        "certified_in_the_paper": PAPER,
        "order_of_certified": verdict,
        "singular_values_of_conv2": values,
    }
    run.write(digits.source, **results)
    draw(spectra, run)
    return results


if __name__ == "__main__":
    main()
