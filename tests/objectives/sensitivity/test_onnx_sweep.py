import csv
import json

import pytest
from tiny_detectors import build_detector, write_calibration

from objectives.quantization.calibration import calibrate
from objectives.quantization.materialize import Materializer
from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner
from objectives.runtimes.onnxruntime.dialect import ONNXRUNTIME
from objectives.sensitivity.divergence import divergence, targets
from objectives.sensitivity.onnx_sweep import sweep
from objectives.sensitivity.reports import write_reports
from objectives.tasks.detection.data.calibration_set import load_calibration
from objectives.tasks.detection.data.preprocessed import PreprocessedImages
from objectives.tasks.detection.data.preprocessing import Preprocessing
from objectives.tasks.detection.detector import Detector, recognise
from objectives.tasks.detection.heads.end_to_end import EndToEndHead
from search_spaces.errors import InputError
from search_spaces.model_graph import ModelGraph
from search_spaces.sensitivity import SensitivityTable

SETTINGS = {"weights": "rtn", "calibration": "max"}


class _Room:
    def __init__(self, folder, layout):
        self.graph = ModelGraph(build_detector(folder / f"{layout}.onnx", layout))
        self.contract: Detector = recognise(self.graph)
        records = load_calibration(write_calibration(folder, 3)).images
        self.images = PreprocessedImages.build(records, Preprocessing((64, 64)), folder / "cache")
        batches = (self.images.batch(i, i + 1) for i in range(len(self.images)))
        self.materializer = Materializer(self.graph, calibrate(self.graph, batches, "max"), ONNXRUNTIME)
        self.layers = [layer.name for layer in self.graph.quantizable]
        self.journal = folder / "sensitivity.jsonl"

    def sweep(self, pairs, **options):
        return sweep(
            self.graph, self.materializer, self.contract, self.images, pairs, self.journal,
            **{"settings": SETTINGS, **options},
        )  # fmt: skip


@pytest.mark.parametrize("layout", ["scores", "raw", "end_to_end"])
def test_fewer_bits_hurt_more(tmp_path, layout):
    room = _Room(tmp_path, layout)
    chosen = room.layers[::4]
    table = room.sweep([(layer, fmt) for layer in chosen for fmt in ("fp16", "w8a16", "w4a16")], threads=2)
    assert (table.method, table.metric, table.images) == ("onnx", "kl+iou", 3)
    assert len(table.entries) == 2 * len(chosen)
    for layer in chosen:
        assert 0 <= table.score(layer, "w8a16") < table.score(layer, "w4a16")


def test_layouts_agree(tmp_path):
    """The dense tensor of a model is the same, wherever its graph is cut."""
    scores = []
    for layout in ("scores", "raw", "end_to_end"):
        room = _Room(tmp_path / layout, layout)
        scores.append(room.sweep([(room.layers[2], "w4a16")]).entries[0].score)
    assert scores[1:] == pytest.approx(scores[:1] * 2, rel=0.02)


def test_an_interrupted_sweep_goes_on(tmp_path):
    room = _Room(tmp_path, "scores")
    pairs = [(layer, "w4a16") for layer in room.layers[:5]]

    def interrupt(done):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        room.sweep(pairs, progress=interrupt)
    kept = room.journal.read_text().splitlines()
    assert 2 <= len(kept) < 5
    room.journal.write_text("\n".join(kept) + '\n{"key": "cut sho')
    seen = []
    table = room.sweep(pairs, progress=seen.append)
    assert seen == [*range(len(kept), 6)]
    assert [(e.layer, e.format) for e in table.entries] == pairs
    again = []
    assert room.sweep(pairs, progress=again.append) == table
    assert again == [5]
    assert [entry.score for entry in table.entries[:2]] == [json.loads(line)["score"] for line in kept[:2]]


def test_other_settings_are_measured_again(tmp_path):
    room = _Room(tmp_path, "scores")
    pair = [(room.layers[0], "w4a16")]
    room.sweep(pair)
    room.sweep(pair, settings={**SETTINGS, "weights": "gptq"})
    assert len(room.journal.read_text().splitlines()) == 2


def test_unknown_names(tmp_path):
    room = _Room(tmp_path, "scores")
    with pytest.raises(InputError, match="did you mean '/model/0/conv/Conv'"):
        room.sweep([("/model/0/conv/Con", "int8")])
    with pytest.raises(InputError, match="did you mean 'int8'"):
        room.sweep([(room.layers[0], "int")])
    assert not room.journal.exists()


def test_without_a_dense_tensor_final_detections_are_compared(tmp_path, monkeypatch):
    room = _Room(tmp_path, "end_to_end")
    monkeypatch.setattr(EndToEndHead, "dense", lambda head, graph: None)
    table = room.sweep([(room.layers[0], fmt) for fmt in ("w8a16", "w4a16")])
    assert table.metric == "1-agreement"
    assert table.score(room.layers[0], "w8a16") < table.score(room.layers[0], "w4a16")


@pytest.mark.parametrize("layout", ["scores", "raw"])
def test_the_reference_does_not_diverge_from_itself(tmp_path, layout):
    room = _Room(tmp_path, layout)
    dense = room.contract.dense(room.graph)
    assert dense is not None
    with OnnxRuntimeRunner(room.graph.path) as runner:
        output = runner.infer(room.images.batch(0, 1))
        other = runner.infer(room.images.batch(1, 2))
    target = targets(dense, output)
    assert len(target.anchors) == 84
    assert divergence(dense, [output], [target]) == pytest.approx(0, abs=1e-6)
    assert divergence(dense, [other], [target]) > 0.1


def test_reports(tmp_path):
    room = _Room(tmp_path, "scores")
    table = room.sweep([(layer, "w4a16") for layer in room.layers[:3]])
    paths = write_reports(table, tmp_path / "out")
    assert [path.name for path in paths] == [f"layer-sensitivity-report.{s}" for s in ("md", "json", "csv")]
    assert sorted((tmp_path / "out").iterdir()) == sorted(paths)
    assert SensitivityTable.from_json(paths[1].read_text()) == table
    assert f"`{room.layers[0]}`" in paths[0].read_text()
    assert len(list(csv.reader(paths[2].read_text().splitlines()))) == 4
