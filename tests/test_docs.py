"""What the README and the documentation show runs as it stands."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import pkgutil
import re
import runpy
import shlex
import shutil
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pytest
from safetensors.numpy import save_file
from typer.testing import CliRunner

import spectral_conv
from spectral_conv.cli import app

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
SCRIPTS = sorted([*DOCS.glob("gallery/plot_*.py"), *DOCS.glob("tutorial/plot_*.py")])
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)
HAS_TORCH = find_spec("torch") is not None


class Block(NamedTuple):
    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    return [Block(*match.groups()) for match in FENCE.finditer(page.read_text(encoding="utf-8"))]


def pages_with(language: str) -> list[Path]:
    return [page for page in PAGES if any(block.language == language for block in blocks(page))]


def commands() -> list[str]:
    """Every line that calls the command line, once; comments go."""
    text = "".join(block.text for page in PAGES for block in blocks(page) if block.language == "console")
    lines = (line.split("  #")[0].strip() for line in text.splitlines())
    return list(dict.fromkeys(line for line in lines if line.startswith("spectral-conv")))


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the pages speak of."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    here = tmp_path_factory.mktemp("material")
    rng = np.random.default_rng(0)
    first, second = (rng.standard_normal(shape).astype(np.float32) / 4 for shape in ((2, 3, 3, 3), (2, 2, 3, 3)))
    weights = {"conv1.weight": first, "conv2.weight": second}
    save_file(weights, here / "model.safetensors")
    save_file(weights, here / "before.safetensors")
    save_file({**weights, "conv2.weight": 2 * second}, here / "after.safetensors")
    nodes = [
        helper.make_node("Conv", ["x", "conv1.weight"], ["y"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["y"], ["z"]),
        helper.make_node("Conv", ["z", "conv2.weight"], ["out"], pads=[1, 1, 1, 1]),
    ]
    shapes = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", [1, 3, 6, 6]), ("out", [1, 2, 6, 6]))
    ]
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "net", shapes[:1], shapes[1:], tensors)
    net = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(net, here / "model.onnx")
    # Images of 6 x 6 pixels: what a reader would write into the file.
    layers = spectral_conv.models.layers_document(spectral_conv.read_model(here / "model.onnx"))
    (here / "layers.json").write_text(json.dumps(layers), encoding="utf-8")
    return here


@pytest.fixture
def folder(material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with these files, and nothing else."""
    shutil.copytree(material, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("page", pages_with("python"), ids=lambda page: page.stem)
def test_python_blocks_run(page: Path) -> None:
    """One after the other, as a reader would; what is shown right below a block is what it prints."""
    names: dict[str, object] = {"__name__": "page"}
    found = blocks(page)
    skipped = False
    for number, block in enumerate(found):
        if block.language != "python":
            continue
        if "torch" in block.text and not HAS_TORCH:
            skipped = True
            continue
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(block.text, f"{page.name}, block {number}", "exec"), names)
        shown = found[number + 1] if number + 1 < len(found) else None
        if shown is not None and shown.language == "text" and _follows(page, block, shown):
            assert out.getvalue() == shown.text
    if skipped and len(names) == 1:
        pytest.skip("this page needs PyTorch")


def _follows(page: Path, block: Block, shown: Block) -> bool:
    return f"{block.text}```\n\n```text\n{shown.text}" in page.read_text(encoding="utf-8")


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("command", commands())
def test_console_lines_run(command: str) -> None:
    call, _, target = command.partition(" > ")
    result = CliRunner().invoke(app, shlex.split(call)[1:])
    assert result.exit_code == 0, result.output
    if target == "layers.json":
        printed = json.loads(result.stdout)["layers"]
        assert [layer["weight"] for layer in printed] == ["conv1.weight", "conv2.weight"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_scripts_of_the_gallery_run(script: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import matplotlib
    import matplotlib.pyplot as plt

    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    try:
        runpy.run_path(str(script))
        assert plt.get_fignums(), "a page of the gallery needs a figure"
    finally:
        plt.close("all")


def _documented(page: Path) -> set[str]:
    """Full names in the tables of a page of the reference."""
    names, module = set(), ""
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith(".. currentmodule::"):
            module = line.split()[-1]
        elif re.fullmatch(r"   [\w.]+", line):
            names.add(f"{module}.{line.strip()}")
    return names


def _resolve(path: str) -> object:
    module, _, name = path.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except ImportError:  # a class or a module that is an attribute
        return getattr(_resolve(module), name)


def _listed(module: str) -> list[str]:
    return list(getattr(import_module(module), "__all__", ()))


def test_every_public_name_is_in_the_reference() -> None:
    documented = set().union(*(_documented(page) for page in (DOCS / "api").glob("[!i]*.rst")))
    in_torch = {path for path in documented if path.startswith("spectral_conv.torch.")}
    found = [_resolve(path) for path in documented - in_torch]
    walked = (module.name for module in pkgutil.walk_packages(spectral_conv.__path__, "spectral_conv."))
    for module in ["spectral_conv", *(name for name in walked if not name.startswith("spectral_conv.torch"))]:
        for name in _listed(module):
            thing = getattr(import_module(module), name)
            if not isinstance(thing, ModuleType | str | int):
                assert any(thing is other for other in found), f"{module}.{name} is not in docs/api"
    # PyTorch may be missing: its names are read, not imported.
    tree = ast.parse((ROOT / "spectral_conv" / "torch" / "__init__.py").read_text(encoding="utf-8"))
    (names,) = (node.value for node in tree.body if ast.unparse(node).startswith("__all__ ="))
    assert in_torch == {f"spectral_conv.torch.{name}" for name in ast.literal_eval(names)}


def test_no_page_links_to_a_file_that_is_missing() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)|(?:src|srcset)=\"([^\":]+)\"", page.read_text("utf-8")):
            path = next(filter(None, target))
            if not path.startswith("generated/"):
                assert (page.parent / path).exists(), f"{page.name} links to {path}"


@pytest.mark.parametrize("name", ["exact_and_fft_light.svg", "exact_and_fft_dark.svg"])
def test_the_picture_of_the_readme_is_small(name: str) -> None:
    assert (DOCS / "_static" / name).stat().st_size < 150_000


def test_the_floors_in_the_documentation_are_those_of_the_package() -> None:
    drawing = runpy.run_path(str(DOCS / "figures" / "floors.py"))
    committed = (DOCS / "_static" / "floors.svg").read_text(encoding="utf-8")
    assert committed == drawing["draw"](drawing["floors"]()), "run python docs/figures/floors.py"
