"""What is published: the wheel is the package and nothing else, the source archive all that it takes to check it."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import spectral_conv

ROOT = Path(__file__).parents[1]
NAME = f"spectral_conv-{spectral_conv.__version__}"
LEFT_OUT = {"__pycache__", "_build", "generated", ".hypothesis"}
ALONE = {"README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "Makefile", "pyproject.toml"}


def source_files(folder: str) -> set[str]:
    paths = (path for path in (ROOT / folder).rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {path.relative_to(ROOT).as_posix() for path in paths if not LEFT_OUT & set(path.parts)}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


def test_the_wheel_is_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        entry_points = archive.read(f"{NAME}.dist-info/entry_points.txt").decode()
        metadata = archive.read(f"{NAME}.dist-info/METADATA").decode()
    ours = {name for name in names if name.startswith("spectral_conv/")}
    assert ours == source_files("spectral_conv")
    assert {name.split("/")[0] for name in names - ours} == {f"{NAME}.dist-info"}
    assert f"{NAME}.dist-info/licenses/LICENSE" in names
    assert {"spectral_conv/py.typed", "spectral_conv/data/digits.safetensors", "spectral_conv/data/README.md"} < ours
    assert "spectral-conv = spectral_conv.cli:main" in entry_points
    assert "License-Expression: BSD-3-Clause" in metadata
    assert wheel.stat().st_size < 2e6


def test_the_wheel_is_for_every_platform_and_names_its_dependencies(wheel: Path) -> None:
    assert wheel.name == f"{NAME}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        lines = archive.read(f"{NAME}.dist-info/METADATA").decode().splitlines()
    always = [line for line in lines if line.startswith("Requires-Dist") and "extra" not in line]
    needed = {line.split()[1].split(">")[0] for line in always}
    assert {"numpy", "scipy", "numba", "xarray", "zarr"} <= needed
    assert not needed & {"torch", "onnx", "h5py", "pytest", "sphinx"}


def test_the_source_archive_has_what_it_takes_to_check_the_package(built: Path) -> None:
    (found,) = built.glob("*.tar.gz")
    with tarfile.open(found) as archive:
        names = {name.removeprefix(f"{NAME}/") for name in archive.getnames()}
    for folder in ("spectral_conv", "tests", "validation", "examples", "docs"):
        assert {name for name in source_files(folder) if name.endswith((".py", ".md", ".rst"))} <= names
    assert not [name for name in names if LEFT_OUT & set(name.split("/"))]
    assert {name for name in names if "/" not in name} == ALONE | {"PKG-INFO", ".gitignore"}
    assert found.stat().st_size < 3e6


def test_version_and_licence_are_the_same_everywhere() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f"\nversion: {spectral_conv.__version__}\n" in citation
    assert f'\nversion = "{spectral_conv.__version__}"\n' in project
    assert f"\n## {spectral_conv.__version__}" in changes
    assert "BSD-3-Clause" in citation


@pytest.mark.skipif(
    "EMPTY_ENVIRONMENT" not in os.environ, reason="downloads all dependencies; set EMPTY_ENVIRONMENT=1 for it"
)
def test_the_wheel_runs_the_demo_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "env", with_pip=True)
    programs = tmp_path / "env" / ("Scripts" if os.name == "nt" else "bin")
    subprocess.run([programs / "python", "-m", "pip", "install", "--quiet", str(wheel)], cwd=tmp_path, check=True)
    # The sources must not be what is imported.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [programs / "spectral-conv", "demo"]
    demo = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
    assert "square.weight" in demo.stdout
    assert "theorem" in demo.stdout
