"""Reading a model: what is taken, what is assumed, what is skipped and why, and how layers are found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from safetensors.numpy import save_file
from shared_material import MODELS, needs_shared

from spectral_conv.models import ConvLayer, ModelError, find_layer, layers_document, read_model, torch_file
from spectral_conv.models._assumptions import ASSUMED

RNG = np.random.default_rng(20)


def weights(*shape: int) -> NDArray[np.float32]:
    return RNG.standard_normal(shape).astype(np.float32)


def save(path: Path, tensors: dict[str, NDArray[Any]], name: str = "model.safetensors") -> Path:
    save_file(tensors, path / name)
    return path / name


def entry(weight: str, **changes: Any) -> dict[str, Any]:
    plain = {"weight": weight, "stride": 1, "padding": 1, "dilation": 1, "groups": 1, "input_size": [8, 8]}
    return {**plain, **changes}


def reasons(path: Path, **options: Any) -> dict[str, str]:
    return {skipped.name: skipped.reason for skipped in read_model(path, **options).skipped}


class TestAssumptions:
    @pytest.mark.parametrize(("shape", "size"), [((4, 3, 3), 64), ((4, 3, 3, 3), 32), ((4, 3, 3, 3, 3), 16)])
    def test_every_assumed_field_is_on_record(self, tmp_path: Path, shape: tuple[int, ...], size: int) -> None:
        (layer,) = read_model(save(tmp_path, {"conv.weight": weights(*shape)})).layers
        geometry = layer.operator.geometry
        assert layer.assumed == ASSUMED
        assert geometry.input_shape == geometry.output_shape == (size,) * (len(shape) - 2)
        assert (geometry.groups, set(geometry.stride), set(geometry.dilation)) == (1, {1}, {1})
        assert (layer.kernel_shape, layer.operator.dtype) == (shape, np.float64)

    def test_input_size_goes_to_every_layer_with_as_many_axes(self, tmp_path: Path) -> None:
        tensors = {
            "a.weight": weights(4, 3, 3, 3),
            "b.weight": weights(2, 4, 5, 5),
            "c.weight": weights(2, 4, 3),
        }
        model = read_model(save(tmp_path, tensors), input_size=(3, 9, 10))
        assert [layer.operator.input_shape for layer in model.layers] == [(9, 10), (9, 10), (64,)]

    @pytest.mark.parametrize(
        ("input_size", "message"),
        [
            ((9, 9), r"`input_size` must be \(channels, \*spatial\) with 2 spatial sizes.*got \(9, 9\)"),
            ((5, 9, 9), r"says 5 channels, but the convolutions read 3, 4"),
            ((3, 0, 9), r"positive integers such as \(3, 32, 32\); got \(3, 0, 9\)"),
            ("3x9x9", r"positive integers such as \(3, 32, 32\); got '3x9x9'"),
            (32, r"`input_size` must be .*; got 32"),
            ((3, 10**12, 9), r"`input_size` must be .*got \(3, 1000000000000, 9\)"),
        ],
    )
    def test_input_size_that_fits_nothing(self, tmp_path: Path, input_size: Any, message: str) -> None:
        path = save(tmp_path, {"a.weight": weights(4, 3, 3, 3), "b.weight": weights(2, 4, 5, 5)})
        with pytest.raises(ModelError, match=message):
            read_model(path, input_size=input_size)

    @pytest.mark.parametrize(
        ("shapes", "input_size", "groups"),
        [
            ({"0": (8, 3), "1": (8, 1), "2": (4, 8)}, None, [1, 8, 1]),
            ({"0": (8, 1), "1": (4, 8)}, None, [1, 1]),
            ({"0": (8, 1), "1": (8, 1), "2": (8, 8)}, None, [1, 8, 1]),
            ({"0": (8, 2), "1": (8, 1)}, (2, 9, 9), [1, 8]),
            ({"0": (8, 4), "1": (8, 1)}, None, [1, 1]),  # nothing tells that "1" does not read a grey image
            ({"a": (8, 8), "b": (8, 1)}, (1, 9, 9), [1, 1]),
            ({"block.depthwise": (8, 1), "stem": (8, 1)}, (1, 9, 9), [8, 1]),
        ],
    )
    def test_depthwise_layers_are_told_by_the_channels(
        self, tmp_path: Path, shapes: dict[str, Any], input_size: Any, groups: list[int]
    ) -> None:
        tensors = {f"{name}.weight": weights(*shape, 3, 3) for name, shape in shapes.items()}
        model = read_model(save(tmp_path, tensors), input_size=input_size)
        assert [layer.operator.geometry.groups for layer in model.layers] == groups

    def test_bias_tells_a_transposed_layer(self, tmp_path: Path) -> None:
        tensors = {"up.weight": weights(6, 4, 2, 2), "up.bias": weights(4)}
        (layer,) = read_model(save(tmp_path, tensors)).layers
        assert layer.operator.geometry.transposed
        assert layer.layout == "IOHW"
        assert (layer.operator.in_channels, layer.operator.out_channels) == (6, 4)

    @pytest.mark.parametrize(
        ("name", "shape", "layout", "channels"),
        [
            ("conv2d/kernel:0", (3, 3, 2, 5), "HWIO", (2, 5)),
            ("conv2d/kernel", (5, 1, 4, 6), "HWIO", (4, 6)),
            ("sep/depthwise_kernel:0", (3, 3, 2, 3), "HWCM", (2, 6)),
            ("sep/pointwise_kernel:0", (1, 1, 6, 4), "HWIO", (6, 4)),
            ("kernel", (16, 3, 3, 3), "OIHW", (3, 16)),
            ("conv1_weight", (5, 2, 3, 3), "OIHW", (2, 5)),
        ],
    )
    def test_names_of_keras(
        self, tmp_path: Path, name: str, shape: tuple[int, ...], layout: str, channels: tuple[int, int]
    ) -> None:
        (layer,) = read_model(save(tmp_path, {name: weights(*shape)})).layers
        assert (layer.name, layer.layout) == (name, layout)
        assert (layer.operator.in_channels, layer.operator.out_channels) == channels

    def test_layers_are_in_natural_order(self, tmp_path: Path) -> None:
        names = [f"layer{i}.weight" for i in (1, 2, 3, 10, 11)]
        model = read_model(save(tmp_path, {name: weights(2, 2, 1, 1) for name in names}))
        assert [layer.name for layer in model.layers] == names


class TestSkipped:
    def test_every_tensor_is_a_layer_or_skipped(self, tmp_path: Path) -> None:
        tensors = {
            "conv.weight": weights(4, 3, 3, 3),
            "conv.bias": weights(4),
            "bn.running_mean": weights(4),
            "bn.num_batches_tracked": np.array(7),
            "fc.weight": weights(10, 4),
            "normed.weight_v": weights(4, 3, 3, 3),
            "normed.weight_g": weights(4, 3, 1, 1),  # no norm over any axes
            "spectral.weight_orig": weights(4, 3, 3, 3),
            "new.parametrizations.weight.original0": weights(4, 3, 3, 3),
            "quantized.weight": weights(4, 3, 3, 3),
            "quantized.weight_scale": weights(1),
            "integer.weight": np.ones((4, 3, 3, 3), np.int8),
            "pos_embed": weights(1, 17, 8),
            "pos_embed.weight": weights(1, 17, 8),
            "attn.query.kernel": weights(8, 2, 4),
            "attn.weight": weights(4, 8, 16, 16),
            "attn.proj.weight": weights(8, 8, 1, 1),
            "patch_embed.weight": weights(8, 3, 4, 4),
            "digitcaps.weight": weights(10, 32, 16, 8),
            "routing": weights(1, 32, 10, 16, 8),
            "experts.weight": weights(2, 3, 5000),
            "odd.weight": weights(4, 6, 3, 3),
            "odd.bias": weights(5),
            "deep.weight": weights(1, 1, 1, 1, 1, 2),
            "empty.weight": weights(4, 0, 3, 3),
        }
        model = read_model(save(tmp_path, tensors))
        taken = {layer.name for layer in model.layers}
        assert taken == {"conv.weight", "attn.proj.weight", "patch_embed.weight"}
        skipped = {item.name: item.reason for item in model.skipped}
        assert skipped.keys() | taken == tensors.keys()
        assert len(model.skipped) + len(taken) == len(tensors)
        for name, words in {
            "conv.bias": "a vector",
            "bn.num_batches_tracked": "a scalar",
            "fc.weight": "a matrix",
            "normed.weight_v": "weight normalization",
            "spectral.weight_orig": "spectral normalization",
            "new.parametrizations.weight.original0": "parametrization",
            "quantized.weight": "scale",
            "integer.weight": "numbers are I8",
            "attn.query.kernel": "attention",
            "attn.weight": "attention",
            "digitcaps.weight": "capsule",
            "pos_embed.weight": "embedding",
            "routing": "does not end in weight",
            "experts.weight": "size [5000]",
            "odd.weight": "bias has 5 entries",
            "deep.weight": "6 axes",
            "empty.weight": "empty kernel",
        }.items():
            assert words in skipped[name], name

    @pytest.mark.parametrize("bad", [np.nan, np.inf, np.uint32(0x7FA00000).view(np.float32)])
    def test_layer_that_cannot_be_analysed_does_not_stop_the_others(self, tmp_path: Path, bad: float) -> None:
        damaged = weights(4, 3, 3, 3)
        damaged[1, 2, 0, 0] = bad
        path = save(tmp_path, {"bad.weight": damaged, "good.weight": weights(4, 3, 3, 3)})
        model = read_model(path)
        assert [layer.name for layer in model.layers] == ["good.weight"]
        assert "cannot be analysed" in model.skipped[0].reason
        assert "finite" in model.skipped[0].reason

    def test_no_layer_that_can_be_analysed(self, tmp_path: Path) -> None:
        path = save(tmp_path, {"bad.weight": np.full((4, 3, 3, 3), np.nan, np.float32)})
        with pytest.raises(ModelError, match=r"None of the 1 convolutions .* bad\.weight: .*finite"):
            read_model(path)

    def test_no_convolution(self, tmp_path: Path) -> None:
        path = save(tmp_path, {"fc.weight": weights(10, 4), "fc.bias": weights(10)})
        with pytest.raises(
            ModelError, match=r"no convolution among its 2 tensors\. fc\.weight \[10, 4\]: a matrix.*"
        ):
            read_model(path)

    def test_no_tensors(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"holds no tensors\. Readable are weights in safetensors"):
            read_model(save(tmp_path, {}))


class TestFindLayer:
    def test_prefixes_are_stripped_only_here(self, tmp_path: Path) -> None:
        name = "module._orig_mod.model.conv.weight"
        model = read_model(save(tmp_path, {name: weights(4, 3, 3, 3)}))
        assert model.layers[0].name == name
        for asked in (name, "conv.weight", "module.conv.weight", "state_dict.conv.weight"):
            assert find_layer(model, asked) is model.layers[0]

    def test_exact_name_wins_and_ambiguity_is_an_error(self, tmp_path: Path) -> None:
        names = ("module.conv.weight", "model.conv.weight")
        model = read_model(save(tmp_path, {name: weights(4, 3, 3, 3) for name in names}))
        assert find_layer(model, "module.conv.weight").name == "module.conv.weight"
        with pytest.raises(ModelError, match=r"'conv.weight' is ambiguous: model.conv.weight, module.conv.weight"):
            find_layer(model, "conv.weight")

    def test_no_match(self, tmp_path: Path) -> None:
        model = read_model(save(tmp_path, {"conv1.weight": weights(4, 3, 3, 3), "fc.weight": weights(2, 2)}))
        with pytest.raises(ModelError, match=r"no convolution called 'conv.weigth'\. Did you mean 'conv1.weight'"):
            find_layer(model, "conv.weigth")
        with pytest.raises(ModelError, match=r"no convolution called 'xyz'\. There are 1: conv1.weight"):
            find_layer(model, "xyz")
        with pytest.raises(ModelError, match=r"'fc.weight' .* is no layer of the table: a matrix"):
            find_layer(model, "module.fc.weight")


class TestPaths:
    def test_missing_folder_empty_and_unknown(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"There is no file .*nothing\.pth"):
            read_model(tmp_path / "nothing.pth")
        save(tmp_path, {"conv.weight": weights(4, 3, 3, 3)})
        with pytest.raises(
            ModelError, match=r"is a folder\. Pass the model file inside it; it holds model.safetensors"
        ):
            read_model(tmp_path)
        (tmp_path / "empty.safetensors").touch()
        with pytest.raises(ModelError, match=r"empty.safetensors is empty \(0 bytes\)"):
            read_model(tmp_path / "empty.safetensors")
        (tmp_path / "notes.txt").write_text("not a model at all")
        with pytest.raises(ModelError, match=r"notes.txt has no format that can be read.*Readable are safetensors"):
            read_model(tmp_path / "notes.txt")
        with pytest.raises(ModelError, match=r"path of its file, or as a torch\.nn\.Module; got int"):
            read_model(3)  # type: ignore[arg-type]
        with pytest.raises(ModelError, match="cannot be opened"):
            read_model("a\0b")

    @pytest.mark.parametrize(
        ("head", "words"),
        [
            (b"\x89HDF\r\n\x1a\n", "HDF5"),
            (b"<!DOCTYPE html>", "failed download"),
            (b"version https://git-lfs.github.com/spec/v1", "Git LFS"),
        ],
    )
    def test_known_but_not_readable(self, tmp_path: Path, head: bytes, words: str) -> None:
        path = tmp_path / "model.pth"
        path.write_bytes(head + b"\n" * 64)
        with pytest.raises(ModelError, match=words):
            read_model(path)

    def test_format_is_told_by_the_bytes_before_the_suffix(self, tmp_path: Path) -> None:
        path = save(tmp_path, {"conv.weight": weights(4, 3, 3, 3)}, "model.pth")
        assert read_model(path).format == "safetensors"


def geometry_of(layer: ConvLayer) -> dict[str, Any]:
    geometry = layer.operator.geometry
    return {
        "weight": layer.name,
        "shape": list(layer.kernel_shape),
        "layout": layer.layout,
        "stride": list(geometry.stride),
        "padding": [list(pair) for pair in geometry.padding],
        "dilation": list(geometry.dilation),
        "groups": geometry.groups,
        "padding_mode": geometry.padding_mode,
        "input_size": list(geometry.input_shape),
        "output_size": list(geometry.output_shape),
    }


TWINS = {
    "resnet20_cifar10": ("resnet20_cifar10.safetensors", "resnet20-12fca82f.th"),
    "silero_vad_16k": ("silero_vad_16k.safetensors",),
    "lenet5_mnist": ("csinva_lenet.pth",),
    "convexadv_mnist": ("convexadv_mnist.pth",),
    "abcrown_resnet2b": ("abcrown_resnet2b.pth",),
    "abcrown_oval_cifar_deep": ("abcrown_oval_cifar_deep.pth",),
    "gnina_default2018_3d": ("gnina_crossdock_default2018.pt",),
}


@needs_shared
@pytest.mark.parametrize(("twin", "file"), [(twin, file) for twin, files in TWINS.items() for file in files])
class TestTrainedModels:
    @pytest.fixture(autouse=True)
    def in_process(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # The child process imports PyTorch anew, which takes seconds; test_models_torch.py has tests of it.
        monkeypatch.setattr(torch_file, "in_child", lambda parse, path, library, modules: parse(path))

    def test_geometry_equals_the_document(self, twin: str, file: str) -> None:
        self._torch_for(file)
        document = MODELS / f"{twin}.json"
        stated = json.loads(document.read_text())["layers"]
        model = read_model(MODELS / file, layers=document)
        assert len(model.layers) == len(stated)
        for layer, wanted in zip(model.layers, stated, strict=True):
            assert geometry_of(layer) == {key: wanted[key] for key in geometry_of(layer)}
            assert layer.assumed == ()
        again = read_model(MODELS / file, layers=json.loads(json.dumps(layers_document(model))))
        assert layers_document(again) == layers_document(model)

    def test_the_same_tensors_are_found_without_the_document(self, twin: str, file: str) -> None:
        self._torch_for(file)
        stated = json.loads((MODELS / f"{twin}.json").read_text())["layers"]
        model = read_model(MODELS / file)
        assert {layer.name for layer in model.layers} == {layer["weight"] for layer in stated}
        assert all(layer.assumed for layer in model.layers)

    @staticmethod
    def _torch_for(file: str) -> None:
        if not file.endswith(".safetensors"):
            pytest.importorskip("torch")


@needs_shared
def test_twin_files_hold_the_same_weights() -> None:
    pytest.importorskip("torch")
    first, second = (
        read_model(MODELS / file, layers=MODELS / "resnet20_cifar10.json") for file in TWINS["resnet20_cifar10"]
    )
    for one, other in zip(first.layers, second.layers, strict=True):
        assert_array_equal(one.operator.kernel, other.operator.kernel)


def test_depthwise_kernel_acts_channel_by_channel(tmp_path: Path) -> None:
    kernel = weights(3, 3, 2, 3)  # HWCM
    path = save(tmp_path, {"k": kernel})
    document = {"layers": [entry("k", layout="HWCM", groups=2, padding="valid", input_size=[5, 6])]}
    operator = read_model(path, layers=document).layers[0].operator
    x = RNG.standard_normal((2, 5, 6))
    y = (operator @ x.ravel()).reshape(6, 3, 4)
    for c in range(2):
        for m in range(3):
            expected = sum(kernel[a, b, c, m] * x[c, a : a + 3, b : b + 4] for a in range(3) for b in range(3))
            assert_allclose(y[c * 3 + m], expected, rtol=1e-12, atol=1e-12)
