"""Rivals: refused before anything runs, measured as the run's schemes are, and a failure is a value."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
from pathlib import Path

import onnx
import pytest
import yaml
from added_package import install, tuner
from tiny_detectors import build_detector, write_calibration, write_dataset

from objectives.runners.runner import RuntimeUnavailable
from search_spaces.errors import InputError
from tuner.compare.rivals.asking import ask_rivals
from tuner.compare.rivals.neural_network_compression import VARIABLE
from tuner.compare.rivals.registry import RIVALS
from tuner.compare.rivals.rival import Rival

#: ONNX Runtime's own static quantization, a rival that cannot be loaded, and one that refuses the model.
MODULE = """
from onnxruntime.quantization import CalibrationDataReader, quantize_static

from search_spaces.errors import InputError
from tuner.compare.rivals.rival import Rival, refuse_argument


class Reader(CalibrationDataReader):
    def __init__(self, name, images):
        self.name, self.left = name, [images.batch(i, i + 1) for i in range(len(images))]

    def get_next(self):
        return {self.name: self.left.pop(0)} if self.left else None


class Static(Rival):
    title = folder = "ort-static"

    def __init__(self, argument):
        refuse_argument("ort-static", argument)

    def check(self, question):
        if question.images > 3:
            raise InputError("ort-static: takes at most 3 images")

    def answer(self, question, folder):
        folder.mkdir(parents=True)
        graph = question.inputs.graph
        reader = Reader(graph.model.graph.input[0].name, question.calibration())
        nodes = [node.name for node in graph.model.graph.node if node.op_type != "Conv"]
        quantize_static(graph.path, folder / "model.onnx", reader, nodes_to_exclude=nodes)
        return folder / "model.onnx"


class Broken(Static):
    title = folder = "broken"

    def answer(self, question, folder):
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(b"no model")
        return folder / "model.onnx"


class Refusing(Static):
    title = folder = "refusing"

    def answer(self, question, folder):
        raise InputError("refusing: it has <no> kernel")
