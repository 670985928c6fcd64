"""Checkpoints: refused where they could run code, exported and mapped where they cannot."""

import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import pytest

from objectives.tasks.detection.detector import recognise
from objectives.torch_models.packages import SAFE_SETTINGS
from search_spaces.errors import InputError
from search_spaces.model_graph import ModelGraph

os.environ.update(SAFE_SETTINGS)
torch = pytest.importorskip("torch", reason="the torch extra is not installed")
tasks = pytest.importorskip("ultralytics.nn.tasks", reason="the torch extra is not installed")

from objectives.torch_models.checkpoint import load_checkpoint  # noqa: E402
from objectives.torch_models.detector import TorchDetector  # noqa: E402
from objectives.torch_models.export import ExportSettings, export, exported, map_checkpoint  # noqa: E402

TASKS = {"-seg": "segment", "-pose": "pose", "-obb": "obb"}
MODELS = {"detect": "DetectionModel", "segment": "SegmentationModel", "pose": "PoseModel", "obb": "OBBModel"}


def save_checkpoint(
    path: Path, architecture: str = "yolov10n.yaml", classes: int = 3, seed: int = 0, size: int = 64
) -> Path:
    """An untrained detector whose BatchNorms are not the identity, saved as Ultralytics saves one."""
    torch.manual_seed(seed)
    task = next((name for word, name in TASKS.items() if word in architecture), "detect")
    module = getattr(tasks, MODELS[task])(architecture, nc=classes, verbose=False)
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 1.5)
            part.weight.data.uniform_(0.8, 1.2)
    module.task = task
    module.names = {index: f"class{index}" for index in range(classes)}
    torch.save({"model": module.half(), "ema": None, "train_args": {"task": task, "imgsz": size}}, path)
    return path


class _Malice:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


class _Shell(_Malice):
    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("how", ["zip", "legacy", "bare"])
@pytest.mark.parametrize("kind", [_Malice, _Shell])
def test_a_malicious_checkpoint_is_refused_by_name_and_runs_nothing(tmp_path, how, kind):
    target = tmp_path / "created"
    path = tmp_path / "evil.pt"
    content = {"model": kind(target)}
    if how == "bare":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "zip")
    named = r"posix\.system|nt\.system" if kind is _Shell else "pathlib|touch"
    with pytest.raises(InputError, match=rf"evil\.pt: refused: its pickle asks for .*({named})"):
        load_checkpoint(path)
    assert not target.exists()
    pickle.loads(pickle.dumps(content))  # what it would have done
    assert target.exists()


class _Attribute:
    def __reduce__(self):
        return getattr, ("text", "upper")


def test_an_attribute_of_anything_but_a_module_is_refused(tmp_path):
    torch.save({"model": _Attribute()}, tmp_path / "evil.pt")
    with pytest.raises(InputError, match=r"evil\.pt: refused: its pickle uses unsafe getattr\(str, 'upper'\)"):
        load_checkpoint(tmp_path / "evil.pt")


def test_the_command_line_refuses_it_in_one_line(tmp_path):
    path = tmp_path / "evil.pt"
    torch.save({"model": _Shell(tmp_path / "created")}, path)
    done = subprocess.run(
        [sys.executable, "-m", "tuner", "layers", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("tuner: error: ") and done.stderr.count("\n") == 1
    assert "posix.system" in done.stderr and not (tmp_path / "created").exists()


class _Distilled:
    def __init__(self, teacher: object) -> None:
        self.teacher = teacher

    def __reduce__(self):
        from ultralytics.nn.distill_model import DistillationModel

        return DistillationModel, (self.teacher,)


class _Wide:
    def __reduce__(self):
        return torch.nn.Linear, (10**6, 10**6)


class _Yaml:
    def __reduce__(self):
        return tasks.DetectionModel, ("http://localhost:9/model.yaml",)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (_Distilled("http://localhost:9/teacher.pt"), "asks for ultralytics.nn.distill_model.DistillationModel"),
        (_Wide(), "calls torch.nn.modules.linear.Linear with arguments of its own"),
        (_Yaml(), "calls ultralytics.nn.tasks.DetectionModel with arguments of its own"),
        (bytearray(10), "asks for builtins.bytearray"),
        (torch.zeros(1).expand(10**5, 10**5), "makes a tensor of 10000000000 numbers from 1"),
    ],
)
def test_a_constructor_that_acts_or_takes_all_memory_is_never_called(tmp_path, monkeypatch, content, said):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": content}, "evil.pt")
    with pytest.raises(InputError, match=rf"^evil\.pt: refused: its pickle {re.escape(said)}"):
        load_checkpoint(Path("evil.pt"))
    assert [path.name for path in tmp_path.iterdir()] == ["evil.pt"]


def test_a_model_of_a_name_that_ultralytics_would_download_is_read(tmp_path):
    assert load_checkpoint(save_checkpoint(tmp_path / "yolov5n.pt", "yolov8n.yaml")).classes


@pytest.mark.parametrize("content", [b"", b"no checkpoint at all", b"PK\x03\x04 cut short"])
def test_junk_is_no_checkpoint(tmp_path, content):
    path = tmp_path / "junk.pt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"junk\.pt: not an Ultralytics checkpoint, or damaged"):
        load_checkpoint(path)


