"""The readers: number formats, damaged and hostile files, checkpoints with state dicts inside."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from safetensors.numpy import save_file

from spectral_conv.models import Model, ModelError, read_model, torch_file

RNG = np.random.default_rng(22)
KERNEL = RNG.standard_normal((4, 3, 3, 3))


def kernel_of(model: Model) -> Any:
    (layer,) = model.layers
    return layer.operator.kernel.transpose(3, 2, 0, 1)


def write_safetensors(path: Path, header: Any, data: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


class TestSafetensors:
    @pytest.mark.parametrize(
        ("code", "dtype"),
        [
            ("F64", "float64"),
            ("F32", "float32"),
            ("F16", "float16"),
            ("BF16", "bfloat16"),
            ("F8_E4M3", "float8_e4m3fn"),
            ("F8_E4M3FNUZ", "float8_e4m3fnuz"),
            ("F8_E5M2", "float8_e5m2"),
            ("F8_E5M2FNUZ", "float8_e5m2fnuz"),
        ],
    )
    def test_every_floating_type(self, tmp_path: Path, code: str, dtype: str) -> None:
        stored = KERNEL.astype(getattr(ml_dtypes, dtype, dtype))
        info = {"dtype": code, "shape": [4, 3, 3, 3], "data_offsets": [0, stored.nbytes]}
        header = {"__metadata__": {"format": "pt"}, "conv.weight": info}
        path = write_safetensors(tmp_path / "m.safetensors", header, stored.tobytes())
        assert_array_equal(kernel_of(read_model(path)), stored.astype(np.float64))

    def test_types_that_are_no_weights_are_listed(self, tmp_path: Path) -> None:
        good = {"dtype": "F64", "shape": [4, 3, 3, 3], "data_offsets": [0, KERNEL.nbytes]}
        end = KERNEL.nbytes
        header = {
            "good.weight": good,
            "four.weight": {"dtype": "F4", "shape": [1, 1, 2, 2], "data_offsets": [end, end + 2]},
            "new.weight": {"dtype": "X9", "shape": [1, 1, 2, 2], "data_offsets": [end + 2, end + 3]},
        }
        path = write_safetensors(tmp_path / "m.safetensors", header, KERNEL.tobytes() + bytes(3))
        model = read_model(path)
        assert {item.name: "must be real floating" in item.reason for item in model.skipped} == {
            "four.weight": True,
            "new.weight": True,
        }

    @pytest.mark.parametrize("kept", [3, 8, 9, 40, 200, -1])
    def test_truncated(self, tmp_path: Path, kept: int) -> None:
        path = tmp_path / "m.safetensors"
        save_file({"conv.weight": KERNEL}, path)
        path.write_bytes(path.read_bytes()[:kept])
        with pytest.raises(ModelError, match=r"m\.safetensors is truncated"):
            read_model(path)

    @pytest.mark.parametrize(
        ("info", "message"),
        [
            (
                {"dtype": "F32", "shape": [4], "data_offsets": [0, 15]},
                r"shape \[4\] and type F32, but takes bytes",
            ),
            ({"dtype": "F32", "shape": [10**12], "data_offsets": [0, 16]}, r"\[1000000000000\] and type F32"),
            (
                {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]},
                r"truncated: .*4000000000000",
            ),
            ({"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]}, "must have `dtype`, `shape`"),
            ({"dtype": "F32", "shape": [4.0], "data_offsets": [0, 16]}, "must have `dtype`, `shape`"),
            ({"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}, "must have `dtype`, `shape`"),
            ({"dtype": "F32", "shape": [4], "data_offsets": [0]}, "must have `dtype`, `shape`"),
            ({"dtype": 32, "shape": [4], "data_offsets": [0, 16]}, "must have `dtype`, `shape`"),
            ("nothing", "must have `dtype`, `shape`"),
            (
                {"dtype": "F32", "shape": [3], "data_offsets": [4, 16]},
                "begins at byte 4 of the data, not at 0",
            ),
            (
                {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]},
                "4 bytes at its end belong to no tensor",
            ),
            ({"dtype": "X", "shape": [3], "data_offsets": [12, 0]}, "takes bytes 12 to 0"),
        ],
    )
    def test_entries_that_lie(self, tmp_path: Path, info: Any, message: str) -> None:
        path = write_safetensors(tmp_path / "m.safetensors", {"conv.weight": info}, bytes(16))
        with pytest.raises(ModelError, match=message):
            read_model(path)

    @pytest.mark.parametrize(
        ("header", "length", "message"),
        [
            (b"{}", 10**12, "header claims 1000000000000 bytes; the format allows 100000000"),
            (b"{}", 10**6, "header claims 1000000 bytes, the file holds 2"),
            (b'{"a": ', None, "header is not JSON"),
            (b'{"a":' * 50_000, None, "header is not JSON"),
            (b'{"\xff": 1}', None, "header is not JSON"),
            (b'{"a": {}, "a": {}}', None, "a name occurs twice"),
            (b'{"a": ' + b"9" * 5000 + b"}", None, "header is not JSON"),
            (b"[1]", None, "header is not a JSON object"),
        ],
    )
    def test_headers_that_lie(self, tmp_path: Path, header: bytes, length: int | None, message: str) -> None:
        path = write_safetensors(tmp_path / "m.safetensors", header, length=length)
        with pytest.raises(ModelError, match=message):
            read_model(path)

    def test_text_with_the_suffix(self, tmp_path: Path) -> None:
        (tmp_path / "m.safetensors").write_text("This is only a text file with some words.")
        with pytest.raises(ModelError, match="not a valid safetensors file: its header claims"):
            read_model(tmp_path / "m.safetensors")


class TestNpz:
    @pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
    @pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f8"])
    def test_arrays(self, tmp_path: Path, save: Any, dtype: str) -> None:
        stored = np.asfortranarray(KERNEL.astype(dtype))
        save(tmp_path / "m.npz", **{"conv.weight": stored, "conv.bias": np.zeros(4), "step": np.array(3)})
        model = read_model(tmp_path / "m.npz")
        assert model.format == "NumPy archive"
        assert_array_equal(kernel_of(model), stored.astype(np.float64))
        assert {item.name for item in model.skipped} == {"conv.bias", "step"}

    def test_object_arrays_are_never_unpickled(self, tmp_path: Path) -> None:
        objects = np.array([Bomb(tmp_path / "exploded")] * 2, dtype=object)
        np.savez(tmp_path / "both.npz", **{"conv.weight": KERNEL, "meta": objects})
        (skipped,) = read_model(tmp_path / "both.npz").skipped
        assert "object array" in skipped.reason
        np.savez(tmp_path / "only.npz", objects)
        with pytest.raises(ModelError, match=r"no convolution .* arr_0: an object array; reading it would unpickle"):
            read_model(tmp_path / "only.npz")
        document = {"layers": [dict.fromkeys(("stride", "padding", "dilation", "groups", "input_size"), 1)]}
        document["layers"][0]["weight"] = "meta"  # type: ignore[assignment]
        with pytest.raises(ModelError, match=r"'meta' of both.npz was not read: an object array"):
            read_model(tmp_path / "both.npz", layers=document)
        assert not (tmp_path / "exploded").exists()

    @pytest.mark.parametrize("kept", [20, 60, 500, 1000])
    def test_truncated(self, tmp_path: Path, kept: int) -> None:
        path = tmp_path / "m.npz"
        np.savez(path, **{"conv.weight": KERNEL})
        path.write_bytes(path.read_bytes()[:kept])
        with pytest.raises(ModelError, match=r"m\.npz begins as a zip archive but cannot be opened|no format"):
            read_model(path)

    def test_flipped_bytes_are_found(self, tmp_path: Path) -> None:
        path = tmp_path / "m.npz"
        np.savez(path, **{"a.weight": KERNEL, "b.weight": KERNEL})
        content = bytearray(path.read_bytes())
        content[400] ^= 0xFF  # in the numbers of the first array
        path.write_bytes(content)
        model = read_model(path)
        assert [layer.name for layer in model.layers] == ["b.weight"]
        assert "damaged" in model.skipped[0].reason

    def test_member_shorter_than_its_header_says(self, tmp_path: Path) -> None:
        path = tmp_path / "m.npz"
        buffer = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            buffer, {"descr": "<f8", "fortran_order": False, "shape": (10**6, 10**6, 3)}
        )
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("conv.weight.npy", buffer.getvalue() + bytes(100))
            archive.writestr("other.weight.npy", b"\x93NUMPY\x01\x00garbage")
            archive.writestr("readme.txt", "words")
        with pytest.raises(ModelError, match=r"header promises 24000000000000 bytes, the archive holds 100"):
            read_model(path)

    def test_zip_bombs(self, tmp_path: Path) -> None:
        path = tmp_path / "m.npz"
        zeros = bytes(2**20)
        with (
            zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
            archive.open("w.npy", "w") as member,
        ):
            for _ in range(80):
                member.write(zeros)
        with pytest.raises(ModelError, match=r"'w\.npy' from \d+ to 83886080 bytes .*refused as a zip bomb"):
            read_model(path)

    def test_declared_total(self, tmp_path: Path) -> None:
        path = tmp_path / "m.npz"
        np.savez(path, a=KERNEL, b=KERNEL, c=KERNEL)
        # Sizes stand at 20 and 24 of each entry of the directory: three times 4 GiB.
        head, *entries = path.read_bytes().split(b"PK\x01\x02")
        huge = struct.pack("<II", 2**32 - 2, 2**32 - 2)
        path.write_bytes(b"PK\x01\x02".join([head, *(entry[:16] + huge + entry[24:] for entry in entries)]))
        with pytest.raises(ModelError, match=r"12884901882 in all so far\); it is refused as a zip bomb"):
            read_model(path)

    def test_other_zip_archives(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "m.npz", "w") as archive:
            archive.writestr("word/document.xml", "<x/>")
        with pytest.raises(ModelError, match="a zip archive of something else"):
            read_model(tmp_path / "m.npz")

    def test_bfloat16_is_named(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "m.npz", **{"conv.weight": KERNEL.astype(ml_dtypes.bfloat16)})
        with pytest.raises(ModelError, match=r"cannot hold bfloat16 or float8: save .safetensors"):
            read_model(tmp_path / "m.npz")


class Bomb:
    """Unpickling this creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


