"""Train the small network that ``spectral-conv demo`` inspects, and write it into the package.

A developer's tool: it needs ``torch`` and ``scikit-learn``, which the package itself does not. Run it from
the repository root; seeds are fixed, one thread is used, and on one machine the same files come out again::

    python examples/train_digits.py

The data are the "Optical Recognition of Handwritten Digits" of E. Alpaydin and C. Kaynak (UCI Machine
Learning Repository), as distributed with scikit-learn: 1,797 images of 8 x 8 pixels in ten classes.
"""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional

SEED = 20
EPOCHS = 80
BATCH = 64
OUTPUT = Path(__file__).resolve().parents[1] / "spectral_conv" / "data"
CREDIT = (
    "Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, "
    "as distributed with scikit-learn (sklearn.datasets.load_digits)"
)


class DigitNet(nn.Module):
    """Six convolutions, one of each kind that people meet, then global pooling and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1)
        # Two square layers: as many channels out as in, the case where zero padding sends the smallest
        # singular value towards zero while the FFT knows nothing of it.
        self.square = nn.Conv2d(16, 16, 3, padding=1)
        self.dilated = nn.Conv2d(16, 16, 3, padding=2, dilation=2)
        self.down = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.pointwise = nn.Conv2d(32, 32, 1)
        self.head = nn.Linear(32, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (samples, 10) of images (samples, 1, 8, 8) with values in [0, 1]."""
        x = functional.relu(self.stem(images))
        x = functional.relu(self.square(x))
        x = functional.relu(self.dilated(x))
        x = functional.relu(self.down(x))
        x = functional.relu(self.pointwise(self.depthwise(x)))
        return self.head(x.mean(dim=(2, 3)))


def augment(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Shift every image by at most one pixel per axis, and add a little noise."""
    shifted = functional.pad(images, (1, 1, 1, 1))
    row, column = torch.randint(0, 3, (2,), generator=generator).tolist()
    shifted = shifted[:, :, row : row + 8, column : column + 8]
    return shifted + 0.05 * torch.randn(images.shape, generator=generator)


def train(images: torch.Tensor, labels: torch.Tensor) -> DigitNet:
    """Train with AdamW and a one-cycle learning rate."""
    generator = torch.Generator().manual_seed(SEED)
    torch.manual_seed(SEED)
    net = DigitNet()
    steps = -(-len(images) // BATCH) * EPOCHS
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=steps)
    for epoch in range(EPOCHS):
        total = 0.0
        for batch in torch.randperm(len(images), generator=generator).split(BATCH):
            loss = functional.cross_entropy(net(augment(images[batch], generator)), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(batch)
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1:3d}: training loss {total / len(images):.4f}")
    return net.eval()


def accuracy(net: DigitNet, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of right answers."""
    with torch.no_grad():
        return (net(images).argmax(dim=1) == labels).double().mean().item()


def describe_layers(net: DigitNet, example: torch.Tensor) -> list[dict[str, object]]:
    """Geometry of every convolution, seen while one image passes through the network."""
    entries: list[dict[str, object]] = []

    def record(name: str, conv: nn.Conv2d, x: torch.Tensor, y: torch.Tensor) -> None:
        entries.append(
            {
                "weight": f"{name}.weight",
                "op": "conv",
                "layout": "OIHW",
                "shape": list(conv.weight.shape),
                "stride": list(conv.stride),
                "padding": [[int(p), int(p)] for p in conv.padding],
                "dilation": list(conv.dilation),
                "groups": conv.groups,
                "padding_mode": conv.padding_mode,
                "input_size": list(x.shape[2:]),
                "output_size": list(y.shape[2:]),
            }
        )

    hooks = [
        module.register_forward_hook(lambda m, x, y, name=name: record(name, m, x[0], y))
        for name, module in net.named_modules()
        if isinstance(module, nn.Conv2d)
    ]
    with torch.no_grad():
        net(example)
    for hook in hooks:
        hook.remove()
    return entries


def main() -> None:
    """Train, test, write."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    digits = load_digits()
    images = torch.from_numpy((digits.images / 16.0).astype(np.float32))[:, None]
    labels = torch.from_numpy(digits.target.astype(np.int64))
    train_rows, test_rows = train_test_split(
        np.arange(len(labels)), test_size=450, stratify=digits.target, random_state=SEED
    )
    net = train(images[train_rows], labels[train_rows])
    score = accuracy(net, images[test_rows], labels[test_rows])
    print(f"accuracy: training {accuracy(net, images[train_rows], labels[train_rows]):.4f}, test {score:.4f}")
    if score <= 0.95:
        raise SystemExit(f"test accuracy {score:.4f} is not above 0.95: nothing written")

    weights = {name: value.numpy() for name, value in net.state_dict().items()}
    document = {
        "name": "digits",
        "source": "trained by the spectral_conv project, examples/train_digits.py",
        "task": "classification of handwritten digits, 8 x 8 grey values",
        "data": CREDIT,
        "accuracy": round(score, 4),
        "accuracy_on": f"{len(test_rows)} test images, {len(train_rows)} to train",
        "native_input": [1, 8, 8],
        "original_file": "digits.safetensors",
        "layers": describe_layers(net, images[:1]),
    }
    OUTPUT.mkdir(exist_ok=True)
    save_file(weights, OUTPUT / "digits.safetensors", metadata={"format": "pt"})
    (OUTPUT / "digits.layers.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    for name in ("digits.safetensors", "digits.layers.json"):
        print(f"wrote spectral_conv/data/{name}: {(OUTPUT / name).stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
