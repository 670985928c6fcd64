"""ModelOpt on a small untrained detector: scores, sweep, scheme materialized in torch."""

import csv
import json
import os

import numpy as np
import pytest
from tiny_detectors import write_calibration

from objectives.runtimes.onnxruntime.dialect import ONNXRUNTIME
from objectives.tasks.detection.data.calibration_set import load_calibration
from objectives.tasks.detection.data.preprocessed import PreprocessedImages
from objectives.tasks.detection.data.preprocessing import Preprocessing
from objectives.tasks.detection.detector import recognise
from objectives.torch_models.packages import SAFE_SETTINGS
from objectives.torch_models.quantizers import config_name, uniform_config
from search_spaces.allocation import Allocation
from search_spaces.errors import InputError
from search_spaces.model_graph import ModelGraph

os.environ.update(SAFE_SETTINGS)
torch = pytest.importorskip("torch", reason="the torch extra is not installed")
pytest.importorskip("ultralytics.nn.tasks", reason="the torch extra is not installed")
mtq = pytest.importorskip("modelopt.torch.quantization", reason="the torch extra is not installed")

from test_torch_models import save_checkpoint  # noqa: E402

from objectives.quantization.calibration import calibrate  # noqa: E402
from objectives.quantization.materialize import Materializer  # noqa: E402
from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner  # noqa: E402
from objectives.sensitivity.modelopt_scores import _as_logits  # noqa: E402
from objectives.sensitivity.modelopt_sweep import SweepInputs, SweepRun, merged, modelopt_sweep  # noqa: E402
from objectives.torch_models.checkpoint import load_checkpoint  # noqa: E402
from objectives.torch_models.detector import ImageLabels, TorchDetector, read_labels  # noqa: E402
from objectives.torch_models.export import ExportSettings, export  # noqa: E402
from objectives.torch_models.materialize import materialize_torch  # noqa: E402


class _Room:
    def __init__(self, folder):
        self.checkpoint = load_checkpoint(save_checkpoint(folder / "a.pt", "yolov10n.yaml"))
        self.nodes = export(self.checkpoint, folder / "a.onnx", ExportSettings())
        self.graph = ModelGraph(folder / "a.onnx")
        self.contract = recognise(self.graph)
        self.records = load_calibration(write_calibration(folder, 2)).images
        self.images = PreprocessedImages.build(self.records, Preprocessing((64, 64)), folder / "cache")
        self.batches = [self.images.batch(i, i + 1) for i in range(len(self.images))]
        self.detector = TorchDetector(self.checkpoint, end_to_end=True)
        box = np.array([[8, 8, 40, 48]], np.float32)
        self.labels = [ImageLabels(np.array([1]), box)] * 2

    @property
    def inputs(self):
        return SweepInputs(self.graph, self.nodes, self.detector, self.images, self.labels, {"labels": "made up"})


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    return _Room(tmp_path_factory.mktemp("modelopt"))


@pytest.mark.parametrize(
    ("fmt", "granularity"), [("int8", "per_channel"), ("w8a16", "per_channel"), ("fp8", "per_layer")]
)
def test_composed_configs_say_what_the_presets_say(fmt, granularity):
    preset = {
        entry["quantizer_name"]: entry.get("cfg")
        for entry in getattr(mtq, config_name(fmt))["quant_cfg"]
        if entry["quantizer_name"] in ("*weight_quantizer", "*input_quantizer")
    }
    ours = {entry["quantizer_name"]: entry.get("cfg") for entry in uniform_config(fmt, granularity)["quant_cfg"][1:]}
    assert {k: v and (v["num_bits"], v["axis"]) for k, v in ours.items()} == {
        k: v and (v["num_bits"], v["axis"]) for k, v in preset.items()
    }


@pytest.mark.parametrize("method", ["gradient", "kl"])
def test_a_sweep_reports_every_run_and_is_not_repeated(tmp_path, room, method):
    runs = [SweepRun(fmt, "per_channel", method) for fmt in ("w8a16", "w4a16")]
    tables = modelopt_sweep(room.inputs, runs, tmp_path)
    layers = [layer.name for layer in room.graph.quantizable]
    for run, table in tables.items():
        assert [entry.layer for entry in table.entries] == layers
        assert {entry.format for entry in table.entries} == {run.format} and table.images == 2
        report = json.loads((tmp_path / run.name / "layer-sensitivity-report.json").read_text())
        assert report["settings"]["config"] == config_name(run.format)
        assert (tmp_path / run.name / "layer-sensitivity-report.md").is_file()
    index = list(csv.DictReader((tmp_path / "sweep_index.csv").open()))
    assert [(row["run"], row["weights"], row["layers"]) for row in index] == [
        (run.name, bits, str(len(layers))) for run, bits in zip(runs, ("int8", "int4"), strict=True)
    ]
    assert float(index[0]["peak_mib"]) > 10 and float(index[0]["seconds"]) > 0
    both = merged(list(tables.values()))
    assert len(both.entries) == 2 * len(layers)
    total = [sum(both.score(layer, fmt) for layer in layers) for fmt in ("w8a16", "w4a16")]
    assert 0 < total[0] < total[1]  # fewer bits hurt more
    stamp = (tmp_path / runs[0].name / "layer-sensitivity-report.json").stat().st_mtime_ns
    modelopt_sweep(room.inputs, runs, tmp_path)
    assert (tmp_path / runs[0].name / "layer-sensitivity-report.json").stat().st_mtime_ns == stamp


