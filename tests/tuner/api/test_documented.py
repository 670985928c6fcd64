"""docs/python.md and the notebook do what they say."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import zipfile
from importlib import resources
from pathlib import Path

import pytest
from docs_blocks import DOCS, blocks
from tiny_yolo import write_tiny_yolo

import tuner

ROOT = DOCS.parent


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``best.onnx`` and ``data.yaml``, in which the page's blocks run one after the other."""
    folder = tmp_path_factory.mktemp("documented")
    write_tiny_yolo(folder)
    return folder


PAGE = blocks("python.md", "python")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("number", range(len(PAGE)))
def test_the_blocks_of_the_page_run(workplace: Path, number: int) -> None:
    for package in ("optuna_integration", "mlflow"):
        if package in PAGE[number] and importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "ignore", "-c", PAGE[number]]
    done = subprocess.run(command, cwd=workplace, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_name_is_on_the_page() -> None:
    text = (DOCS / "python.md").read_text(encoding="utf-8")
    public = [name for name in tuner.__all__ if name not in ("__version__", "bar")]
    assert [name for name in public if f"tuner.{name}" not in text] == []
    members = [*tuner.Scheme.__dataclass_fields__, *(name for name in vars(tuner.Run) if not name.startswith("_"))]
    assert [name for name in members if name not in ("path", "loaded") and name not in text] == []


def test_every_name_has_its_reference() -> None:
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    listed = [line.removeprefix("::: ") for line in page.splitlines() if line.startswith("::: ")]
    public = {f"tuner.{name}" for name in tuner.__all__ if name != "__version__"}
    assert set(listed) == public | {"tuner.samplers.ModelGuidedSampler"} and len(listed) == len(set(listed))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_notebook_runs() -> None:
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    pytest.importorskip("pandas", reason="pandas is not installed")
    path = DOCS / "notebooks" / "demo.ipynb"
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells), "commit the notebook without outputs"
    client = nbclient.NotebookClient(notebook, timeout=None, resources={"metadata": {"path": path.parent}})
    client.execute(env={**os.environ, "PYTHONPATH": str(ROOT)})
    shown = [set(output.data) for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]
    assert sum("application/vnd.plotly.v1+json" in kinds for kinds in shown) == 2
    assert any("text/html" in kinds for kinds in shown)


def test_types_are_declared() -> None:
    for package in ("tuner", "objectives", "search_spaces"):
        assert resources.files(package).joinpath("py.typed").is_file()


@pytest.mark.slow
def test_types_are_in_the_wheel(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    assert {"tuner/py.typed", "objectives/py.typed", "search_spaces/py.typed"} <= set(names)