"""
ENTRIES = "[tuner.rivals]\nort-static = added:Static\nbroken = added:Broken\nrefusing = added:Refusing\n"
FEW = ("--calibration-images", "3")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An installed package with three rivals, and a run in the folder above it."""
    folder = tmp_path_factory.mktemp("rivals")
    model = build_detector(folder / "m.onnx")
    images, labels = write_dataset(folder, model, 4)
    study = {
        "name": "tiny",
        "model": {"path": "m.onnx"},
        "data": {
            "images": str(images),
            "annotations": str(labels),
            "calibration": str(write_calibration(folder)),
        },
        "space": {"formats": ["int8"]},
        "sensitivity": {"images": 1},
        "timing": {"min_seconds": 0.1},
        "search": {"trials": 2, "sampler": "nsga2"},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    site = install(folder / "site", MODULE, ENTRIES)
    done = tuner(site, "run", folder / "study.yaml", "--run", folder / "run")
    assert done.returncode == 0, done.stderr
    return site


def refused(done: subprocess.CompletedProcess[str], part: str) -> None:
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 2 and last.startswith("tuner: error: ") and done.stdout == "", done.stderr
    assert part in last


def test_a_rival_of_another_package_is_measured_and_a_failure_is_a_value(package: Path) -> None:
    run = package.parent / "run"
    done = tuner(package, "rivals", run, "ort-static", "broken", "refusing", *FEW)
    assert done.returncode == 0, done.stderr
    names = [line.split("  ")[0] for line in done.stdout.splitlines()]
    assert names[:2] == ["model", "reference"] and names[-3] == "ort-static"
    assert names[-2].startswith("broken: failed: ") and names[-1] == "refusing: failed: refusing: it has <no> kernel"
    kept = {entry["name"]: entry for entry in json.loads((run / "baselines.json").read_text())}
    assert kept["ort-static"]["map_50_95"] > 0 and kept["ort-static"]["latency_ms"] > 0
    assert kept["broken"]["failure"]["message"] and "map_50_95" not in kept["broken"]
    page = (run / "report.html").read_text()
    assert "failed: refusing: it has &lt;no&gt; kernel" in page and ">ort-static<" in page
    again = tuner(package, "rivals", run, "ort-static", *FEW)
    assert again.returncode == 0
    assert [entry["name"] for entry in json.loads((run / "baselines.json").read_text())].count("ort-static") == 1


def test_failures_alone_are_an_error_too(package: Path) -> None:
    done = tuner(package, "rivals", package.parent / "run", "refusing", *FEW)
    assert done.returncode == 2 and done.stdout.splitlines()[-1] == "refusing: failed: refusing: it has <no> kernel"
    assert done.stderr.splitlines()[-1].startswith("tuner: error: refusing: failed: ")


@pytest.mark.parametrize(
    ("asked", "parts"),
    [
        ((), ("rivals: name at least one of modelopt, autoquantize, inc, nncf, ultralytics-int8",)),
        (("ultralytic-int8",), ("rival 'ultralytic-int8' is not one of", "did you mean 'ultralytics-int8'?")),
        (("inc:8",), ("inc:8: takes nothing behind its name; write inc",)),
        (
            ("nncf:fasd",),
            ("nncf:fasd: is none of fast, full, accuracy-control; did you mean 'fast'?; write nncf:fast",),
        ),
        (("nncf:full:1",), ("nncf:full:1: takes nothing behind its mode; write nncf:full",)),
        (("nncf:accuracy-control:-1",), ("must be points of mAP, e.g. nncf:accuracy-control:0.2",)),
        (("nncf:accuracy-control:nan",), ("must be points of mAP, e.g. nncf:accuracy-control:0.2",)),
        (("autoquantize:eight",), ("autoquantize:eight: must be a number of bits",)),
        (("autoquantize:99",), ("autoquantize:99: must lie above 8",)),
        (("ultralytics-qat",), ("ultralytics-qat '': no such file", "yolo train quantize=8")),
        (("ultralytics-qat:none.pt",), ("ultralytics-qat 'none.pt': no such file",)),
        (("ultralytics-int8",), ("ultralytics-int8: Ultralytics exports a checkpoint; name the .pt of", "m.onnx")),
        (("ultralytics-int8:none.pt",), ("'none.pt': no such file",)),
    ],
)
def test_what_cannot_be_asked_is_refused(package: Path, asked: tuple[str, ...], parts: tuple[str, ...]) -> None:
    run = package.parent / "run"
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    with pytest.raises(InputError) as caught:
        ask_rivals(run, asked, 3)
    for part in parts:
        assert part in str(caught.value)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("modelopt:int9:max",), "ModelOpt ONNX 'int9': is not one of int8, fp8; did you mean"),
        (("autoquantize:99",), "autoquantize:99: must lie above 8"),
        (("refusing", "ort-static", "--calibration-images", "4"), "ort-static: takes at most 3 images"),
    ],
)
def test_the_command_line_refuses_before_anything_runs(package: Path, arguments: tuple[str, ...], part: str) -> None:
    run = package.parent / "run"
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    refused(tuner(package, "rivals", run, *arguments), part)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


@pytest.mark.skipif(importlib.util.find_spec("ultralytics") is not None, reason="the torch extra is installed")
@pytest.mark.parametrize("rival", ["ultralytics-int8:{}", "ultralytics-qat:{}", "modelopt:int8:max"])
def test_without_the_extra_it_is_named(package: Path, tmp_path: Path, rival: str) -> None:
    checkpoint = tmp_path / "any.pt"
    checkpoint.write_bytes(b"never read")
    with pytest.raises(RuntimeUnavailable, match=r"install the extra: `pip install tuner\[torch\]`"):
        ask_rivals(package.parent / "run", [rival.format(checkpoint)], 3)


