"""A model written again with its norms brought down: what changes, what must not, and what is refused."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import zipfile
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from cases import naive_matrix
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from typer.testing import CliRunner

import spectral_conv.clipping as clipping_module
from spectral_conv import ModelError, clip_model, read_model
from spectral_conv.cli import app
from spectral_conv.models._build import build_layer
from spectral_conv.models._contents import StoredTensor
from spectral_conv.models._entry import LayerEntry
from spectral_conv.models._layouts import CHANNELS_LAST, DEPTHWISE, PLAIN, TRANSPOSED, as_stored

DATA = Path(str(files("spectral_conv") / "data"))
DIGITS, LAYERS = DATA / "digits.safetensors", DATA / "digits.layers.json"
RNG = np.random.default_rng(0)
TINY = 4e-15  # of the norm: what an SVD in double precision may be off

Table = dict[str, tuple[str, list[int], bytes]]


def run(*arguments: str | Path, columns: int = 80) -> Any:
    return CliRunner(env={"COLUMNS": str(columns)}).invoke(app, ["clip", *map(str, arguments)])


def strict_json(text: str) -> Any:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


def parts(path: Path) -> tuple[Table, dict[str, str]]:
    """Type, shape and bytes of every tensor of a safetensors file, and its metadata, read by hand."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    metadata = header.pop("__metadata__", {})
    data = content[8 + length :]
    table = {
        name: (info["dtype"], info["shape"], data[slice(*info["data_offsets"])]) for name, info in header.items()
    }
    assert sum(len(raw) for _, _, raw in table.values()) == len(data)
    for info in header.values():
        if info["dtype"] == "F64":
            assert (8 + length + info["data_offsets"][0]) % 8 == 0
    return table, metadata


