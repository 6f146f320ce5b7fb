"""The floors of the house: imports go down only, and heavy packages stay in their rooms."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "spectral_conv"

# Rooms (modules and folders right under the package) by floor; rooms of one floor do not import each other.
FLOORS = [
    {"geometry", "graph", "results", "_kernels", "_threads", "_whole_file"},
    {"operator", "gram", "kernel_adjoint", "symbols"},
    {"spectrum"},
    {"bounds", "orthogonal"},
    {"regularizers", "certification", "store", "labels", "progress"},
    {"descent", "models", "report"},
    {"inspection", "comparison", "clipping"},
    {"torch", "cli"},
]
# Private files directly under the package that belong to the room of another one.
ANNEXES = {"_taps": "operator", "_fourier": "operator"}
NEIGHBOURS = {
    ("symbols", "operator"),
    ("kernel_adjoint", "operator"),
    ("_threads", "_kernels"),
    ("comparison", "inspection"),
    ("clipping", "inspection"),
}
LABELLED = {"xarray", "zarr", "torch", "matplotlib", "onnx", "h5py"}
UNLABELLED_ROOMS = set().union(*FLOORS[:4]) | {"regularizers", "certification"}
TORCH_FILES = {"models/torch_file.py", "models/torch_module.py", "models/_stored.py"}


@dataclass(frozen=True)
class Import:
    file: str
    line: int
    target: str
    inside_function: str | None
    type_checking: bool

    def __str__(self) -> str:
        return f"spectral_conv/{self.file}:{self.line} imports {self.target}"


def _walk(node: ast.AST, file: str, function: str | None = None, typing: bool = False) -> Iterator[Import]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        function = node.name
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        for child in node.body:
            yield from _walk(child, file, function, True)
        for child in node.orelse:
            yield from _walk(child, file, function, typing)
        return
    for target in _targets(node, file):
        yield Import(file, node.lineno, target, function, typing)
    for child in ast.iter_child_nodes(node):
        yield from _walk(child, file, function, typing)


def _targets(node: ast.AST, file: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            folder = ["spectral_conv", *Path(file).parent.parts]
            base = ".".join([*folder[: len(folder) - node.level + 1], *([base] if base else [])])
        # `from spectral_conv import x` names the module x, not the package.
        yield from ([f"{base}.{alias.name}" for alias in node.names] if base == "spectral_conv" else [base])


def _imports() -> list[Import]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        file = path.relative_to(PACKAGE).as_posix()
        if file != "__init__.py":  # the map of the package, lazy, knows every room
            found += list(_walk(ast.parse(path.read_text(encoding="utf-8")), file))
    return found


def _room(module: str) -> str:
    return ANNEXES.get(module, module)


def _floor(room: str) -> int | None:
    return next((floor for floor, rooms in enumerate(FLOORS) if room in rooms), None)


def _upward(found: list[Import]) -> Iterator[str]:
    for item in found:
        parts = item.target.split(".")
        if parts[0] != "spectral_conv" or item.inside_function == "to_xarray":
            continue
        here, there = (
            _room(Path(item.file).parts[0].removesuffix(".py")),
            _room(parts[1] if parts[1:] else ""),
        )
        lower, upper = _floor(there), _floor(here)
        if upper is None:
            yield f"{item}: give `{here}` a floor in tests/test_layers.py"
        elif lower is None:
            yield f"{item}: no room of that name; import the module that defines it"
        elif here != there and (here, there) not in NEIGHBOURS and lower >= upper:
            yield f"{item}: L{upper} {here} must not import L{lower} {there}"


def _misplaced(found: list[Import]) -> Iterator[str]:
    for item in found:
        package, room = item.target.split(".")[0], _room(Path(item.file).parts[0].removesuffix(".py"))
        if item.type_checking:
            continue
        if package in {"numba", "llvmlite"} and room != "_kernels":
            yield f"{item}: numba is for _kernels alone"
        if package == "pyfftw" and item.inside_function is None:
            yield f"{item}: import it inside the function that needs it"
        if package in LABELLED and room in UNLABELLED_ROOMS:
            yield f"{item}: {room} is below the labelled floor"
        if package == "torch" and room != "torch" and (item.file not in TORCH_FILES or item.inside_function is None):
            yield f"{item}: torch is for torch/, and for functions of {', '.join(sorted(TORCH_FILES))}"
        if package == "xarray" and item.inside_function is None and room != "labels":
            yield f"{item}: half a second of import; import it inside the function that needs it"
        if package == "rich" and room not in {"report", "progress", "cli"}:
            yield f"{item}: rich is for report, progress and cli"
        if package in {"typer", "click"} and room != "cli":
            yield f"{item}: typer is for cli"
        if package == "pandas":
            yield f"{item}: xarray makes the frames"


def test_imports_go_down_only() -> None:
    assert list(_upward(_imports())) == []


def test_heavy_packages_stay_in_their_rooms() -> None:
    assert list(_misplaced(_imports())) == []


@pytest.mark.parametrize(
    ("file", "source", "complaint"),
    [
        (
            "geometry.py",
            "from spectral_conv.operator import ConvOperator",
            "L0 geometry must not import L1 operator",
        ),
        ("geometry.py", "from .spectrum import dense", "L0 geometry must not import L2 spectrum"),
        ("spectrum/dense.py", "from ..report.table import LayerTable", "must not import L5 report"),
        ("report/table.py", "from spectral_conv import models", "L5 report must not import L5 models"),
        (
            "operator.py",
            "def f():\n    from spectral_conv.symbols import symbol",
            "must not import L1 symbols",
        ),
        ("stray.py", "import spectral_conv.geometry", "give `stray` a floor"),
        ("report/table.py", "from spectral_conv import ConvOperator", "no room of that name"),
    ],
)
def test_a_wrong_direction_is_found(file: str, source: str, complaint: str) -> None:
    (message,) = _upward(list(_walk(ast.parse(source), file)))
    assert complaint in message


@pytest.mark.parametrize(
    ("file", "source", "allowed"),
    [
        ("spectrum/dense.py", "import numba", False),
        ("_kernels/dense.py", "import numba", True),
        ("results.py", "if TYPE_CHECKING:\n    import xarray", True),
        ("results.py", "def f():\n    import xarray", False),
        ("symbols/_transform.py", "import pyfftw", False),
        ("symbols/_transform.py", "def f():\n    import pyfftw", True),
        ("models/torch_file.py", "def f():\n    import torch", True),
        ("models/torch_file.py", "import torch", False),
        ("models/npz_file.py", "def f():\n    import torch", False),
        ("inspection.py", "import rich.console", False),
    ],
)
def test_a_misplaced_package_is_found(file: str, source: str, allowed: bool) -> None:
    assert (not list(_misplaced(list(_walk(ast.parse(source), file))))) == allowed


def test_labelling_from_to_xarray_is_the_one_exception() -> None:
    source = "class A:\n    def {}(self):\n        from spectral_conv.labels import label"
    assert not list(_upward(list(_walk(ast.parse(source.format("to_xarray")), "results.py"))))
    assert list(_upward(list(_walk(ast.parse(source.format("other")), "results.py"))))
