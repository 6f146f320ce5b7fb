"""PyTorch: state dicts in a child process, weights stored in parts, live modules, safetensors in several files."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.numpy import save_file
from shared_material import MODELS, needs_shared

from spectral_conv.models import Model, ModelError, layers_document, read_model, torch_file
from spectral_conv.models._sandbox import in_child

RNG = np.random.default_rng(51)
KERNEL = RNG.standard_normal((4, 3, 3, 3)).astype(np.float32)


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch")


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parse here: the child imports PyTorch anew, which takes seconds."""
    monkeypatch.setattr(torch_file, "in_child", lambda parse, path, library, modules: parse(path))


def as_stored(model: Model, name: str) -> Any:
    (layer,) = [layer for layer in model.layers if layer.name == name]
    order = [("DHWIO"[-len(layer.layout) :]).index(letter) for letter in layer.layout]
    return layer.operator.kernel.transpose(order)


def reasons(model: Model) -> dict[str, str]:
    return {item.name: item.reason for item in model.skipped}


class Bomb:
    """Unpickling this makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


# Functions that the child runs: it imports this module by its name.
def parse_crash(path: Path) -> None:
    os.abort()


def parse_greedy(path: Path) -> int:
    return len(bytearray(6 * 2**30))


def parse_forever(path: Path) -> None:
    time.sleep(600)


def parse_wrong(path: Path) -> None:
    raise KeyError("one line\nand another")


def parse_refused(path: Path) -> None:
    raise ModelError(f"{path.name} is refused.")


def parse_noisy(path: Path) -> bytes:
    print("noise on the pipe of the answers")  # noqa: T201
    os.write(1, b"more noise")
    return path.read_bytes()


class TestSandbox:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        (tmp_path / "m.bin").write_bytes(b"content")
        return tmp_path / "m.bin"

    def test_result(self, file: Path) -> None:
        assert in_child(parse_noisy, file, "the library", ("json",)) == b"content"

    @pytest.mark.parametrize(
        ("parse", "message"),
        [
            (parse_crash, r"the library crashed on m\.bin \(exit code -6\); the file is damaged"),
            (parse_greedy, r"m\.bin asks for more memory than a file of its size"),
            (parse_wrong, r"m\.bin cannot be read: KeyError: 'one line\\nand another'\. The file"),
            (parse_refused, r"^m\.bin is refused\.$"),
        ],
    )
    def test_what_goes_wrong(self, file: Path, parse: Callable[[Path], Any], message: str) -> None:
        with pytest.raises(ModelError, match=message):
            in_child(parse, file, "the library")

    def test_time_limit(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("spectral_conv.models._sandbox._SECONDS", 0.5)
        with pytest.raises(ModelError, match=r"m\.bin could not be read within 1 seconds"):
            in_child(parse_forever, file, "the library")

    def test_scripts_without_a_main_guard(self, file: Path) -> None:
        # multiprocessing would run such a script again in the child, and fail.
        script = file.with_name("script.py")
        folder = str(Path(__file__).parent)
        script.write_text(
            f"import sys; sys.path.insert(0, {folder!r})\n"
            "from pathlib import Path\nfrom test_models_torch import parse_noisy\n"
            "from spectral_conv.models._sandbox import in_child\n"
            f"print('once', in_child(parse_noisy, Path({str(file)!r}), 'x'))\n"
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env=environment)
        assert (done.stdout, done.returncode) == ("once b'content'\n", 0)


class TestFilesInTheChild:
    """The real thing, few times: every one imports PyTorch."""

    def test_state_dict(self, torch: Any, tmp_path: Path) -> None:
        state = {
            "conv.weight": torch.tensor(KERNEL).to(torch.bfloat16),
            "half.weight": torch.tensor(KERNEL).half(),
            "bn.weight": torch.ones(4),
            "steps": torch.tensor(3),
        }
        torch.save(state, tmp_path / "m.ckpt")
        model = read_model(tmp_path / "m.ckpt")
        assert_array_equal(as_stored(model, "conv.weight"), state["conv.weight"].double().numpy())
        assert_array_equal(as_stored(model, "half.weight"), state["half.weight"].double().numpy())
        assert reasons(model)["steps"].startswith("a scalar")

    def test_pickle_bomb(self, torch: Any, tmp_path: Path) -> None:
        torch.save({"conv.weight": Bomb(tmp_path / "exploded")}, tmp_path / "m.pth")
        with pytest.raises(ModelError, match=r"needs code to be unpickled \((posix|nt)\.mkdir\), which is refused"):
            read_model(tmp_path / "m.pth")
        assert not (tmp_path / "exploded").exists()

    def test_damage(self, torch: Any, tmp_path: Path) -> None:
        torch.save({"conv.weight": torch.tensor(KERNEL)}, tmp_path / "m.pth", _use_new_zipfile_serialization=False)
        content = (tmp_path / "m.pth").read_bytes()
        (tmp_path / "m.pth").write_bytes(content[: len(content) // 2])
        with pytest.raises(ModelError, match=r"m\.pth (begins as a zip archive|cannot be read)"):
            read_model(tmp_path / "m.pth")


@pytest.mark.usefixtures("in_process")
class TestFiles:
    @pytest.mark.parametrize("suffix", [".pt", ".pth", ".th", ".ckpt", ".t7", ".model", ".bin", ""])
    @pytest.mark.parametrize("zipped", [True, False])
    def test_suffixes(self, torch: Any, tmp_path: Path, suffix: str, zipped: bool) -> None:
        path = tmp_path / f"m{suffix}"
        torch.save({"module.conv.weight": torch.tensor(KERNEL)}, path, _use_new_zipfile_serialization=zipped)
        assert_array_equal(as_stored(read_model(path), "module.conv.weight"), KERNEL)
        document = {"layers": [dict.fromkeys(("stride", "padding", "dilation", "groups"), 1)]}
        document["layers"][0] |= {"weight": "conv.weight", "input_size": 8}  # type: ignore[dict-item]
        assert read_model(path, layers=document).layers[0].assumed == ()

    def test_lightning_checkpoint(self, torch: Any, tmp_path: Path) -> None:
        state = {"model.conv.weight": torch.tensor(KERNEL)}
        plain = {"state_dict": state, "hyper_parameters": {"lr": 0.1}, "epoch": 3, "loops": {"fit": {"x": 1}}}
        torch.save({**plain, "optimizer_states": [{"state": {}, "param_groups": []}]}, tmp_path / "m.ckpt")
        model = read_model(tmp_path / "m.ckpt")
        assert [layer.name for layer in model.layers] == ["model.conv.weight"]
        torch.save({**plain, "hyper_parameters": Bomb(tmp_path / "exploded")}, tmp_path / "m.ckpt")
        with pytest.raises(ModelError, match=r"needs code .*torch\.save\(checkpoint\['state_dict'\]"):
            read_model(tmp_path / "m.ckpt")
        assert not (tmp_path / "exploded").exists()

    def test_ema_copies(self, torch: Any, tmp_path: Path) -> None:
        state = {"conv.weight": torch.tensor(KERNEL)}
        ema = {"conv.weight": torch.tensor(2 * KERNEL)}
        torch.save({"state_dict": state, "state_dict_ema": ema, "arch": "net"}, tmp_path / "m.pth")
        model = read_model(tmp_path / "m.pth")
        assert_array_equal(as_stored(model, "state_dict_ema.conv.weight"), 2 * KERNEL)
        assert len(model.layers) == 2

    def test_views_that_repeat_few_numbers(self, torch: Any, tmp_path: Path) -> None:
        torch.save({"conv.weight": torch.zeros(1).expand(10**4, 10**4, 3, 3)}, tmp_path / "m.pth")
        assert (tmp_path / "m.pth").stat().st_size < 10**4
        with pytest.raises(ModelError, match=r"m\.pth holds \d+ bytes, .*refused as a memory bomb"):
            read_model(tmp_path / "m.pth")

    def test_zip_bomb(self, tmp_path: Path) -> None:
        with (
            zipfile.ZipFile(tmp_path / "m.pth", "w", zipfile.ZIP_DEFLATED) as archive,
            archive.open("m/data.pkl", "w") as member,
        ):
            for _ in range(80):
                member.write(bytes(2**20))
        with pytest.raises(ModelError, match="refused as a zip bomb"):
            read_model(tmp_path / "m.pth")

    def test_torch7_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "m.t7").write_bytes(b"\x04\x00\x00\x00\x01\x00\x00\x00" + bytes(50))
        with pytest.raises(ModelError, match=r"m\.t7 is a file of Torch7 \(Lua\)"):
            read_model(tmp_path / "m.t7")

    @pytest.mark.parametrize("zipped", [True, False])
    def test_damaged_copies(self, torch: Any, tmp_path: Path, zipped: bool) -> None:
        path = tmp_path / "m.pth"
        state = {"conv.weight": torch.tensor(KERNEL[:2, :2]), "conv.bias": torch.zeros(2)}
        torch.save(state, path, _use_new_zipfile_serialization=zipped)
        content = path.read_bytes()
        rng = np.random.default_rng(7)
        for trial in range(60):
            damaged = bytearray(content)
            if trial % 2:
                damaged = damaged[: rng.integers(4, len(content))]
            else:
                for place in rng.integers(0, len(content), 1 + trial // 10):
                    damaged[place] ^= 1 << rng.integers(8)
            path.write_bytes(damaged)
            try:
                read_model(path)
            except ModelError as error:
                assert "m.pth" in str(error)  # noqa: PT017


NORMALIZATIONS: dict[str, tuple[str, Callable[[Any, Any], Any]]] = {
    "old": ("weight normalization", lambda utils, layer: utils.weight_norm(layer)),
    "old, axis 1": ("weight normalization", lambda utils, layer: utils.weight_norm(layer, dim=1)),
    "old, axis 3": ("weight normalization", lambda utils, layer: utils.weight_norm(layer, dim=3)),
    "old, whole": ("weight normalization", lambda utils, layer: utils.weight_norm(layer, dim=None)),
    "new": ("weight normalization", lambda utils, layer: utils.parametrizations.weight_norm(layer)),
    "new, axis 1": ("weight normalization", lambda utils, layer: utils.parametrizations.weight_norm(layer, dim=1)),
    "old, spectral": ("spectral normalization", lambda utils, layer: utils.spectral_norm(layer)),
    "new, spectral": ("spectral normalization", lambda utils, layer: utils.parametrizations.spectral_norm(layer)),
    "pruned": ("pruning", lambda utils, layer: utils.prune.l1_unstructured(layer, "weight", amount=0.5)),
}


@pytest.mark.usefixtures("in_process")
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning", "ignore:.*weight_norm.*:UserWarning")
class TestWeightsInParts:
    @pytest.fixture
    def folded(self, torch: Any, tmp_path: Path) -> Callable[[Any], Any]:
        """Save a layer as "conv" of a checkpoint; return the weight that is read and the one that is applied."""

        def fold(layer: Any) -> tuple[Any, Any, Model]:
            net = torch.nn.Sequential()
            net.add_module("conv", layer)
            net.train()
            for _ in range(2):
                net(torch.randn(1, 4, 7, 7))
            net.eval()
            net(torch.randn(1, 4, 7, 7))  # old-style hooks compute the weight in the forward pass
            torch.save({"state_dict": net.state_dict()}, tmp_path / "m.pth")
            geometry = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "input_size": 8}
            op = "conv_transpose" if layer.transposed else "conv"
            document = {"layers": [{"weight": "conv.weight", "op": op, **geometry}]}
            model = read_model(tmp_path / "m.pth", layers=document)
            return as_stored(model, "conv.weight"), layer.weight.detach().numpy(), model

        return fold

    @pytest.mark.parametrize("transposed", [False, True])
    @pytest.mark.parametrize("how", NORMALIZATIONS)
    def test_weight_is_what_the_layer_applies(self, torch: Any, folded: Any, how: str, transposed: bool) -> None:
        pytest.importorskip("torch.nn.utils.prune")
        kind, normalize = NORMALIZATIONS[how]
        torch.manual_seed(3)
        make = torch.nn.ConvTranspose2d if transposed else torch.nn.Conv2d
        read, applied, model = folded(
            normalize(torch.nn.utils, make(4, 4, (3, 2)))
        )  # 4 = 4: both axes fit every part
        assert_allclose(read, applied, rtol=2e-6, atol=1e-7)
        told = {reason for name, reason in reasons(model).items() if not name.endswith("bias")}
        assert told == {f"part of {kind} of conv.weight"}

    def test_without_document(self, torch: Any, tmp_path: Path) -> None:
        layer = torch.nn.utils.parametrizations.weight_norm(torch.nn.Conv2d(3, 4, 3))
        torch.save(layer.state_dict(), tmp_path / "m.pth")
        model = read_model(tmp_path / "m.pth")
        assert [layer.name for layer in model.layers] == ["weight"]

    def test_other_formats(self, tmp_path: Path) -> None:
        lengths = np.linspace(1, 2, 4, dtype=np.float32).reshape(4, 1, 1, 1)
        save_file({"conv.weight_g": lengths, "conv.weight_v": KERNEL}, tmp_path / "m.safetensors")
        read = as_stored(read_model(tmp_path / "m.safetensors"), "conv.weight")
        assert_allclose(np.linalg.norm(read.reshape(4, -1), axis=1), np.linspace(1, 2, 4), rtol=1e-6)

    def test_power_iteration_without_v(self, tmp_path: Path) -> None:
        u = RNG.standard_normal(4).astype(np.float32)
        save_file({"conv.weight_orig": KERNEL, "conv.weight_u": u}, tmp_path / "m.safetensors")
        read = as_stored(read_model(tmp_path / "m.safetensors"), "conv.weight")
        matrix = KERNEL.reshape(4, -1).astype(float)
        v = matrix.T @ u / np.linalg.norm(matrix.T @ u)
        assert_allclose(read, KERNEL / np.linalg.norm(matrix @ v), rtol=1e-6)

    def test_a_weight_that_is_stored_as_well(self, tmp_path: Path) -> None:
        tensors = {"c.weight": KERNEL, "c.weight_orig": 2 * KERNEL, "c.weight_u": np.ones(4, np.float32)}
        save_file(tensors, tmp_path / "m.safetensors")
        model = read_model(tmp_path / "m.safetensors")
        assert_array_equal(as_stored(model, "c.weight"), KERNEL)
        assert "which is in the file itself" in reasons(model)["c.weight_u"]

    @pytest.mark.parametrize(
        "parts",
        [
            {"weight_v": KERNEL},
            {"weight_v": KERNEL, "weight_g": np.ones((3, 1, 1, 1), np.float32)},
            {"weight_v": KERNEL, "weight_g": np.ones((4, 3, 1, 1), np.float32)},
            {"weight_orig": KERNEL},
            {"weight_orig": KERNEL, "weight_u": np.ones(5, np.float32)},
            {"weight_orig": KERNEL, "weight_mask": np.ones((4, 3, 3), np.float32)},
            {"weight_orig": KERNEL, "weight_mask": KERNEL, "weight_u": np.ones(4, np.float32)},
            {"parametrizations.weight.original": KERNEL},
            {"parametrizations.weight.original": KERNEL, "parametrizations.weight.0.base": KERNEL},
            {
                "parametrizations.weight.original0": np.ones((4, 1, 1, 1), np.float32),
                "parametrizations.weight.original1": KERNEL,
                "parametrizations.weight.1._u": np.ones(4, np.float32),
            },
        ],
    )
    def test_unknown_rules_stay_refused(self, tmp_path: Path, parts: dict[str, Any]) -> None:
        tensors = {f"conv.{name}": array for name, array in parts.items()}
        save_file({**tensors, "good.weight": KERNEL}, tmp_path / "m.safetensors")
        model = read_model(tmp_path / "m.safetensors")
        assert [layer.name for layer in model.layers] == ["good.weight"]
        kernels = [reason for name, reason in reasons(model).items() if tensors[name].ndim == 4]
        assert all("a rule that the file does not tell" in reason for reason in kernels)

    def test_numbers_that_give_no_weight(self, tmp_path: Path) -> None:
        tensors = {"conv.weight_orig": KERNEL, "conv.weight_u": np.zeros(4, np.float32), "ok.weight": KERNEL}
        save_file(tensors, tmp_path / "m.safetensors")
        assert "must be finite" in reasons(read_model(tmp_path / "m.safetensors"))["conv.weight"]


class TestLinear:
    def test_files(self, tmp_path: Path) -> None:
        matrix = RNG.standard_normal((5, 3)).astype(np.float32)
        tensors = {
            "conv.weight": KERNEL,
            "fc.weight": matrix,
            "token_embedding.weight": matrix,
            "lstm.weight_hh_l0": matrix,
        }
        path = tmp_path / "m.safetensors"
        save_file(tensors, path)
        assert [layer.name for layer in read_model(path).layers] == ["conv.weight"]
        model = read_model(path, include_linear=True)
        _, fc = model.layers
        assert (fc.name, fc.assumed, fc.operator.shape, fc.kernel_shape) == (
            "fc.weight",
            ("op",),
            (5, 3),
            (5, 3, 1, 1),
        )
        assert_array_equal(fc.operator.to_dense(), matrix)
        assert set(reasons(model)) == {"token_embedding.weight", "lstm.weight_hh_l0"}
        document = layers_document(model)
        again = read_model(path, layers=document, include_linear=True)
        assert [layer.name for layer in again.layers] == ["conv.weight", "fc.weight"]
        only = read_model(path, layers={"layers": document["layers"][:1]}, include_linear=True)
        assert [(layer.name, layer.assumed) for layer in only.layers] == [("conv.weight", ()), ("fc.weight", ("op",))]

    def test_matrices_alone(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "m.npz", **{"dense/kernel": RNG.standard_normal((3, 5))})
        (layer,) = read_model(tmp_path / "m.npz", include_linear=True).layers
        assert layer.operator.shape == (5, 3)

    def test_module(self, torch: Any) -> None:
        net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(6, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
        for example in (None, torch.zeros(1, 6)):
            model = read_model(net, example_input=example, include_linear=True)
            assert [(layer.name, layer.assumed) for layer in model.layers] == [("1.weight", ()), ("3.weight", ())]
            assert_array_equal(model.layers[1].operator.to_dense(), net[3].weight.detach().double().numpy())


class TestModules:
    @pytest.mark.parametrize("ndim", [1, 2, 3])
    @pytest.mark.parametrize(
        "options",
        [
            {"padding": "same", "dilation": 3},
            {"padding": "valid", "stride": 2},
            {"padding": 2, "padding_mode": "circular"},
            {"padding": 1, "padding_mode": "reflect", "stride": 2},
            {"padding": 1, "padding_mode": "replicate", "groups": 2},
            {"padding": "same", "padding_mode": "circular"},
            {"groups": 4, "stride": 3, "padding": 1},
            {"transposed": True, "stride": 2, "padding": 1, "output_padding": 1},
            {"transposed": True, "groups": 2, "dilation": 2},
        ],
    )
    @pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
    def test_operator_does_what_the_layer_does(self, torch: Any, ndim: int, options: dict[str, Any]) -> None:
        torch.manual_seed(1)
        options = dict(options)
        kind = "ConvTranspose" if options.pop("transposed", False) else "Conv"
        odd = options.get("padding_mode", "zeros") != "zeros" or kind != "Conv"
        size = 3 if odd else (4, 3, 2)[:ndim]  # "same" of an even size pads more at the end
        layer = getattr(torch.nn, f"{kind}{ndim}d")(4, 8, size, bias=False, **options).double()
        x = torch.randn(1, 4, *(9, 8, 7)[:ndim], dtype=torch.float64)
        model = read_model(layer, example_input=x)
        (found,) = model.layers
        assert (found.name, found.assumed, found.operator.input_shape) == ("weight", (), tuple(x.shape[2:]))
        assert_allclose(found.operator @ x.numpy().ravel(), layer(x).detach().numpy().ravel(), rtol=1e-10, atol=1e-12)
        assert read_model(layer).layers[0].assumed == ("input_size",)

    def test_network(self, torch: Any) -> None:
        nn = torch.nn

        class Net(nn.Module):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                super().__init__()
                self.unused = nn.Conv2d(3, 3, 3)
                self.last = nn.ConvTranspose2d(4, 2, 3, stride=2, padding=1)
                self.first = nn.Conv2d(3, 4, 3, padding=1)
                self.twice = nn.Conv2d(4, 4, 1)
                self.raw = nn.Parameter(torch.randn(4, 4, 3, 3))
                self.drop = nn.BatchNorm2d(4).eval()

            def forward(self, image: Any) -> Any:
                x = self.twice(self.drop(self.first(input=image)))
                x = self.twice(x[..., ::2, ::2]) + nn.functional.conv2d(x, self.raw, stride=2, padding=1)
                x = nn.functional.conv2d(x, torch.ones(4, 1, 1, 1), groups=4)
                return self.last(x, output_size=[10, 9])

        net = Net()
        assert net.training
        flags = {name: part.training for name, part in net.named_modules()}
        before = net.drop.running_mean.clone()
        for example in (torch.zeros(1, 3, 10, 10), [torch.zeros(3, 10, 10)], {"image": torch.zeros(2, 3, 10, 10)}):
            if isinstance(example, list):
                net.drop = nn.Identity()  # no batch axis, which batch normalization needs
                flags = {name: part.training for name, part in net.named_modules()}
            model = read_model(net, example_input=example)
            assert (model.name, model.format) == ("Net (module)", "PyTorch module")
            table = [
                (layer.name, layer.operator.input_shape, layer.operator.output_shape, layer.operator.geometry.stride)
                for layer in model.layers
            ]
            assert table == [
                ("first.weight", (10, 10), (10, 10), (1, 1)),
                ("twice.weight", (10, 10), (10, 10), (1, 1)),
                ("raw", (10, 10), (5, 5), (2, 2)),
                ("last.weight", (5, 5), (10, 9), (2, 2)),
            ]
            assert model.layers[3].operator.geometry.output_padding == (1, 0)
            told = reasons(model)
            assert told["twice.weight"].startswith(
                "also applied to 5 x 5 pixels; the table has its first call, 10 x 10"
            )
            assert "never reaches" in told["unused.weight"]
            assert "conv2d with a computed weight of shape [4, 1, 1, 1]" in told["function call 0"]
            assert {name: part.training for name, part in net.named_modules()} == flags
            assert not net.first._forward_hooks
            assert not net.first._forward_pre_hooks
        assert torch.equal(before, torch.zeros(4))

    def test_classes_that_override_the_forward_pass(self, torch: Any) -> None:
        functional = torch.nn.functional

        class Standardized(torch.nn.Conv2d):  # type: ignore[misc, name-defined]
            def forward(self, x: Any) -> Any:
                weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
                return functional.conv2d(functional.pad(x, (0, 1, 0, 1)), weight, None, self.stride)

        layer = Standardized(3, 4, 3, stride=2, bias=False)
        (found,) = read_model(layer, example_input=torch.zeros(1, 3, 8, 8)).layers
        assert found.operator.input_shape == (9, 9)
        assert_allclose(found.operator.kernel.mean((0, 1, 2)), 0, atol=1e-7)
        assert read_model(layer).layers[0].assumed == ("padding", "padding_mode", "input_size")

    @pytest.mark.parametrize("example", [True, False])
    @pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning", "ignore:.*weight_norm.*:UserWarning")
    def test_parametrized(self, torch: Any, example: bool) -> None:
        new = torch.nn.utils.parametrizations
        layers = [
            new.orthogonal(torch.nn.Conv2d(4, 4, 1)),
            new.spectral_norm(torch.nn.Conv2d(4, 4, 3)),
            torch.nn.utils.spectral_norm(torch.nn.Conv2d(4, 4, 3)),
            torch.nn.utils.weight_norm(torch.nn.Conv2d(4, 4, 3)),
        ]
        net = torch.nn.Sequential(*layers)
        with torch.no_grad():
            layers[3].weight_g *= 3  # the plain attribute `weight` is out of date until the next forward pass
        model = read_model(net, example_input=torch.randn(1, 4, 9, 9) if example else None)
        net.eval()(torch.randn(1, 4, 9, 9))
        for i, layer in enumerate(layers):
            assert_allclose(as_stored(model, f"{i}.weight"), layer.weight.detach().numpy(), rtol=1e-6, atol=1e-7)
        assert reasons(model)["0.parametrizations.weight.original"] == "part of the parametrization of 0.weight"

    def test_weights_are_those_of_now(self, torch: Any) -> None:
        layer = torch.nn.Conv2d(3, 4, 3)
        model = read_model(layer)
        wanted = layer.weight.detach().double().numpy().copy()
        torch.nn.init.zeros_(layer.weight)
        assert_array_equal(as_stored(model, "weight"), wanted)

    def test_documents_and_sizes(self, torch: Any) -> None:
        net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, stride=2), torch.nn.Conv2d(4, 4, 3))
        model = read_model(net, input_size=(3, 9, 9))
        assert [layer.operator.input_shape for layer in model.layers] == [(9, 9), (9, 9)]
        document = {"layers": [{"weight": "0.weight", "padding": 7, "input_size": 20}]}
        document["layers"][0] |= {"stride": 1, "dilation": 1, "groups": 1}
        (layer,) = read_model(net, layers=document).layers
        assert (layer.operator.input_shape, layer.operator.geometry.stride) == ((20, 20), (2, 2))
        assert layer.operator.geometry.padding == ((0, 0), (0, 0))

    def test_wrappers(self, torch: Any) -> None:
        net = torch.nn.DataParallel(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)))
        model = read_model(net, example_input=torch.zeros(1, 3, 8, 8))
        assert (model.name, model.layers[0].name) == ("Sequential (module)", "0.weight")

    @pytest.mark.parametrize(
        ("example", "message"),
        [
            (
                lambda torch: torch.zeros(1, 5, 8, 8),
                r"forward pass of Sequential \(module\) .* fails \(RuntimeError: ",
            ),
            (lambda torch: "an image", r"fails \(TypeError: "),
            (lambda torch: (1, 3, 8, 8), r"not its shape: torch\.zeros\(1, 3, 8, 8\)"),
        ],
    )
    def test_examples_that_do_not_fit(self, torch: Any, example: Any, message: str) -> None:
        net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())
        with pytest.raises(ModelError, match=message):
            read_model(net, example_input=example(torch))
        assert net.training
        assert not net[0]._forward_hooks

    def test_modules_without_numbers(self, torch: Any) -> None:
        lazy = torch.nn.Sequential(torch.nn.LazyConv2d(4, 3), torch.nn.Conv2d(4, 4, 3))
        assert "not initialized" in reasons(read_model(lazy))["0.weight"]
        with torch.device("meta"):
            meta = torch.nn.Conv2d(3, 4, 3)
        with pytest.raises(ModelError, match="None of the 1 convolutions"):
            read_model(meta)
        with pytest.raises(ModelError, match=r"ReLU \(module\) holds no tensors"):
            read_model(torch.nn.ReLU())

    @pytest.mark.filterwarnings("ignore::DeprecationWarning:torch", "ignore:.*torch.jit:DeprecationWarning")
    def test_torchscript(self, torch: Any) -> None:
        program = torch.jit.trace(torch.nn.Conv2d(3, 4, 3), torch.zeros(1, 3, 8, 8))
        with pytest.raises(ModelError, match="TorchScript program shows none of its layers"):
            read_model(program)

    def test_two_layers_of_one_weight(self, torch: Any) -> None:
        net = torch.nn.Sequential(torch.nn.Conv2d(4, 4, 3), torch.nn.Conv2d(4, 4, 3, stride=2))
        net[1].weight = net[0].weight
        model = read_model(net, example_input=torch.zeros(1, 4, 9, 9))
        sizes = [(layer.name, layer.operator.input_shape) for layer in model.layers]
        assert sizes == [("0.weight", (9, 9)), ("1.weight", (7, 7))]

    def test_half_precision(self, torch: Any) -> None:
        layer = torch.nn.Conv2d(3, 4, 3).to(torch.bfloat16)
        assert_array_equal(as_stored(read_model(layer), "weight"), layer.weight.detach().double().numpy())

    def test_example_for_a_file(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="`example_input` is for a torch"):
            read_model(tmp_path / "m.npz", example_input=3)


class TestSafetensorsInParts:
    @pytest.fixture
    def index(self, tmp_path: Path) -> Path:
        save_file({"a.weight": KERNEL, "extra": KERNEL}, tmp_path / "model-1.safetensors")
        save_file({"b.weight": 2 * KERNEL}, tmp_path / "model-2.safetensors")
        return self.write(tmp_path, {"a.weight": "model-1.safetensors", "b.weight": "model-2.safetensors"})

    @staticmethod
    def write(folder: Path, weight_map: Any) -> Path:
        path = folder / "model.safetensors.index.json"
        path.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
        return path

    def test_all_parts_are_read(self, index: Path) -> None:
        model = read_model(index)
        assert (model.format, [layer.name for layer in model.layers]) == ("safetensors", ["a.weight", "b.weight"])
        assert_array_equal(as_stored(model, "b.weight"), 2 * KERNEL)
        assert reasons(model) == {"extra": "stands in model-1.safetensors, but the index does not name it"}

    @pytest.mark.parametrize(
        ("weight_map", "message"),
        [
            (
                {"a.weight": "model-3.safetensors"},
                r"names the part 'model-3\.safetensors', which does not lie beside it",
            ),
            ({"a.weight": "../model-1.safetensors"}, "which is no plain file name"),
            ({"a.weight": "/etc/passwd"}, "which is no plain file name"),
            ({"a.weight": "C:\\model.safetensors"}, "which is no plain file name"),
            ({"a.weight": ""}, "which is no plain file name"),
            ({"a.weight": "pytorch_model-1.bin"}, "no safetensors files"),
            (
                {"c.weight": "model-1.safetensors"},
                r"says that model-1\.safetensors holds 'c\.weight', which it does not",
            ),
            ({"a.weight": 3}, "is no index of safetensors files"),
            ({}, "is no index of safetensors files"),
            ([1], "is no index of safetensors files"),
        ],
    )
    def test_indices_that_lie(self, index: Path, weight_map: Any, message: str) -> None:
        self.write(index.parent, weight_map)
        with pytest.raises(ModelError, match=message):
            read_model(index)

    def test_damage(self, index: Path) -> None:
        (index.parent / "model-2.safetensors").write_bytes(b"\x08")
        with pytest.raises(ModelError, match=r"model-2\.safetensors is truncated"):
            read_model(index)
        index.write_text("{" * 100_000)
        with pytest.raises(ModelError, match=r"index\.json is not valid JSON"):
            read_model(index)


@needs_shared
@pytest.mark.usefixtures("torch")
def test_trained_network_in_the_child() -> None:
    document = MODELS / "resnet20_cifar10.json"
    read = functools.partial(read_model, layers=document)
    for one, other in zip(
        read(MODELS / "resnet20-12fca82f.th").layers,
        read(MODELS / "resnet20_cifar10.safetensors").layers,
        strict=True,
    ):
        assert_array_equal(one.operator.kernel, other.operator.kernel)
