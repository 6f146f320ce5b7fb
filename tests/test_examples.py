"""The examples run, on a few images, and would notice if what they claim were wrong."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from spectral_conv import spectral_norm

pytest.importorskip("torch", reason="the examples need PyTorch")

EXAMPLES = Path(__file__).parents[1] / "examples"
SHORT = ["--epochs", "1", "--samples", "200", "--seeds", "1", "--output"]


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.syspath_prepend(str(EXAMPLES))
    # The examples set the number of threads; the other tests keep theirs.
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)


@pytest.fixture
def digits() -> Any:
    found = import_module("_digits")
    if not found.MNIST.is_dir() and find_spec("sklearn") is None:
        pytest.skip("neither MNIST's test file lies beside the repository nor is scikit-learn installed")
    return found.load_digits(200)


def run(name: str, folder: Path) -> tuple[ModuleType, dict[str, Any]]:
    example = import_module(name)
    example.main([*SHORT, str(folder)])
    text = (folder / f"{name}.json").read_text(encoding="utf-8")
    assert str(folder) not in text
    document = json.loads(text)
    assert document["command"] == f"python examples/{name}.py --epochs 1 --seeds 1 --samples 200"
    assert {"minutes", "versions", "data", "training"} < set(document)
    return example, document


@pytest.mark.usefixtures("digits")
def test_certified_mnist(tmp_path: Path) -> None:
    example, document = run("certified_mnist", tmp_path)
    assert (tmp_path / "certified_mnist.png").stat().st_size > 1000
    assert set(document["order_of_certified"].values()) == {"undecided"}  # one seed says nothing
    for method in example.METHODS:
        found = {name: spread["mean"] for name, spread in document["methods"][method].items()}
        assert found["certified"] <= found["pgd"] <= found["clean"]
        assert found["certified"] <= found["fgsm"] <= found["clean"]
        assert 0.5 < found["lipschitz"] < 1.0 + 1e-4
    after = document["singular_values_of_conv2"]["BCOP"]["after"]
    assert after["smallest"] == pytest.approx(1.0, abs=1e-4)


@pytest.mark.usefixtures("digits")
def test_orthogonality_gap(tmp_path: Path) -> None:
    _, document = run("orthogonality_gap", tmp_path)
    assert (tmp_path / "orthogonality_gap.png").stat().st_size > 1000
    plain, penalized = document["courses"]["without"], document["courses"]["with"]
    # The same start, and after two updates the penalty shows.
    assert plain["accuracy_by_epoch"][0] == penalized["accuracy_by_epoch"][0]
    largest = "largest_gradient_over_smallest"
    assert plain[largest]["before"] == penalized[largest]["before"]
    assert plain["largest_singular_value"]["mean"] != penalized["largest_singular_value"]["mean"]


@pytest.mark.usefixtures("digits")
def test_wasserstein_digits(tmp_path: Path) -> None:
    _, document = run("wasserstein_digits", tmp_path)
    assert len(document["kinds"]) == 6
    for kind in document["kinds"].values():
        assert kind["share"]["mean"] <= 1.0
        assert kind["estimate"]["mean"] == pytest.approx(kind["share"]["mean"] * document["distance"], rel=1e-3)


def test_a_false_certificate_is_noticed(digits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    example = import_module("certified_mnist")
    torch.manual_seed(0)
    net = example.LipschitzNet(digits.side, 10, "SVCM", example.MaxMin()).frozen()
    monkeypatch.setattr(example, "certified_radius", lambda logits, proof: np.full(len(logits), np.inf))
    with pytest.raises(SystemExit, match="certified samples did not stand"):
        example.evaluate(net, digits, 0)


def test_an_estimate_above_the_distance_is_noticed(digits: Any) -> None:
    import torch

    example = import_module("wasserstein_digits")

    class Liar(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return 1.01 * (images * example.shift(digits.side)).flatten(1).sum(1) / example.DISTANCE

        def proof(self) -> Any:
            return type("Proof", (), {"value": 1.0})

    with pytest.raises(SystemExit, match="exceeds the distance"):
        example.estimate(Liar(), digits)


def test_frozen_layers_stretch_nothing() -> None:
    import torch

    lipschitz = import_module("_lipschitz")
    torch.manual_seed(0)
    net = lipschitz.LipschitzNet(8, 10, "SVCM", torch.nn.ReLU())
    with torch.no_grad():
        net.conv2.weight.mul_(20.0)
    frozen = net.frozen()
    assert max(spectral_norm(conv).value for conv in frozen.convolutions()) == pytest.approx(1.0, abs=1e-9)
    assert not any(weight.requires_grad for weight in frozen.parameters())
    # The copy is projected, the network itself is not.
    assert float(net.conv2.weight.detach().abs().max()) > 5.0 * float(frozen.conv2.weight.abs().max())


def test_comparisons_need_a_gap_of_two_deviations() -> None:
    record = import_module("_record")
    first = [0.5, 0.5, 0.53]
    assert record.compared(first, [0.4, 0.4, 0.43]) == "larger"
    assert record.compared([0.4, 0.4, 0.43], first) == "smaller"
    assert record.compared(first, [0.47, 0.47, 0.5]) == "undecided"
    assert record.compared([0.9], [0.1]) == "undecided"


def test_no_digits_no_example(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = import_module("_digits")
    monkeypatch.setattr(found, "MNIST", tmp_path / "missing")
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(SystemExit, match="Install scikit-learn"):
        found.load_digits()
