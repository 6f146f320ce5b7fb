"""Wasserstein distances by critics that certainly stretch nothing: six kinds, on a distance that is known.

After Li et al., "Preventing Gradient Attenuation in Lipschitz Constrained Convolutional Networks" (NeurIPS 2019,
arXiv:1911.00937), Section 5.3 and Table 4. Needs PyTorch::

    python examples/wasserstein_digits.py

Between digits x and the same digits plus a fixed image c the distance is ``||c||``. No critic f of Lipschitz constant
L can say more: ``mean f(x + c) - f(x) <= L ||c||``. How near it comes tells what its layers leave of the gradients.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from _digits import Digits, load_digits
from _lipschitz import MAPS, LipschitzNet
from _record import compared, settings, spread
from torch import Tensor, nn

from spectral_conv.torch import MaxMin

ACTIVATIONS = {"MaxMin": MaxMin, "ReLU": nn.ReLU}
DISTANCE = 5.0
BATCH, RATE = 128, 1e-3


def shift(side: int) -> Tensor:
    """The image c: noise of a fixed seed, of norm `DISTANCE`."""
    noise = np.random.default_rng(0).standard_normal((1, side, side))
    return torch.from_numpy((DISTANCE / np.linalg.norm(noise) * noise).astype(np.float32))


def train(critic: LipschitzNet, digits: Digits, epochs: int, seed: int) -> None:
    """Adam on the mean difference of the critic between the two sets of digits, drawn independently."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(critic.parameters(), lr=RATE)
    images = digits.train_images
    moved = images + shift(digits.side)
    for _ in range(epochs):
        here, there = (torch.randperm(len(images), generator=generator).split(BATCH) for _ in range(2))
        for first, second in zip(here, there, strict=True):
            found = critic(torch.cat([images[first], moved[second]]))
            loss = found[: len(first)].mean() - found[len(first) :].mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def estimate(critic: LipschitzNet, digits: Digits) -> dict[str, float]:
    """The mean difference on test images over the proved Lipschitz constant: a lower bound of the distance."""
    images = digits.test_images.double()
    c = shift(digits.side).double()
    constant = critic.proof().value
    found = (critic(images + c) - critic(images)).mean().item() / constant
    if found > c.norm().item():
        raise SystemExit(f"The estimate {found} exceeds the distance {c.norm().item()}: a theorem is broken.")
    return {"estimate": found, "share": found / c.norm().item(), "lipschitz": constant}


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Train all critics with all seeds; write the numbers."""
    run = settings(argv, __file__, "Wasserstein distances between digits and shifted digits.", epochs=3)
    digits = load_digits(run.samples)
    print(digits.source)
    scores: dict[str, list[dict[str, float]]] = {f"{method} {name}": [] for method in MAPS for name in ACTIVATIONS}
    for seed in range(run.seeds):
        for method in MAPS:
            for name, activation in ACTIVATIONS.items():
                torch.manual_seed(seed)
                critic = LipschitzNet(digits.side, 1, method, activation())
                train(critic, digits, run.epochs, seed)
                score = estimate(critic.frozen(), digits)
                scores[f"{method} {name}"].append(score)
                print(f"{method} {name} seed {seed}: {score['estimate']:.4f} of {DISTANCE}", flush=True)
    table = {
        kind: {name: spread([score[name] for score in found]) for name in found[0]} for kind, found in scores.items()
    }
    shares = {kind: [score["share"] for score in found] for kind, found in scores.items()}
    words = {"larger": "yes", "smaller": "no", "undecided": "undecided"}
    order = {
        **{f"{m}: MaxMin > ReLU": words[compared(shares[f"{m} MaxMin"], shares[f"{m} ReLU"])] for m in MAPS},
        **{
            f"{name}: {a} > {b}": words[compared(shares[f"{a} {name}"], shares[f"{b} {name}"])]
            for name in ACTIVATIONS
            for a, b in (("BCOP", "RKO"), ("RKO", "OSSN"))
        },
    }
    for pair, word in order.items():
        print(f"{pair}: {word}")
    results = {
        "training": f"Adam, rate {RATE}, {BATCH} images of each kind at a time",
        "distance": DISTANCE,
        "kinds": table,
        "as_in_the_paper": order,
    }
    run.write(digits.source, **results)
    return results


if __name__ == "__main__":
    main()
