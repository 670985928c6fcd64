"""docs/extending.md: its package is built, installed and used as a stranger would."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from tiny_detectors import build_detector, write_dataset

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "extending.md"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def _files() -> dict[str, str]:
    """The code blocks of the page whose first line names a file."""
    blocks = re.findall(r"^```(?:python|toml)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    named = ((re.match(r"# (\S+\.(?:py|toml))", block), block) for block in blocks)
    return {match[1]: block for match, block in named if match}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the page's package is installed."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    files = _files()
    modules = {f"my_{kind}.py" for kind in ("runtime", "head", "metric", "objective", "sampler", "target")}
    assert {"pyproject.toml", *modules} == set(files)
    for name, text in files.items():
        (source / name).write_text(text)
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", target, source]
    subprocess.run(install, check=True)
    return target


@pytest.fixture
def tuner(site: Path, tmp_path: Path):
    def run(*arguments: str | Path, program: tuple[str, ...] = ("-m", "tuner"), code: int = 0) -> str:
        path = os.pathsep.join([str(site), str(ROOT), str(ROOT / "tests")])
        env = {**os.environ, "PYTHONPATH": path, "COLUMNS": "200"}
        command = [sys.executable, *program, *map(str, arguments)]
        done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout

    return run


def _demo(tuner, tmp_path: Path, *changes: str) -> tuple[Path, list[dict]]:
    run = tmp_path / "run"
    sets = [part for change in changes for part in ("--set", change)]
    tuner("run", "studies/demo.yaml", "--trials", "6", "--run", run, *sets, "--set", "timing.min_seconds=0.1")
    front = json.loads((run / "front.json").read_text())["front"]
    assert front
    return run, front


def test_the_runtime_is_short() -> None:
    assert len(_files()["my_runtime.py"].splitlines()) <= 100


def test_the_runtime_passes_the_suite_of_all(tuner) -> None:
    suite = "tests/objectives/runtimes/test_contract.py"
    said = tuner(suite, "-k", "onnxruntime-provider", "-p", "no:cacheprovider", program=("-m", "pytest"))
    assert re.search(r"[1-9]\d* passed", said) and "failed" not in said


def test_the_runtime_evaluates_times_and_tunes(tuner, tmp_path: Path) -> None:
    name = ("--runtime", "onnxruntime-provider")
    data = ROOT / "studies" / "demo"
    labels = ("--images", data / "data" / "images", "--annotations", data / "data" / "annotations.json", "--limit", "8")
    found, plain = (json.loads(tuner("eval", data / "detector.onnx", *labels, "--json", *more)) for more in (name, ()))
    assert found == plain
    assert json.loads(tuner("bench", data / "detector.onnx", *name, "--json"))["p50_ms"] > 0
    refused = tuner("bench", data / "detector.onnx", *name, "--builder", "provider=NoSuchProvider", code=3)
    assert refused == ""
    run, _ = _demo(tuner, tmp_path, "runtime.name=onnxruntime-provider")
    assert json.loads((run / "manifest.json").read_text())["identity"]["runtime.name"] == "onnxruntime-provider"


def _two_outputs(folder: Path) -> Path:
    """A tiny detector whose one output is cut into boxes, as shares of the image, and probabilities."""
    model = onnx.load(build_detector(folder / "scores.onnx", "scores"))
    graph, (output,) = model.graph, model.graph.output
    height, width = (dim.dim_value for dim in graph.input[0].type.tensor_type.shape.dim[2:])
    channels, anchors = (dim.dim_value for dim in output.type.tensor_type.shape.dim[1:])
    size = np.array([width, height, width, height], np.float32)
    for name, values in {"cut": [4, channels - 4], "size": size}.items():
        graph.initializer.append(numpy_helper.from_array(np.array(values, size.dtype if name == "size" else int), name))
    graph.node.extend(
        [
            helper.make_node("Transpose", [output.name], ["rows"], perm=[0, 2, 1]),
            helper.make_node("Split", ["rows", "cut"], ["pixels", "probabilities"], axis=2),
            helper.make_node("Div", ["pixels", "size"], ["boxes"]),
        ]
    )
    del graph.output[:]
    for name, columns in (("boxes", 4), ("probabilities", channels - 4)):
        graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, anchors, columns]))
    onnx.save(model, folder / "two.onnx")
    return folder / "two.onnx"


def test_the_head_reads_two_outputs(tuner, tmp_path: Path) -> None:
    model = _two_outputs(tmp_path)
    images, labels = write_dataset(tmp_path, tmp_path / "scores.onnx", 4)
    given = ("--images", images, "--annotations", labels, "--json")
    found, plain = (json.loads(tuner("eval", path, *given)) for path in (model, tmp_path / "scores.onnx"))
    assert found["map_50_95"] > 0.9 * plain["map_50_95"] > 0.5
    tuner("eval", tmp_path / "scores.onnx", *given, "--head", "boxes_and_probabilities", code=2)


def test_the_metric_is_in_every_trial(tuner, tmp_path: Path) -> None:
    run, _ = _demo(tuner, tmp_path, "data.metrics=[coco_box, person_recall]")
    records = [json.loads(path.read_text()) for path in (run / "cache" / "evaluations").glob("*.json")]
    recalls = [record["scores"]["accuracy"]["person_recall"] for record in records if "scores" in record]
    assert recalls and all(0 < recall <= 1 for recall in recalls)


def test_the_objective_is_searched_and_shown(tuner, tmp_path: Path) -> None:
    run, front = _demo(tuner, tmp_path, "objectives=[map_50_95, weight_bits]")
    assert all(entry["weight_bits"] == entry["average_weight_bits"] for entry in front)
    assert "mean width, bits" in (run / "front.md").read_text() + (run / "report.html").read_text()


def test_the_sampler_proposes(tuner, tmp_path: Path) -> None:
    run, _ = _demo(tuner, tmp_path, "search.sampler=local-search", "search.seeds=[]")
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    digests = [entry["digest"] for entry in log if entry["event"] == "evaluated"]
    assert len(digests) == len(set(digests)) == 6
    suite = "tests/tuner/samplers/test_contract.py"
    said = tuner(suite, "-k", "local-search", "-p", "no:cacheprovider", program=("-m", "pytest"))
    assert re.search(r"[1-9]\d* passed", said) and "failed" not in said


def test_the_target_is_offered_and_lays_out(tuner, tmp_path: Path) -> None:
    run, front = _demo(tuner, tmp_path)
    out = tmp_path / "out"
    assert "bundle" in tuner("export", "--help")
    tuner("export", run, "--trial", front[0]["trial"], "--for", "bundle", "--out", out)
    assert {path.name for path in out.iterdir()} == {"model.onnx", "names.txt", "scheme.json", "README.md"}
    assert "Give the folder to the program." in (out / "README.md").read_text()
