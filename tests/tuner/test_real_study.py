"""The whole line on real parts: a tiny detector, ONNX Runtime, pycocotools, the evaluator's child process."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import onnx
import pytest
import yaml
from tiny_detectors import build_detector, write_calibration, write_dataset

from objectives.quantization.histogram import METHODS
from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner
from objectives.tasks.detection.data.preprocessed import PreprocessedImages
from objectives.tasks.detection.data.preprocessing import Preprocessing
from objectives.tasks.detection.detector import recognise
from objectives.tasks.detection.drawing import draw
from objectives.tasks.detection.predict import predict
from search_spaces.errors import InputError
from tuner.cli.app import main
from tuner.compare.sensitivity_methods import compare_methods, kept_table
from tuner.launch import launch, resume
from tuner.prepare.images import data_of
from tuner.prepare.prepared import prepare_study
from tuner.results.export import Exporter
from tuner.results.loaded import load_run
from tuner.results.retime import read_rounds
from tuner.search.problem import study_problem
from tuner.study.inputs import read_inputs
from tuner.study.run_folder import RunFolder
from tuner.study.study_file import read_study


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("real")
    model = build_detector(path / "m.onnx")
    images, labels = write_dataset(path, model, 12)
    calibration = write_calibration(path)
    study = {
        "name": "real",
        "model": {"path": "m.onnx"},
        "data": {
            "images": str(images.relative_to(path)),
            "annotations": str(labels.relative_to(path)),
            "calibration": str(calibration.relative_to(path)),
            "search_images": 8,
        },
        "objectives": ["map_50_95", "latency_ms", "weight_mib"],
        "timing": {"min_seconds": 0.05, "warmup_ms": 5.0, "max_cov": 5.0},
        "sensitivity": {"images": 2},
        "search": {"trials": 12, "sampler": "nsga2"},
    }
    (path / "study.yaml").write_text(yaml.safe_dump(study))
    return path


@pytest.fixture(scope="module")
def run(folder: Path) -> Iterator[RunFolder]:
    yield launch(read_study(folder / "study.yaml"), folder / "run")


def test_front_members_are_exported_rescored_and_sound(run: RunFolder) -> None:
    loaded = load_run(run.path)
    assert loaded.front and all(member.rescore is not None for member in loaded.front)
    for member in loaded.front:
        data = (run.schemes / str(member.record.number) / "model.onnx").read_bytes()
        assert hashlib.sha256(data).hexdigest() == member.record.scores.artifact
        onnx.checker.check_model(onnx.load_model_from_string(data), full_check=True)
        assert member.rescore.full.images == 12 and member.rescore.unseen.images == 4
        low, high = member.rescore.interval
        assert low <= member.rescore.difference <= high
        assert len(member.rescore.ratios) >= (3 if member.folded_under is None else 1)
        assert min(member.rescore.ratios) > 0
        told = json.loads((run.schemes / str(member.record.number) / "scheme.json").read_text())["rescored"]
        assert told["latency_ratio"] == member.rescore.latency_ratio and told["images"] == 12
    events = [json.loads(line) for line in run.log_file.read_text().splitlines()]
    (found,) = [event for event in events if event["event"] == "rescoring"]
    assert found["believed"] >= 1 and len(list(run.rescores.glob("*.json"))) == found["schemes"]
    assert (run.path / "report.html").stat().st_size > 0
    assert json.loads((run.artifacts / "previews" / "previews.json").read_text())["images"]


def test_the_rounds_of_repeated_timing_keep_their_intervals(run: RunFolder) -> None:
    for rounds in read_rounds(run).values():
        assert all(one.low <= one.ratio <= one.high for one in rounds)


def test_a_reference_beyond_the_users_bound_leaves_a_run_that_resumes(folder: Path, tmp_path: Path) -> None:
    """No two real inferences take the same time to a part in a billion."""
    config = read_study(folder / "study.yaml", ["timing.max_cov=0.000000001"])
    with pytest.raises(InputError, match=r"reference cannot .*timing.max_cov.*`tuner resume .*run` goes on$"):
        launch(config, tmp_path / "run")
    kept = RunFolder(tmp_path / "run").calibration
    before = kept.stat().st_mtime_ns
    with pytest.raises(InputError, match=r"reference cannot be scored: the paired ratio varies"):
        resume(tmp_path / "run")
    assert kept.stat().st_mtime_ns == before


def test_previews_show_what_was_detected_on_their_own_image(run: RunFolder, tmp_path: Path) -> None:
    loaded = load_run(run.path)
    graph = read_inputs(loaded.config).graph
    (best,) = [member for member in loaded.front if member.recommended or member.nearest]
    models = {
        "reference": graph.path,
        "scheme": run.schemes / str(best.record.number) / "model.onnx",
    }
    folder = run.artifacts / "previews"
    by_name = {image.path.name: image for image in data_of(read_inputs(loaded.config)).search.images}
    names = json.loads((folder / "previews.json").read_text())["images"]
    pictures = []
    for kind, model in models.items():
        with OnnxRuntimeRunner(model.read_bytes()) as runner:
            for place, name in enumerate(names):
                images = PreprocessedImages.build([by_name[name]], Preprocessing((64, 64)), tmp_path)
                found = predict(runner, images, recognise(graph))
                picture = draw(cv2.imread(str(by_name[name].path)), found.detections[0], found.classes)
                _, jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 85])
                assert (folder / f"{place}-{kind}.jpg").read_bytes() == jpeg.tobytes(), (name, kind)
                pictures.append(len(found.detections[0]))
    assert any(pictures), "nothing was detected, so nothing could be wrong"


def test_the_search_knows_the_size_of_every_scheme(run: RunFolder) -> None:
    """Size is no matter of learning: the sampler's table gives each trial's measured size, scales counted."""
    loaded = load_run(run.path)
    problem = study_problem(prepare_study(read_inputs(loaded.config), loaded.run), loaded.reference)
    (size,) = [objective for objective in problem.objectives if objective.name == "weight_mib"]
    for scores, allocation in [(r.scores, r.allocation) for r in loaded.records if r.scores]:
        columns = problem.encode(loaded.space.choices(allocation))
        share = size.fixed + sum(size.prior[row, column] for row, column in enumerate(columns))
        assert share * size.reference == pytest.approx(scores.size.weight_bytes / 2**20, rel=1e-9)


def test_the_calibration_method_is_the_one_that_disturbs_least(run: RunFolder) -> None:
    events = [json.loads(line) for line in run.log_file.read_text().splitlines()]
    found = next(event for event in events if event["event"] == "calibration")
    assert set(found["divergence"]) == set(METHODS)
    assert found["chosen"] == min(found["divergence"], key=found["divergence"].__getitem__)
    assert json.loads(run.calibration.read_text())["method"] == found["chosen"]


def test_a_front_member_reproduces_by_eval(
    run: RunFolder, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    member = load_run(run.path).front[0]
    model = run.schemes / str(member.record.number) / "model.onnx"
    arguments = ["eval", model, "--images", folder / "images", "--annotations", folder / "labels.json", "--json"]
    monkeypatch.setattr(sys, "argv", ["tuner", *map(str, arguments)])
    with pytest.raises(SystemExit):
        main()
    assert json.loads(capfd.readouterr().out)["map_50_95"] == pytest.approx(member.rescore.full.map_50_95, abs=1e-9)


def test_a_resumed_run_measures_nothing_again(run: RunFolder) -> None:
    before = run.log_file.read_text().count('"evaluated"')
    kept = {path: path.stat().st_mtime_ns for path in [run.calibration, run.sensitivity, run.seeds, run.reference]}
    resume(run.path)
    assert run.log_file.read_text().count('"evaluated"') == before
    assert kept == {path: path.stat().st_mtime_ns for path in kept}


def test_another_model_cannot_be_exported_as_this_run(run: RunFolder, tmp_path: Path) -> None:
    loaded = load_run(run.path)
    other = build_detector(tmp_path / "other.onnx", classes=4)
    config = loaded.config.model_copy(update={"model": loaded.config.model.model_copy(update={"path": str(other)})})
    with pytest.raises(InputError, match="not the model of this run"):
        _ = Exporter(type(loaded)(**{**vars(loaded), "config": config})).graph


def test_calibration_and_evaluation_images_must_differ(folder: Path) -> None:
    overlap = folder / "overlap.txt"
    overlap.write_text("".join(f"images/{path.name}\n" for path in sorted((folder / "images").iterdir())[:2]))
    with pytest.raises(InputError) as caught:
        launch(read_study(folder / "study.yaml", ["data.calibration=overlap.txt"]), folder / "never")
    assert not (folder / "never").exists() and "\n" not in str(caught.value)


def test_formats_without_gain_are_left_out(folder: Path) -> None:
    inputs = read_inputs(read_study(folder / "study.yaml", ["objectives=[map_50_95, latency_ms]"]))
    assert inputs.dropped == ["w8a16", "w4a16"]
    assert {name for names in inputs.space.formats for name in names} == {"fp16", "int8"}
    changes = ["objectives=[map_50_95, latency_ms]", "space.formats=[fp16, w4a16]"]
    with pytest.raises(InputError, match="gains nothing"):
        read_inputs(read_study(folder / "study.yaml", changes))


def test_comparing_in_a_format_without_gain_names_the_remedy(folder: Path, tmp_path: Path) -> None:
    study = read_study(folder / "study.yaml", ["objectives=[map_50_95, latency_ms]"])
    with pytest.raises(InputError, match=r"'w4a16': was left out .* add weight_mib"):
        compare_methods(read_inputs(study), RunFolder(tmp_path), ["onnx", "inc"], "w4a16", 3)


def test_sensitivity_methods_that_lack_something_say_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TUNER_INC_PYTHON", raising=False)
    cases = [
        (["--method", "modelopt"], 2, "sensitivity.checkpoint: missing"),
        (["--method", "inc"], 2, "scores int8 only"),
        (["--method", "inc", "--set", "space.formats=[fp16, int8]"], 3, "sensitivity.inc_python: missing"),
    ]
    for index, (options, code, part) in enumerate(cases):
        arguments = ["tuner", "sensitivity", str(folder / "study.yaml"), "--out", str(folder / f"s{index}"), *options]
        monkeypatch.setattr(sys, "argv", arguments)
        with pytest.raises(SystemExit) as caught:
            main()
        assert caught.value.code == code
        assert part in capsys.readouterr().err.strip().splitlines()[-1]


def test_a_comparison_reaches_the_report(
    run: RunFolder, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two real tables of the same method stand in for two methods: ours, and ours with its order turned."""
    arguments = ["tuner", "compare", str(run.path / "study.yaml"), "--out", str(run.path), "--layers", "4", "--json"]
    monkeypatch.setattr(sys, "argv", [*arguments, "--method", "onnx", "--method", "modelopt-kl", "--format", "w4a16"])
    table = json.loads(run.sensitivity.read_text())
    worst = max(entry["score"] for entry in table["entries"])
    turned = [{**entry, "score": worst - entry["score"]} for entry in table["entries"]]
    kept = kept_table(read_study(run.study_file), run, "modelopt-kl")
    kept.parent.mkdir()
    kept.write_text(json.dumps({**table, "entries": turned}))
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["drops"]) == 4 and found["format"] == "w4a16"
    assert found["pairs"][0]["spearman"] == pytest.approx(-1)
    assert found["use"] in ("onnx", "modelopt-kl")
    monkeypatch.setattr(sys, "argv", ["tuner", "report", str(run.path)])
    with pytest.raises(SystemExit):
        main()
    assert "Sensitivity methods compared" in run.report.read_text()