def test_an_archive_that_unpacks_to_more_than_it_is_is_refused_unread(tmp_path):
    path = tmp_path / "bomb.pt"
    torch.save({"model": torch.zeros(1 << 18)}, tmp_path / "plain.pt")
    with ZipFile(tmp_path / "plain.pt") as plain, ZipFile(path, "w", ZIP_DEFLATED) as bomb:
        for name in plain.namelist():
            bomb.writestr(name, plain.read(name))
    assert path.stat().st_size < 10_000
    with pytest.raises(InputError, match=r"bomb\.pt: refused: it unpacks to 10\d{5} bytes"):
        load_checkpoint(path)


def test_a_state_dict_is_no_detector(tmp_path):
    torch.save({"model": {"weight": torch.zeros(3)}}, tmp_path / "weights.pt")
    with pytest.raises(InputError, match="holds no Ultralytics detector"):
        load_checkpoint(tmp_path / "weights.pt")


@pytest.mark.parametrize(
    ("architecture", "head", "layout"),
    [
        ("yolov10n.yaml", None, "end_to_end"),
        ("yolov10n.yaml", "scores", "scores"),
        ("yolov8n.yaml", None, "scores"),
    ],
)
def test_export_is_verified_layer_by_layer(tmp_path, architecture, head, layout):
    checkpoint = load_checkpoint(save_checkpoint(tmp_path / "a.pt", architecture))
    assert (checkpoint.classes, checkpoint.default_size) == (("class0", "class1", "class2"), 64)
    found = export(checkpoint, tmp_path / "a.onnx", ExportSettings(head))
    graph = ModelGraph(tmp_path / "a.onnx")
    contract = recognise(graph)
    assert (contract.name, contract.class_count, contract.image_size) == (layout, 3, (64, 64))
    assert not found.unmatched and not found.unused
    assert list(found.module_of) == [layer.name for layer in graph.quantizable]
    assert graph.opset == 17


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["yolov8n-seg.yaml", "yolo11n-pose.yaml", "yolo26n-obb.yaml"])
def test_other_tasks_are_verified_layer_by_layer(tmp_path, architecture):
    checkpoint = load_checkpoint(save_checkpoint(tmp_path / "a.pt", architecture))
    found = export(checkpoint, tmp_path / "a.onnx", ExportSettings())
    assert found.matches and not found.unmatched
    with pytest.raises(InputError, match=r"its head \w+ has no loss that layers could be ranked by"):
        TorchDetector(checkpoint, checkpoint.has_one_to_one_head)


@pytest.mark.slow
def test_normalisation_that_ultralytics_leaves_attention_and_copies_are_matched(tmp_path, monkeypatch):
    monkeypatch.setitem(MODELS, "detect", "RTDETRDetectionModel")
    path = save_checkpoint(tmp_path / "a.pt", "rtdetr-l.yaml", size=320)
    found = export(load_checkpoint(path), tmp_path / "a.onnx", ExportSettings())
    assert found.matches and not found.unmatched
    matched = set(found.module_of.values())
    assert {"model.28.input_proj.0.0", "model.28.decoder.layers.0.self_attn.q"} <= matched


def test_what_ultralytics_cannot_export_is_one_line(tmp_path, monkeypatch):
    checkpoint = load_checkpoint(save_checkpoint(tmp_path / "a.pt", "yolov8n.yaml"))

    def refuse(*_, **__):
        raise torch.onnx.errors.SymbolicValueError("no such operator\nInputs: ...", None)

    monkeypatch.setattr(torch.onnx, "export", refuse)
    with pytest.raises(
        InputError, match=r"cannot export it at 64 x 64 pixels and opset 17: .*try another --image-size"
    ):
        export(checkpoint, tmp_path / "a.onnx", ExportSettings())


def test_exports_repeat_and_are_made_once(tmp_path, monkeypatch):
    monkeypatch.setenv("TUNER_CACHE", str(tmp_path / "cache"))
    path = save_checkpoint(tmp_path / "a.pt", "yolov8n.yaml")
    first = exported(path, ExportSettings())
    stamp = first.stat().st_mtime_ns
    assert exported(path, ExportSettings()) == first and first.stat().st_mtime_ns == stamp
    assert json.loads(first.with_name(f"{first.name}.map.json").read_text())["unmatched"] == {}
    export(load_checkpoint(path), tmp_path / "again.onnx", ExportSettings())
    assert (tmp_path / "again.onnx").read_bytes() == first.read_bytes()


def test_another_training_does_not_match(tmp_path):
    ours = load_checkpoint(save_checkpoint(tmp_path / "a.pt", "yolov8n.yaml"))
    export(ours, tmp_path / "a.onnx", ExportSettings())
    other = load_checkpoint(save_checkpoint(tmp_path / "b.pt", "yolov8n.yaml", seed=1))
    graph = ModelGraph(tmp_path / "a.onnx")
    assert not map_checkpoint(ours, graph).unmatched
    found = map_checkpoint(other, graph)
    assert len(found.unmatched) == len(graph.quantizable)
    with pytest.raises(InputError, match="63 of 63 quantizable layers"):
        found.require_complete("b.pt", "a.onnx")


def test_a_head_that_is_not_there_is_named(tmp_path):
    checkpoint = load_checkpoint(save_checkpoint(tmp_path / "a.pt", "yolov8n.yaml"))
    with pytest.raises(InputError, match="has no one-to-one head"):
        export(checkpoint, tmp_path / "a.onnx", ExportSettings("end_to_end"))