def write(path: Path, table: Table, metadata: dict[str, str] | None = None) -> Path:
    """A safetensors file by hand, which knows every type."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    data = b""
    for name, (kind, shape, raw) in table.items():
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def document(folder: Path, *layers: dict[str, Any]) -> Path:
    """A layers.json; every entry states what differs from a 3x3 layer on 6x6 pixels."""
    plain = {"stride": 1, "padding": 1, "dilation": 1, "groups": 1, "input_size": [6, 6]}
    path = folder / "layers.json"
    path.write_text(json.dumps({"layers": [plain | layer for layer in layers]}), encoding="utf-8")
    return path


def largest(path: Path, layers: Path) -> dict[str, float]:
    """Norms by a dense decomposition of the matrices that loops write down."""
    model = read_model(path, layers=layers)
    return {layer.name: float(np.linalg.norm(naive_matrix(layer.operator), 2)) for layer in model.layers}


@pytest.fixture(scope="module")
def clipped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    out = tmp_path_factory.mktemp("clip") / "new.safetensors"
    return run(DIGITS, "--layers", LAYERS, "--maximum", "4", "--maxiter", "25", "--out", out), out


class TestDigits:
    def test_the_report(self, clipped: tuple[Any, Path]) -> None:
        result, out = clipped
        assert (result.exit_code, result.stderr) == (0, "")
        assert "\x1b" not in result.stdout
        lines = result.stdout.splitlines()
        assert max(map(len, lines)) <= 80
        assert lines[0] == "digits.safetensors: norms of 4 at most"
        rows = {line.split()[0]: line.split() for line in lines if ".weight " in line}
        assert list(rows) == [
            f"{name}.weight" for name in ("stem", "square", "dilated", "down", "depthwise", "pointwise")
        ]
        assert rows["stem.weight"][1] == "5.35443"
        assert rows["depthwise.weight"][1:4] == ["3.56980", "3.56980", "unchanged"]
        assert rows["square.weight"][-2] == "certified"
        assert "5 of 6 kernels clipped in" in result.stdout
        text = " ".join(result.stdout.split())
        assert "holds 14 tensors, 9 of them bit by bit as they were." in text
        assert list(out.parent.iterdir()) == [out]

    def test_inspect_shows_norms_at_most_the_maximum(self, clipped: tuple[Any, Path]) -> None:
        result = CliRunner().invoke(
            app, ["inspect", str(clipped[1]), "--layers", str(LAYERS), "--largest-only", "--json"]
        )
        norms = {layer["name"]: layer["sigma_max"]["value"] for layer in strict_json(result.stdout)["layers"]}
        assert len(norms) == 6
        for name, norm in norms.items():
            assert norm <= 4.0, name
            assert norm > (3.99 if name != "depthwise.weight" else 3.5), name

    def test_norms_by_dense_matrices(self, clipped: tuple[Any, Path]) -> None:
        assert max(largest(clipped[1], LAYERS).values()) <= 4.0 * (1 + TINY)

    def test_other_tensors_are_bit_equal(self, clipped: tuple[Any, Path]) -> None:
        (before, metadata), (after, kept) = parts(DIGITS), parts(clipped[1])
        assert metadata == kept
        assert before.keys() == after.keys()
        changed = {name for name in before if before[name] != after[name]}
        assert changed == {f"{name}.weight" for name in ("stem", "square", "dilated", "down", "pointwise")}
        for name in changed:
            assert before[name][:2] == after[name][:2]

    def test_what_was_clipped_is_left_alone_the_second_time(self, clipped: tuple[Any, Path], tmp_path: Path) -> None:
        again = clip_model(clipped[1], 4.0, tmp_path / "again.safetensors", layers=LAYERS)
        assert [layer.changed for layer in again.layers] == [False] * 6
        assert [layer.distance for layer in again.layers] == [0.0] * 6
        assert parts(tmp_path / "again.safetensors") == parts(clipped[1])

    def test_json(self, tmp_path: Path) -> None:
        out = tmp_path / "new.safetensors"
        result = run(
            *(DIGITS, "--layers", LAYERS, "--maximum", "4.5", "--select", "p*wise.weight", "--out", out, "--json")
        )
        assert (result.exit_code, result.stderr) == (0, "")
        found = strict_json(result.stdout)
        assert (found["schema"], found["settings"]) == (1, {"maximum": 4.5, "minimum": None})
        assert (found["model"], found["out"], found["tensors"]) == ("digits.safetensors", str(out), 14)
        (layer,) = found["layers"]
        assert (layer["name"], layer["dtype"], layer["changed"]) == ("pointwise.weight", "float32", True)
        assert layer["before"]["sigma_max"]["value"] == pytest.approx(4.99199, rel=1e-5)
        assert layer["after"]["sigma_max"]["upper"] <= 4.5
        assert layer["after"]["sigma_max"]["basis"].startswith("theorem")
        assert 0.0 <= layer["gap"] <= 1e-3
        old, new = (
            np.frombuffer(parts(path)[0]["pointwise.weight"][2], "<f4").astype(np.float64) for path in (DIGITS, out)
        )
        assert layer["distance"] == pytest.approx(np.linalg.norm(new - old) / np.linalg.norm(old), rel=1e-9)


class TestFormats:
    @pytest.mark.parametrize("kind", ["F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"])
    def test_number_formats(self, tmp_path: Path, kind: str) -> None:
        dtype = np.dtype(
            {
                "F64": np.float64,
                "F32": np.float32,
                "F16": np.float16,
                "BF16": ml_dtypes.bfloat16,
                "F8_E4M3": ml_dtypes.float8_e4m3fn,
                "F8_E5M2": ml_dtypes.float8_e5m2,
            }[kind]
        )
        kernel = RNG.standard_normal((3, 2, 3, 3)).astype(dtype)
        others: Table = {
            "mean": ("F32", [2], b"\x01\x00\xa0\x7f\x00\x00\x80\xff"),  # a signalling NaN, an infinity
            "steps": ("I64", [], (7).to_bytes(8, "little")),
            "on": ("BOOL", [3], b"\x01\x00\x01"),
            "none": ("F16", [0, 4], b""),
            "packed": ("F4", [4], b"\x12\x34"),
            "exponents": ("F8_E8M0", [2], b"\x7f\x80"),
            "wave": ("C64", [1], bytes(8)),
        }
        table: Table = {"on.0": others["on"], "conv.weight": (kind, [3, 2, 3, 3], kernel.tobytes()), **others}
        source = write(tmp_path / "a.safetensors", table, {"format": "pt", "ü": "\x1b"})
        layers, out = document(tmp_path, {"weight": "conv.weight"}), tmp_path / "b.safetensors"
        result = clip_model(source, 1.5, out, layers=layers, maxiter=40)
        found, metadata = parts(out)
        assert metadata == {"format": "pt", "ü": "\x1b"}
        assert {name: part for name, part in found.items() if name != "conv.weight"} == {
            name: part for name, part in table.items() if name != "conv.weight"
        }
        assert found["conv.weight"][:2] == (kind, [3, 2, 3, 3])
        norm = largest(out, layers)["conv.weight"]
        # Rounding of the kernel, and the shrinking that it calls for.
        assert 1.5 * (1 - 4 * float(ml_dtypes.finfo(dtype).eps) - 1e-3) <= norm <= 1.5 * (1 + TINY)
        assert result.layers[0].after is not None
        assert result.layers[0].after.sigma_max.upper <= 1.5
        assert result.layers[0].dtype == dtype.name

    @given(
        family=st.sampled_from(["plain", "last", "transposed", "transposed last", "depthwise"]),
        ndim=st.integers(1, 3),
        groups=st.sampled_from([1, 2]),
        inner=st.integers(1, 3),
        outer=st.integers(1, 3),
    )
    @settings(max_examples=40)
    def test_every_layout_comes_back_as_it_was_stored(
        self, family: str, ndim: int, groups: int, inner: int, outer: int
    ) -> None:
        layout = {
            "plain": PLAIN,
            "last": CHANNELS_LAST,
            "transposed": TRANSPOSED,
            "transposed last": CHANNELS_LAST,
            "depthwise": DEPTHWISE,
        }[family][ndim - 1]
        transposed = family.startswith("transposed")
        sizes = {"I": inner, "O": outer, "C": inner, "M": outer, "D": 2, "H": 3, "W": 1 if ndim == 3 else 2}
        sizes["I" if transposed else "O"] *= groups
        stored = RNG.standard_normal([sizes[letter] for letter in layout])
        tensor = StoredTensor(name="w", shape=stored.shape, dtype="float64", floating=True, load=lambda: stored)
        entry = LayerEntry(
            weight="w",
            where="w",
            layout=layout,
            transposed=transposed,
            groups=inner if family == "depthwise" else groups,
            padding=0 if transposed else "same",
            input_size=4,
        )
        layer: Any = build_layer(entry, tensor)
        np.testing.assert_array_equal(as_stored(layer.operator.kernel, layout, stored.shape), stored)

    @pytest.mark.parametrize(
        ("shape", "entry"),
        [
            ((4, 2, 3, 3), {"layout": "OIHW"}),
            ((4, 1, 3, 3), {"layout": "OIHW", "groups": 2, "stride": 2}),
            ((3, 2, 2, 4), {"layout": "HWIO", "padding": "same"}),
            ((3, 3, 2, 2), {"layout": "HWCM", "groups": 2}),
            ((2, 4, 3, 2), {"layout": "IOHW", "op": "conv_transpose", "padding": 0, "stride": 2}),
            ((2, 3, 4, 2), {"layout": "HWIO", "op": "conv_transpose", "padding": 0}),
            ((4, 2, 3), {"layout": "OIW", "input_size": [9]}),
            ((2, 2, 2, 2, 3), {"layout": "DHWIO", "padding": 0, "input_size": [3, 3, 3]}),
        ],
        ids=lambda value: value.get("layout") if isinstance(value, dict) else None,
    )
    def test_layouts(self, tmp_path: Path, shape: tuple[int, ...], entry: dict[str, Any]) -> None:
        source, out = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
        save_file({"w": RNG.standard_normal(shape)}, source)
        layers = document(tmp_path, {"weight": "w"} | entry)
        before = largest(source, layers)["w"]
        (record,) = clip_model(source, 0.6 * before, out, layers=layers, maxiter=40).layers
        assert parts(out)[0]["w"][:2] == ("F64", list(shape))
        assert 0.59 * before <= largest(out, layers)["w"] <= 0.6 * before * (1 + TINY)
        # No farther than plain rescaling, which a kernel that was turned on the way would be.
        assert record.distance <= 0.4 + 1e-9
        old, new = (np.frombuffer(parts(path)[0]["w"][2], "<f8") for path in (source, out))
        assert np.linalg.norm(new - old) == pytest.approx(record.distance * np.linalg.norm(old), rel=1e-12)

    def test_numpy_archives(self, tmp_path: Path) -> None:
        source, out = tmp_path / "a.npz", tmp_path / "b.safetensors"
        kernel = RNG.standard_normal((3, 2, 3, 3))
        mean = np.array([1.5, -0.0, np.inf])
        np.savez(
            source,
            **{"conv.weight": np.asfortranarray(kernel.astype(">f4")), "mean": mean.astype(">f8")},
            count=np.array(3, ">u2"),
            words=np.array([{"a": 1}], object),
        )
        result = run(
            source, "--layers", document(tmp_path, {"weight": "conv.weight"}), "--maximum", "1", "--out", out
        )
        assert result.exit_code == 0
        assert "not in the new file: words: an object array" in result.stdout
        found, metadata = parts(out)
        assert metadata == {}
        assert found["mean"] == ("F64", [3], mean.astype("<f8").tobytes())
        assert found["count"] == ("U16", [], b"\x03\x00")
        assert found["conv.weight"][:2] == ("F32", [3, 2, 3, 3])
        assert largest(out, tmp_path / "layers.json")["conv.weight"] <= 1 + TINY

    def test_what_no_type_can_hold_stops_it_before_the_work(self, tmp_path: Path) -> None:
        source, out = tmp_path / "a.npz", tmp_path / "b.safetensors"
        np.savez(source, **{"conv.weight": RNG.standard_normal((2, 2, 3, 3))}, wide=np.ones(2, complex), text=["a"])
        result = run(source, "--maximum", "1", "--out", out)
        assert result.exit_code == 2
        assert "numbers for which .safetensors has no type: wide (complex128), text (<U1)" in result.stderr
        assert not out.exists()

    def test_files_in_parts(self, tmp_path: Path) -> None:
        save_file({"a.weight": RNG.standard_normal((2, 2, 3, 3))}, tmp_path / "one.safetensors", {"format": "pt"})
        save_file({"b.bias": np.arange(3.0), "old": np.ones(1)}, tmp_path / "two.safetensors")
        index = tmp_path / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": {"a.weight": "one.safetensors", "b.bias": "two.safetensors"}}))
        out, layers = tmp_path / "new.safetensors", document(tmp_path, {"weight": "a.weight"})
        result = clip_model(index, 1.0, out, layers=layers)
        found, metadata = parts(out)
        assert metadata == {"format": "pt"}
        assert found.keys() == {"a.weight", "b.bias"}
        assert found["b.bias"][2] == np.arange(3.0).tobytes()
        assert result.left_out == (("old", "stands in two.safetensors, but the index does not name it"),)
        with pytest.raises(ValueError, match=r"`out` must not be .*two\.safetensors, which is read"):
            clip_model(index, 1.0, tmp_path / "two.safetensors", layers=layers, overwrite=True)

    def test_state_dicts(self, tmp_path: Path) -> None:
        torch = pytest.importorskip("torch")
        source, out = tmp_path / "a.pth", tmp_path / "b.safetensors"
        state = {
            "conv.weight": torch.randn(3, 2, 3, 3, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16),
            "bn.num_batches_tracked": torch.tensor(12),
            "mask": torch.tensor([True, False]),
            "turned": torch.arange(6.0).reshape(2, 3).T,
            "empty": torch.zeros(0, 3),
        }
        optimizer = {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": []}
        torch.save({"state_dict": state, "optimizer": optimizer}, source)
        layers = document(tmp_path, {"weight": "conv.weight"})
        result = clip_model(source, 1.0, out, layers=layers)
        assert result.left_out == (("optimizer", "optimizer state, not weights"),)
        found, _ = parts(out)
        assert found["bn.num_batches_tracked"] == ("I64", [], (12).to_bytes(8, "little"))
        assert found["mask"] == ("BOOL", [2], b"\x01\x00")
        assert found["turned"] == ("F32", [3, 2], np.array([0, 3, 1, 4, 2, 5], "<f4").tobytes())
        assert found["empty"] == ("F32", [0, 3], b"")
        assert found["conv.weight"][:2] == ("BF16", [3, 2, 3, 3])
        assert largest(out, layers)["conv.weight"] <= 1 + TINY

    def test_tied_tensors_are_refused(self, tmp_path: Path) -> None:
        torch = pytest.importorskip("torch")
        weight = torch.ones(2, 2, 3, 3)
        torch.save({"a.weight": weight, "b.weight": weight, "c.weight": weight.clone()}, tmp_path / "a.pth")
        model = read_model(tmp_path / "a.pth")
        with pytest.raises(ModelError, match=r"a\.weight, b\.weight are one tensor"):
            clip_model(model, 1.0, tmp_path / "b.safetensors")
        assert clip_model(model, 1.0, tmp_path / "b.safetensors", select="c.").complete

    def test_keras(self, tmp_path: Path) -> None:
        h5py = pytest.importorskip("h5py")
        source, out = tmp_path / "a.weights.h5", tmp_path / "b.safetensors"
        kernel = RNG.standard_normal((3, 3, 2, 4)).astype(np.float32)
        with h5py.File(source, "w") as file:
            file["layers/conv2d/vars/0"], file["layers/conv2d/vars/1"] = kernel, np.zeros(4, np.float32)
            file["layers/conv2d_transpose/vars/0"] = kernel
            file["optimizer/vars/0"] = np.array(3)
        model = read_model(source, input_size=(2, 5, 5))
        result = clip_model(model, 1.0, out, select="layers/conv2d/*")
        found, _ = parts(out)
        assert found["layers/conv2d/vars/0"][:2] == ("F32", [3, 3, 2, 4])
        assert found["layers/conv2d_transpose/vars/0"] == ("F32", [3, 3, 2, 4], kernel.tobytes())
        assert result.tensors == len(found)
        layer = np.frombuffer(found["layers/conv2d/vars/0"][2], "<f4").reshape(kernel.shape)
        conv = result.layers[0].after
        assert conv is not None
        assert conv.sigma_max.upper <= 1.0
        assert not np.array_equal(layer, kernel)
        # Keras stores (out, in), the layer is read as (in, out): there is no way back that a reader would know.
        with pytest.raises(ModelError, match=r"does not hold layers/conv2d_transpose/vars/0 as its layer applies it"):
            clip_model(model, 1.0, out, overwrite=True)

    def test_onnx(self, tmp_path: Path) -> None:
        pytest.importorskip("onnx")
        from onnx import TensorProto, helper, numpy_helper

        kernel = RNG.standard_normal((2, 2, 3, 3)).astype(np.float32)

        def save(*nodes: Any) -> Path:
            image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 6, 6])
            result = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
            tensors = {"w": kernel, "v": kernel, "shape": np.array([1, -1])}
            table = [numpy_helper.from_array(array, name) for name, array in tensors.items()]
            graph = helper.make_graph(list(nodes), "g", [image], [result], table)
            model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
            (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
            return tmp_path / "m.onnx"

        def conv(source: str, weight: str, target: str) -> Any:
            return helper.make_node("Conv", [source, weight], [target], name=target, pads=[1, 1, 1, 1])

        nodes = [conv("x", "w", "h"), conv("h", "v", "i"), conv("i", "v", "k")]
        model = read_model(save(*nodes, helper.make_node("Reshape", ["k", "shape"], ["y"])))
        out = tmp_path / "b.safetensors"
        clip_model(model, 1.0, out, select="w")
        found, _ = parts(out)
        assert found["shape"] == ("I64", [2], np.array([1, -1], "<i8").tobytes())
        assert found["v"] == ("F32", [2, 2, 3, 3], kernel.tobytes())
        assert largest(out, document(tmp_path, {"weight": "w"}))["w"] <= 1 + TINY
        with pytest.raises(ModelError, match="v serves 2 layers, and what is below for one need not be"):
            clip_model(model, 1.0, out, overwrite=True)


class TestMinimum:
    def test_smallest_values_are_raised_and_shown(self, tmp_path: Path) -> None:
        source, out = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
        table = {"a.weight": np.diag([4.0, 0.1, 0.7]), "b.weight": np.diag([0.9, 0.6, 0.7])}
        save_file({name: matrix[..., None, None].astype(np.float16) for name, matrix in table.items()}, source)
        result = run(source, "--maximum", "1", "--minimum", "0.5", "--out", out, "--input-size", "3x4x4")
        assert result.exit_code == 0
        assert max(map(len, result.stdout.splitlines())) <= 80
        rows = [line.split() for line in result.stdout.splitlines() if " min " in line]
        assert [row[row.index("min") + 1] for row in rows] == ["0.0999756", "0.600098"]
        new = np.frombuffer(parts(out)[0]["a.weight"][2], "<f2").reshape(3, 3).astype(np.float64)
        values = np.linalg.svd(new, compute_uv=False)
        assert values[0] <= 1.0
        assert values[-1] == pytest.approx(0.5, rel=2e-3)
        assert parts(out)[0]["b.weight"] == parts(source)[0]["b.weight"]

    def test_what_is_not_reached_is_said_and_no_failure(self, tmp_path: Path) -> None:
        source, out = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
        save_file({"a.weight": RNG.standard_normal((2, 2, 3, 3))}, source)
        arguments = ("--maximum", "1", "--minimum", "1", "--out", out, "--input-size", "2x4x4", "--maxiter", "20")
        result = run(source, *arguments)
        assert result.exit_code == 0
        assert "1 of 1 layers stayed below the minimum 1: raising smallest values" in result.stdout
        found = read_model(out, input_size=(2, 4, 4)).layers[0].operator
        assert np.linalg.norm(naive_matrix(found), 2) <= 1 + TINY


class TestNothingIsWritten:
    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        kernels = {name: RNG.standard_normal((2, 2, 3, 3)) for name in ("a.weight", "b.weight")}
        save_file(kernels, tmp_path / "a.safetensors")
        return tmp_path / "a.safetensors"

    def test_where_a_layer_fails(self, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        done: Callable[..., Any] = clipping_module.clip

        def fail(conv: Any, *arguments: Any, **options: Any) -> Any:
            if conv.kernel[0, 0, 0, 0] == kernel[0, 0, 0, 0]:
                raise MemoryError("\x1b[31mtoo large")
            return done(conv, *arguments, **options)

        kernel = np.frombuffer(parts(source)[0]["b.weight"][2], "<f8").reshape(2, 2, 3, 3)
        monkeypatch.setattr(clipping_module, "clip", fail)
        out = source.parent / "b.safetensors"
        result = run(source, "--maximum", "1", "--out", out, "--input-size", "2x6x6", "--maxiter", "9")
        assert result.exit_code == 1
        assert "not clipped" in result.stdout
        assert r"! b.weight: \x1b[31mtoo large" in result.stdout
        assert "Nothing was written" in result.stdout
        assert list(source.parent.iterdir()) == [source]
        result = run(source, "--maximum", "1", "--out", out, "--input-size", "2x6x6", "--json")
        found = strict_json(result.stdout)
        assert (result.exit_code, found["out"]) == (1, None)
        assert (found["layers"][1]["after"], found["layers"][1]["reason"]) == (None, "\x1b[31mtoo large")
        assert found["layers"][1]["before"]["sigma_max"]["value"] > 1.0

    def test_where_the_disk_is_full(self, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        out = source.parent / "b.safetensors"
        out.write_bytes(b"mine")

        def full(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", full)
        result = run(source, "--maximum", "99", "--out", out, "--overwrite")
        assert result.exit_code == 2
        assert f"{out} could not be written: No space left on device." in result.stderr
        assert out.read_bytes() == b"mine"
        assert sorted(source.parent.iterdir()) == [source, out]

    def test_where_the_file_is_there_already(self, source: Path) -> None:
        out = source.parent / "b.safetensors"
        out.write_bytes(b"mine")
        result = run(source, "--maximum", "99", "--out", out)
        assert (result.exit_code, out.read_bytes()) == (2, b"mine")
        assert "`--out` must be a new file" in result.stderr
        assert "pass --overwrite" in result.stderr
        assert run(source, "--maximum", "99", "--out", out, "--overwrite").exit_code == 0
        assert parts(out) == parts(source)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("--maximum", "0"), "`--maximum` must be positive and finite; got 0.0"),
            (("--maximum", "nan"), "`--maximum` must be positive and finite; got nan"),
            (("--maximum", "1", "--minimum", "2"), "`--minimum` must lie between 0 and the maximum, 1.0; got 2.0"),
            (("--maximum", "1", "--rtol", "2"), "`--rtol` must lie between 0 and 1; got 2.0"),
            (("--maximum", "1", "--maxiter", "0"), "`--maxiter` must be an integer of at least 1; got 0"),
            (("--maximum", "1", "--select", "c"), "`--select` must match a layer of a.safetensors; got 'c'"),
            (("--maximum", "1", "--out", "new.npz"), "`--out` must end in .safetensors; got 'new.npz'"),
            (("--maximum", "1", "--out", "no/b.safetensors"), "`--out` must be a file in a folder that exists"),
            (
                ("--maximum", "1", "--out", "a.safetensors"),
                "`--out` must not be a.safetensors, which is used",
            ),
            (("--maximum", "1", "--fold-batchnorm"), "No such option"),
        ],
    )
    def test_refused(
        self, source: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
    ) -> None:
        monkeypatch.chdir(source.parent)
        content = source.read_bytes()
        result = run("a.safetensors", "--out", "b.safetensors", *arguments)
        assert result.exit_code == 2
        assert message in " ".join(result.stderr.split())
        assert list(source.parent.iterdir()) == [source]
        assert source.read_bytes() == content

    def test_kernels_that_are_not_stored_as_applied(self, source: Path, tmp_path: Path) -> None:
        out = tmp_path / "b.safetensors"
        parts_of = {"c.weight_g": np.ones((2, 1, 1, 1)), "c.weight_v": RNG.standard_normal((2, 2, 3, 3))}
        save_file(parts_of, tmp_path / "normed.safetensors")
        with pytest.raises(ModelError, match=r"does not hold c\.weight as its layer applies it, but in parts"):
            clip_model(tmp_path / "normed.safetensors", 0.1, out)
        model = read_model(source)
        folded = dataclasses.replace(model.layers[0], folded=("bn1",))
        with pytest.raises(ModelError, match=r"a\.weight is scaled by the batch norm bn1"):
            clip_model(dataclasses.replace(model, layers=(folded,)), 1.0, out)
        with pytest.raises(ValueError, match="`input_size` and `layers` go with a path"):
            clip_model(model, 1.0, out, input_size=(2, 6, 6))

    def test_convolutions_that_cannot_be_analysed(self, tmp_path: Path) -> None:
        good = RNG.standard_normal((2, 2, 3, 3))
        save_file({"a.weight": good, "b.weight": np.where(good > 0, np.nan, 1.0)}, tmp_path / "a.safetensors")
        out = tmp_path / "b.safetensors"
        result = run(tmp_path / "a.safetensors", "--maximum", "1", "--out", out, "--input-size", "2x6x6")
        assert result.exit_code == 2
        assert "b.weight cannot be brought below the maximum: a convolution of shape" in result.stderr
        assert "Or leave this layer out: `--select` others." in result.stderr
        arguments = ("--maximum", "1", "--out", out, "--input-size", "2x6x6", "--select", "a.weight")
        result = run(tmp_path / "a.safetensors", *arguments)
        assert result.exit_code == 0
        assert "a.weight*" in result.stdout
        assert parts(out)[0]["b.weight"] == parts(tmp_path / "a.safetensors")[0]["b.weight"]

    def test_live_modules(self, tmp_path: Path) -> None:
        torch = pytest.importorskip("torch")
        model = read_model(torch.nn.Conv2d(2, 2, 3))
        with pytest.raises(ModelError, match="is a live module, which has no file"):
            clip_model(model, 1.0, tmp_path / "b.safetensors")


def test_a_damaged_member_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **{"a.weight": RNG.standard_normal((2, 2, 3, 3))})
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
        archive.writestr("b.npy", b"nothing")
    found = clip_model(tmp_path / "a.npz", 1.0, tmp_path / "b.safetensors", input_size=(2, 5, 5))
    assert [name for name, _ in found.left_out] == ["b"]
    assert found.document()["left_out"][0]["reason"].startswith("its header is damaged")