class TestTorchMissing:
    """What people without PyTorch, or with an old one, are told."""

    @pytest.fixture
    def legacy(self, tmp_path: Path) -> Path:
        (tmp_path / "m.pth").write_bytes(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.")
        return tmp_path / "m.pth"

    def test_missing(self, legacy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "torch", None)
        with pytest.raises(ModelError, match=r"needs PyTorch, .*pip install 'spectral-conv\[torch\]'"):
            read_model(legacy)

    def test_old(self, legacy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        fake = types.ModuleType("torch")
        fake.__version__ = "2.5.1+cpu"  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "torch", fake)
        with pytest.raises(ModelError, match=r"needs PyTorch 2\.6 or newer: .*Installed is 2\.5\.1\+cpu"):
            read_model(legacy)

    @pytest.mark.parametrize("protocol", [2, 4])
    def test_pickle_is_not_run(self, tmp_path: Path, protocol: int) -> None:
        path = tmp_path / "m.pth"
        path.write_bytes(pickle.dumps({"conv.weight": Bomb(tmp_path / "exploded")}, protocol=protocol))
        with pytest.raises(ModelError, match=r"needs PyTorch|needs code to be unpickled \((posix|nt)\.mkdir\)"):
            read_model(path)
        assert not (tmp_path / "exploded").exists()


class TestTorch:
    @pytest.fixture(autouse=True)
    def torch(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        # The child process imports PyTorch anew, which takes seconds; test_models_torch.py has tests of it.
        monkeypatch.setattr(torch_file, "in_child", lambda parse, path, library, modules: parse(path))
        return pytest.importorskip("torch")

    @pytest.mark.parametrize("zipped", [True, False])
    @pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16", "float8_e4m3fn"])
    def test_number_formats(self, torch: Any, tmp_path: Path, zipped: bool, dtype: str) -> None:
        if not zipped and dtype.startswith("float8"):
            pytest.skip("torch does not write float8 into legacy files")
        stored = torch.tensor(KERNEL).to(getattr(torch, dtype))
        state = {"conv.weight": stored, "conv.bias": torch.zeros(4), "steps": torch.tensor(3)}
        torch.save(state, tmp_path / "m.pt", _use_new_zipfile_serialization=zipped)
        model = read_model(tmp_path / "m.pt")
        assert_array_equal(kernel_of(model), stored.to(torch.float64).numpy())
        assert {item.name for item in model.skipped} == {"conv.bias", "steps"}

    @pytest.mark.parametrize(
        ("wrap", "names"),
        [
            (lambda s: s, ["conv.weight"]),
            (lambda s: {"state_dict": s, "epoch": 3}, ["conv.weight"]),
            (lambda s: {"model": {"state_dict": s}}, ["conv.weight"]),
            (lambda s: {"state_dict": [s]}, ["conv.weight"]),
            (lambda s: [s, dict(s)], ["0.conv.weight", "1.conv.weight"]),
            (lambda s: {"state_dict": s, "ema": dict(s)}, ["state_dict.conv.weight", "ema.conv.weight"]),
            (lambda s: {"encoder": s, "decoder": dict(s)}, ["encoder.conv.weight", "decoder.conv.weight"]),
            (lambda s: {"net": s, "loss": s["conv.bias"]}, ["conv.weight"]),
        ],
    )
    def test_nesting(self, torch: Any, tmp_path: Path, wrap: Any, names: list[str]) -> None:
        state = {"conv.weight": torch.tensor(KERNEL), "conv.bias": torch.zeros(4)}
        torch.save(wrap(state), tmp_path / "m.pth")
        assert [layer.name for layer in read_model(tmp_path / "m.pth").layers] == names

    def test_optimizer_state_is_listed(self, torch: Any, tmp_path: Path) -> None:
        net = torch.nn.Conv2d(3, 4, 3)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        net(torch.zeros(1, 3, 8, 8)).sum().backward()
        optimizer.step()
        torch.save({"model": net.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "m.pth")
        model = read_model(tmp_path / "m.pth")
        assert [layer.name for layer in model.layers] == ["weight"]
        assert "optimizer state" in {item.name: item.reason for item in model.skipped}["optimizer"]

    def test_container_within_itself(self, torch: Any, tmp_path: Path) -> None:
        cyclic: dict[str, Any] = {"conv.weight": torch.tensor(KERNEL)}
        cyclic["again"] = [cyclic, cyclic]
        torch.save(cyclic, tmp_path / "m.pth")
        model = read_model(tmp_path / "m.pth")
        assert [layer.name for layer in model.layers] == ["conv.weight"]
        assert [(item.name, item.reason) for item in model.skipped] == [
            ("again.0", "the same state dict as the checkpoint"),
            ("again.1", "the same state dict as the checkpoint"),
        ]

    def test_single_tensor(self, torch: Any, tmp_path: Path) -> None:
        torch.save(torch.tensor(KERNEL), tmp_path / "m.pth")
        entry = {"stride": 1, "padding": 1, "dilation": 1, "groups": 1, "input_size": 8}
        model = read_model(tmp_path / "m.pth", layers={"layers": [{"weight": "tensor", **entry}]})
        assert_array_equal(kernel_of(model), KERNEL)

    def test_sparse_tensors_are_listed(self, torch: Any, tmp_path: Path) -> None:
        state = {"conv.weight": torch.tensor(KERNEL), "sparse.weight": torch.eye(3).to_sparse()}
        torch.save(state, tmp_path / "m.pth")
        (skipped,) = read_model(tmp_path / "m.pth").skipped
        assert "sparse" in skipped.reason

    @pytest.mark.parametrize("zipped", [True, False])
    def test_code_is_refused(self, torch: Any, tmp_path: Path, zipped: bool) -> None:
        content = {"conv.weight": Bomb(tmp_path / "exploded")}
        torch.save(content, tmp_path / "m.pth", _use_new_zipfile_serialization=zipped)
        with pytest.raises(ModelError, match=r"needs code to be unpickled \((posix|nt)\.mkdir\), which is refused"):
            read_model(tmp_path / "m.pth")
        torch.save(torch.nn.Conv2d(3, 4, 3), tmp_path / "net.pth", _use_new_zipfile_serialization=zipped)
        with pytest.raises(ModelError, match=r"needs code .*Conv2d.*torch\.save\(model\.state_dict\(\)"):
            read_model(tmp_path / "net.pth")
        assert not (tmp_path / "exploded").exists()

    @pytest.mark.parametrize("zipped", [True, False])
    @pytest.mark.parametrize("kept", [0.1, 0.5, 0.95])
    def test_truncated(self, torch: Any, tmp_path: Path, zipped: bool, kept: float) -> None:
        path = tmp_path / "m.pth"
        torch.save({"conv.weight": torch.tensor(KERNEL)}, path, _use_new_zipfile_serialization=zipped)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * kept)])
        with pytest.raises(ModelError, match=r"m\.pth (begins as a zip archive|cannot be read)"):
            read_model(path)

    @pytest.mark.parametrize("content", [b"no model at all", b"\x80\x02K\x05.", b"\x80\x02", b"\x00" * 50])
    def test_garbage(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "m.pth").write_bytes(content)
        with pytest.raises(ModelError, match=r"m\.pth cannot be read as a PyTorch state dict"):
            read_model(tmp_path / "m.pth")

    def test_torchscript_is_named(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "m.pt", "w") as archive:
            archive.writestr("m/data.pkl", b"\x80\x02}.")
            archive.writestr("m/constants.pkl", b"\x80\x02).")
        with pytest.raises(ModelError, match="TorchScript archive, which holds a program"):
            read_model(tmp_path / "m.pt")
