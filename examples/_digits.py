"""Handwritten digits: MNIST's test file where it lies beside the repository, else scikit-learn's digits."""

import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

MNIST = Path(__file__).resolve().parents[2] / "shared" / "data" / "datasets"
TEST = 2000


@dataclass(frozen=True, kw_only=True)
class Digits:
    """Images ``(samples, 1, side, side)`` with values in [0, 1], labels ``(samples,)``, and what they are."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    source: str

    @property
    def side(self) -> int:
        """Height and width of an image."""
        return self.train_images.shape[-1]


def load_digits(samples: int | None = None) -> Digits:
    """All images, or `samples` to train and a quarter as many to test."""
    if MNIST.is_dir():
        images, labels, name = *_mnist(), "MNIST's test file (its 60,000 training images are not used)"
    else:
        images, labels, name = (
            *_scikit_learn(),
            "scikit-learn's digits (MNIST's test file is missing)",
        )
    test = min(TEST, len(labels) // 4)
    train = len(labels) - test
    if samples is not None:
        train, test = min(train, samples), min(test, max(samples // 4, 1))
    # One split for all seeds: what varies from seed to seed is the network.
    order = np.random.default_rng(0).permutation(len(labels))
    rows, other = order[:train], order[len(order) - test :]
    return Digits(
        train_images=torch.from_numpy(images[rows])[:, None],
        train_labels=torch.from_numpy(labels[rows]),
        test_images=torch.from_numpy(images[other])[:, None],
        test_labels=torch.from_numpy(labels[other]),
        source=f"{name}: {train:,} images to train, {test:,} to test",
    )


def _mnist() -> tuple[np.ndarray, np.ndarray]:
    with gzip.open(MNIST / "mnist-t10k-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)
    with gzip.open(MNIST / "mnist-t10k-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    return (images / 255.0).astype(np.float32), labels.astype(np.int64)


def _scikit_learn() -> tuple[np.ndarray, np.ndarray]:
    try:
        from sklearn import datasets
    except ImportError:
        raise SystemExit(
            "Skipped: there are no digits. Install scikit-learn (pip install scikit-learn) for its small ones."
        ) from None
    found = datasets.load_digits()
    return (found.images / 16.0).astype(np.float32), found.target.astype(np.int64)