def test_divergence_sees_classes_and_boxes():
    draw = torch.Generator().manual_seed(0)
    heads = {"scores": torch.randn(1, 3, 5, generator=draw), "boxes": torch.randn(1, 64, 5, generator=draw)}
    rows = _as_logits(heads, torch.tensor([4, 1])).softmax(-1)
    assert rows.shape == (2 * 3 + 2 * 4, 16) and torch.isfinite(rows.log_softmax(-1)).all()
    assert rows[:3, 0].tolist() == pytest.approx(heads["scores"][0, :, 4].sigmoid().tolist())
    assert rows[10].tolist() == pytest.approx(heads["boxes"][0, :16, 1].softmax(0).tolist())


def test_the_loss_knows_boxes_from_none(room):
    heads = room.detector.heads(room.detector.module, room.detector.tensor(room.batches[0]))
    none = ImageLabels(np.empty(0, np.int64), np.empty((0, 4), np.float32))
    with_box, without = room.detector.loss(heads, room.labels[0]), room.detector.loss(heads, none)
    assert torch.isfinite(with_box) and torch.isfinite(without) and with_box != without


def test_labels_are_read_in_the_models_pixels(tmp_path, room):
    record, place = room.records[0], room.images.placements[0]
    data = {
        "images": [{"id": 5 + r.id, "file_name": r.path.name} for r in room.records],
        "annotations": [{"id": 1, "image_id": 5 + record.id, "category_id": 11, "bbox": [4, 6, 20, 10]}],
        "categories": [{"id": 10 + i, "name": f"class{i}"} for i in range(3)],
    }
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(data))
    first, second = read_labels(path, room.records, room.images, room.contract)
    assert first.classes.tolist() == [1] and len(second.classes) == 0
    assert place.to_image(first.boxes)[0] == pytest.approx([4, 6, 24, 16], abs=1e-3)
    data["images"] = data["images"][:1]
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match="1 of 2 calibration images are not in it"):
        read_labels(path, room.records, room.images, room.contract)


def test_torch_and_onnx_materialize_the_same_scheme(tmp_path, room):
    allocation = Allocation.uniform([layer.name for layer in room.graph.quantizable], "w8a16")
    out = tmp_path / "torch.onnx"
    options = {"end_to_end": True, "metadata": room.graph.metadata}
    materialize_torch(room.checkpoint, room.nodes, allocation, room.batches, out, **options)
    made = ModelGraph(out, allow_quantized=True)
    assert recognise(made).name == "end_to_end"
    assert sum(node.op_type == "QuantizeLinear" for node in made.nodes()) == len(room.graph.quantizable)
    table = calibrate(room.graph, iter(room.batches), "max")
    ours = Materializer(room.graph, table, ONNXRUNTIME).materialize(allocation).data
    with OnnxRuntimeRunner(out) as torch_runner, OnnxRuntimeRunner(ours) as own_runner:
        for batch in room.batches:
            theirs, mine = torch_runner.infer(batch)[0], own_runner.infer(batch)[0]
            # Rows are sorted by score: of an untrained model near-equal scores may swap, so scores are compared.
            assert np.abs(theirs[0, :, 4] - mine[0, :, 4]).max() < 1e-3


def test_what_torch_cannot_export_is_named(tmp_path, room):
    layer = room.graph.quantizable[0].name
    with pytest.raises(InputError, match=rf"w4a16 of layer '{layer}' cannot be exported from torch"):
        materialize_torch(
            room.checkpoint, room.nodes, Allocation.of({layer: "w4a16"}), room.batches, tmp_path / "x.onnx",
            end_to_end=True, metadata={},
        )  # fmt: skip


def test_the_command_line_materializes_by_torch_and_tells_the_difference(tmp_path, monkeypatch, capsys):
    from tuner.cli.app import main

    monkeypatch.setenv("TUNER_CACHE", str(tmp_path / "cache"))
    path = save_checkpoint(tmp_path / "b.pt", "yolov8n.yaml")
    calibration = write_calibration(tmp_path, 2)
    arguments = ["materialize", str(path), "--uniform", "int8", "--by", "torch", "--method", "max", "--json"]
    arguments += ["--calibration", str(calibration), "--out", str(tmp_path / "out.onnx")]
    monkeypatch.setattr("sys.argv", ["tuner", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 0
    figures = json.loads(capsys.readouterr().out)
    assert 0 <= figures["agreement"] <= 1 and 0 <= figures["output_difference"] < 0.1
    nodes = ModelGraph(tmp_path / "out.onnx", allow_quantized=True).nodes()
    assert sum(node.op_type == "DequantizeLinear" for node in nodes) >= 2 * 60