def test_without_its_environment_nncf_says_how_to_make_one(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for named, part in ((None, "make an environment"), ("/nowhere/python", "cannot be started")):
        monkeypatch.delenv(VARIABLE, raising=False)
        if named:
            monkeypatch.setenv(VARIABLE, named)
        with pytest.raises(RuntimeUnavailable, match=part):
            ask_rivals(package.parent / "run", ["nncf:fast"], 3)


@pytest.mark.skipif(VARIABLE not in os.environ, reason=f"{VARIABLE} does not name an environment with NNCF")
def test_nncf_quantizes_the_runs_model(package: Path) -> None:
    run = package.parent / "run"
    done = tuner(package, "rivals", run, "nncf:fast", *FEW)
    assert done.returncode == 0, done.stderr
    kept = {entry["name"]: entry for entry in json.loads((run / "baselines.json").read_text())}
    assert kept["NNCF int8 fast bias correction"]["map_50_95"] > 0
    model = onnx.load(run / "baselines" / "nncf-fast" / "model.onnx")
    quantized = {node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    assert model.graph.input[0].name in quantized and len(quantized) > 10
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    made = {types[node.input[2]] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    assert made == {onnx.TensorProto.UINT8}


@pytest.mark.skipif(VARIABLE not in os.environ, reason=f"{VARIABLE} does not name an environment with NNCF")
def test_accuracy_control_asks_for_our_scores(package: Path) -> None:
    run = package.parent / "run"
    done = tuner(package, "rivals", run, "nncf:accuracy-control:0", *FEW)
    assert done.returncode == 0, done.stderr
    kept = {entry["name"]: entry for entry in json.loads((run / "baselines.json").read_text())}
    assert kept["NNCF int8 accuracy control to 0"]["map_50_95"] > 0
    folder = run / "baselines" / "nncf-accuracy-control-0"
    assert {path.name for path in folder.iterdir()} == {"model.onnx", "nncf.log", "request.json"}
    said = (folder / "nncf.log").read_text()
    reference = json.loads((run / "reference.json").read_text())
    assert f"Metric of initial model: {reference['accuracy']['map_50_95']}" in said


@pytest.mark.parametrize("name", RIVALS.built_in())
def test_every_rival_is_one(name: str) -> None:
    assert issubclass(RIVALS.get(name), Rival)


@pytest.mark.slow
@pytest.mark.shared_data
@pytest.mark.skipif(importlib.util.find_spec("ultralytics") is None, reason="the torch extra is not installed")
def test_ultralytics_int8_of_a_real_detector_keeps_most_of_its_accuracy(shared_data: Path, tmp_path: Path) -> None:
    study = {
        "name": "real",
        "model": {"path": str(shared_data / "models" / "yolov8n.onnx")},
        "data": {
            "images": str(shared_data / "coco" / "val"),
            "annotations": str(shared_data / "coco" / "instances_val.json"),
            "calibration": str(shared_data / "coco" / "calib.txt"),
            "search_images": 16,
        },
        "space": {"formats": ["int8"], "rules": [{"layers": "*", "formats": ["int8"]}]},
        "calibration": {"images": 4, "method": "max"},
        "weights": {"method": "rtn"},
        "objectives": ["map_50_95", "weight_mib"],
        "sensitivity": {"images": 1, "checkpoint": str(shared_data / "models" / "yolov8n.pt")},
        "search": {"trials": 1, "sampler": "nsga2"},
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    run = tmp_path / "run"
    assert tuner(tmp_path, "run", tmp_path / "study.yaml", "--run", run).returncode == 0
    done = tuner(tmp_path, "rivals", run, "ultralytics-int8", "--calibration-images", "4")
    assert done.returncode == 0, done.stderr
    (found,) = json.loads((run / "baselines.json").read_text())
    reference = json.loads((run / "reference.json").read_text())["accuracy"]["map_50_95"]
    assert reference - 0.12 < found["map_50_95"] < reference + 0.05
    assert 2.9 < found["weight_bytes"] / 2**20 < 3.6  # a fourth of 12 MiB
