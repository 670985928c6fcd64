from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import Done, Tuner
from onnx import numpy_helper
from tiny_detectors import build_detector, write_calibration, write_dataset

from tuner.launch import launch
from tuner.results.loaded import load_run
from tuner.study.study_file import read_study
from tuner.terminal.console import BAD_INPUT, ENVIRONMENT, guarded

StudyFile = Callable[..., Path]
COMMANDS = ("layers", "eval", "detect", "bench", "materialize", "sensitivity", "compare", "convert", "match", "doctor")
COMMANDS += ("run", "resume", "worker", "status", "front", "export", "rivals", "report", "dashboard")


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def assert_refused(done: Done, *parts: str) -> None:
    assert done.returncode == 2, done.stderr
    assert done.stdout == "" and "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()
    assert len(last) == 1 and last[0].startswith("tuner: error: ")
    for part in parts:
        assert part in last[0]


def test_every_command_shows_an_example(tuner: Tuner) -> None:
    listed = tuner("--help").stdout
    for command in COMMANDS:
        assert command in listed
        shown = tuner(command, "--help")
        assert shown.returncode == 0 and f"Example: tuner {command}" in " ".join(shown.stdout.split())


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, tuner.cli.app; print([m for m in ('optuna', 'onnx', 'numpy', 'cv2') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_json_is_alone_on_stdout(tuner: Tuner, study_file: StudyFile, tmp_path: Path) -> None:
    path = study_file(search={"trials": 8})
    started = tuner("run", path, "--run", tmp_path / "run", "--set", "search.seed=3")
    assert started.returncode == 0, started.stderr
    assert started.stdout == "" and "tuner dashboard" in started.stderr and "front.md" in started.stderr
    state = json.loads(tuner("status", tmp_path / "run", "--json").stdout)
    assert state["states"]["COMPLETE"] == 8 and state["done"] == state["trials"] == 8
    assert state["front"] > 0 and state["hypervolume"] > 0
    members = json.loads(tuner("front", tmp_path / "run", "--json").stdout)["front"]
    assert len(members) == state["front"]
    close = json.loads(tuner("front", tmp_path / "run", "--max-drop", "1", "--json").stdout)["front"]
    assert 0 < len(close) < len(members) and all(member["drop"] <= 0.01 for member in close)
    number = members[0]["trial"]
    done = tuner("export", tmp_path / "run", "--trial", number, "--out", tmp_path / "out", "--json")
    assert json.loads(done.stdout)["trial"] == number
    assert_refused(tuner("export", tmp_path / "run", "--trial", number, "--out", tmp_path / "out"), "not empty")
    assert_refused(tuner("export", tmp_path / "run", "--trial", 99, "--out", tmp_path / "o"), "0 to")
    layers = json.loads(tuner("layers", tmp_path / "model.onnx", "--json").stdout)["layers"]
    assert len(layers) == 12
    for command in ("status", "front"):
        assert tuner(command, tmp_path / "run").returncode == 0
    assert tuner("report", tmp_path / "run").returncode == 0


def test_a_noisy_machine_ends_nothing_and_is_shown_everywhere(
    tuner: Tuner, study_file: StudyFile, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    started = tuner("run", study_file(search={"trials": 6}, replay={"jitter": 0.1}), "--run", run)
    assert started.returncode == 0, started.stderr
    said = " ".join(started.stderr.split())
    assert "warning: the machine is noisy: the reference takes 100.0 ms (noisy, 90.0 to 110.0 ms)" in said
    assert "timing.min_seconds" in said and "trial 0 (reference): mAP 45.0, 100.0 ms (noisy, 90.0 to 110.0 ms)" in said
    state = json.loads(tuner("status", run, "--json").stdout)
    assert state["noisy"] == state["done"] == 6 and state["noisy_reference"]
    assert "noisy: 6 trials and the reference" in tuner("status", run).stdout
    for member in json.loads(tuner("front", run, "--json").stdout)["front"]:
        low, high = member["latency_ratio_interval"]
        assert member["noisy"] and low == pytest.approx(0.9 * member["latency_ratio"]) and high > low
    table = tuner("front", run).stdout
    assert "~ timed on a noisy machine" in table and table.count("~") == 1 + state["front"]
    assert "6 trials and 0 repeated timings on a noisy machine" in (run / "report.html").read_text()
    assert load_run(run).trials.study.trials[3].user_attrs["noisy"] is True


def test_bad_input_is_one_line_and_writes_nothing(tuner: Tuner, study_file: StudyFile, tmp_path: Path) -> None:
    good = study_file()
    model = (tmp_path / "model.onnx").read_bytes()
    (tmp_path / "torn.onnx").write_bytes(model[: len(model) // 2])
    (tmp_path / "text.onnx").write_text("no model")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    (tmp_path / "file").write_text("keep")
    before = snapshot(tmp_path)
    run = ("--run", tmp_path / "run")
    cases: list[tuple[tuple[object, ...], tuple[str, ...]]] = [
        (("run", tmp_path / "gone.yaml"), ("gone.yaml", "No such file")),
        (("run", good, *run, "--set", "serch.trials=4"), ("serch", "did you mean 'search'")),
        (("run", good, *run, "--set", "search.trials=no"), ("search.trials",)),
        (("run", good, *run, "--set", "model.path=gone.onnx"), ("gone.onnx", "does not exist")),
        (("run", good, *run, "--set", "model.path=torn.onnx"), ("torn.onnx", "truncated")),
        (("run", good, *run, "--set", "model.path=text.onnx"), ("text.onnx", "not an ONNX file")),
        (("run", good, *run, "--set", "space.formats=[int9]"), ("int9", "did you mean 'int8'")),
        (
            ("run", good, *run, "--set", "space.rules=[{layers: /model.77/*, formats: [int8]}]"),
            ("/model.77/*", "matches no quantizable layer"),
        ),
        (
            ("run", good, *run, "--set", "runtime.name=onnxruntime-cpu", "--set", "runtime.file=null"),
            ("data.images: missing",),
        ),
        (("run", good, "--run", tmp_path / "full"), ("full", "exists", "not a run")),
        (("run", good, "--run", tmp_path / "file" / "run"), ("cannot be written",)),
        (("run", good, *run, "--set", "storage=nosuchdb://x"), ("nosuchdb", "cannot be opened")),
        (("resume", tmp_path / "gone"), ("no such folder",)),
        (("resume", tmp_path / "full"), ("not a run",)),
        (("status", tmp_path / "full"), ("not a run",)),
        (("layers", tmp_path / "torn.onnx"), ("truncated",)),
        (("materialize", tmp_path / "model.onnx", "--calibration", "x", "--out", "y"), ("--uniform",)),
    ]
    for arguments, parts in cases:
        assert_refused(tuner(*arguments), *parts)
        assert snapshot(tmp_path) == before, arguments
    assert not (tmp_path / "run").exists()


def test_a_model_of_nan_is_one_line(tuner: Tuner, tmp_path: Path) -> None:
    images, annotations = write_dataset(tmp_path, build_detector(tmp_path / "m.onnx"), 1)
    model = onnx.load(tmp_path / "m.onnx")
    weight = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 4)
    weight.CopyFrom(numpy_helper.from_array(np.full(tuple(weight.dims), np.nan, np.float32), weight.name))
    onnx.save(model, tmp_path / "nan.onnx")
    done = tuner("eval", tmp_path / "nan.onnx", "--images", images, "--annotations", annotations)
    assert done.returncode == 2 and done.stdout == ""
    said = f"tuner: error: {tmp_path / 'nan.onnx'}: output 'output0' holds NaN or infinity (image id 1);"
    assert done.stderr.splitlines()[-1].startswith(said)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run",), "MODEL"),
        (("nonsense",), "No such command 'nonsense'"),
        (("front",), "Missing argument 'RUN'"),
        (("front", "--seting", "x" * 200), "No such option: --seting"),
        (("run", "x", "--trials", "zero"), "'--trials'"),
    ],
)
def test_usage_errors_are_one_line_of_any_length(tuner: Tuner, arguments: tuple[str, ...], said: str) -> None:
    assert_refused(tuner(*arguments), said)


def test_no_command_at_all_shows_the_help(tuner: Tuner) -> None:
    done = tuner()
    assert done.returncode == 2 and "Usage:" in done.stdout and not done.stderr


def test_a_page_and_a_budget_that_cannot_be_are_refused(tuner: Tuner, study_file: StudyFile, tmp_path: Path) -> None:
    run = launch(read_study(study_file(search={"trials": 2})), tmp_path / "run").path
    assert_refused(tuner("report", run, "--out", tmp_path), "is a folder; name the file of the page")
    assert_refused(tuner("report", run, "--out", tmp_path / "no" / "page.html"), "its folder does not exist")
    for option in ("--max-drop", "--max-latency", "--max-weight"):
        assert_refused(tuner("front", run, option, "nan"), f"{option} nan: must be a number")
    assert not (tmp_path / "no").exists()


def test_a_name_in_a_model_does_not_drive_the_terminal(tuner: Tuner, tmp_path: Path) -> None:
    model = onnx.load(build_detector(tmp_path / "m.onnx"))
    first = next(node for node in model.graph.node if node.op_type == "Conv")
    first.name = "\x1b]0;title\x07\x1b[31mred\nline \u202e"
    onnx.save(model, tmp_path / "m.onnx")
    plain = tuner("layers", tmp_path / "m.onnx")
    assert plain.returncode == 0 and r"\x1b]0;title\x07\x1b[31mred line \u202e" in plain.stdout
    whole = tuner("layers", tmp_path / "m.onnx", "--json")
    assert first.name in [layer["name"] for layer in json.loads(whole.stdout)["layers"]]
    for done in (plain, whole):
        assert all(line.isprintable() for text in (done.stdout, done.stderr) for line in text.splitlines())


def test_repeated_failures_exit_with_4(tuner: Tuner, study_file: StudyFile, tmp_path: Path) -> None:
    done = tuner("run", study_file(replay={"failures": {"*": "build"}}), "--run", tmp_path / "run")
    assert done.returncode == 4 and "replayed build" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.skipif(os.name != "posix" or os.getuid() == 0, reason="root may write everywhere")
def test_an_unwritable_place_is_refused(tuner: Tuner, study_file: StudyFile, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o555)
    assert_refused(tuner("run", study_file(), "--run", tmp_path / "closed" / "run"), "cannot be written")


def test_a_damaged_database_is_refused_and_left_alone(tuner: Tuner, study_file: StudyFile, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert tuner("run", study_file(search={"trials": 3}), "--run", run).returncode == 0
    for extra in run.glob("study.db-*"):
        extra.unlink()
    (run / "study.db").write_text("not a database")
    before = snapshot(run)
    for command in ("resume", "status", "front"):
        assert_refused(tuner(command, run), "study.db", "not a SQLite database")
    assert snapshot(run) == before


@pytest.mark.parametrize(("version", "opset", "scale"), [("8.6", 17, onnx.TensorProto.FLOAT), ("10", 19, None)])
def test_a_materialized_graph_suits_the_tensorrt_that_is_named(
    tuner: Tuner, tmp_path: Path, version: str, opset: int, scale: int | None
) -> None:
    model = build_detector(tmp_path / "m.onnx", "end_to_end")
    write_dataset(tmp_path, model, 1)
    images = ("--calibration", write_calibration(tmp_path, 1), "--out", tmp_path / "q.onnx")
    done = tuner("materialize", model, "--uniform", "int8", *images, "--runtime", "tensorrt", "--tensorrt", version)
    assert done.returncode == 0, done.stderr
    found = onnx.load(tmp_path / "q.onnx")
    assert found.opset_import[0].version == opset if scale else found.opset_import[0].version >= opset
    kinds = {i.name: i.data_type for i in found.graph.initializer}
    scales = {kinds[n.input[1]] for n in found.graph.node if n.op_type == "QuantizeLinear" and n.input[1] in kinds}
    assert scales == {scale or onnx.TensorProto.FLOAT16}
    (tmp_path / "q.onnx").unlink()
    refused = tuner("materialize", model, "--uniform", "int8", *images, "--tensorrt", version)
    assert refused.returncode == 2 and "do not depend on it" in refused.stderr


@pytest.mark.parametrize(
    ("runtime", "weights", "corrected"),
    [("openvino", (), True), ("openvino", ("--weights", "auto"), False), ("onnxruntime-cpu", (), False)],
)
def test_biases_are_corrected_where_the_runtime_gains_by_it(
    tuner: Tuner, tmp_path: Path, runtime: str, weights: tuple[str, ...], corrected: bool
) -> None:
    pytest.importorskip("openvino", reason="needs the openvino extra")
    model = build_detector(tmp_path / "m.onnx")
    images = ("--calibration", write_calibration(tmp_path, 1), "--out", tmp_path / "q.onnx")
    done = tuner("materialize", model, "--uniform", "int8", *images, "--runtime", runtime, *weights)
    assert done.returncode == 0, done.stderr
    names = [tensor.name for tensor in onnx.load(tmp_path / "q.onnx").graph.initializer]
    assert any(name.endswith("_bias_corrected") for name in names) is corrected


def test_layers_that_cannot_have_blocks_are_named(tuner: Tuner, tmp_path: Path) -> None:
    model = build_detector(tmp_path / "m.onnx")
    images = ("--calibration", write_calibration(tmp_path, 1), "--out", tmp_path / "q.onnx", "--weights", "rtn")
    done = tuner("materialize", model, "--uniform", "w8a16", *images, "--granularity", "block")
    assert done.returncode == 0, done.stderr
    assert "keep scales per channel" in done.stderr and "/model/0/conv/Conv" in done.stderr
    (tmp_path / "q.onnx").unlink()
    assert "keep scales" not in tuner("materialize", model, "--uniform", "w8a16", *images).stderr


def test_a_half_precision_model_is_said_and_its_fp32_nodes_are_named(tuner: Tuner, tmp_path: Path) -> None:
    model = onnx.load(build_detector(tmp_path / "m.onnx"))
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            values = numpy_helper.to_array(tensor) * (6e4 if tensor.name == "model.3.conv.weight" else 1)
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), tensor.name))
    del model.graph.value_info[:]
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    onnx.save(model, tmp_path / "half.onnx")
    images = ("--calibration", write_calibration(tmp_path, 1), "--out", tmp_path / "q.onnx")
    chosen = ("--uniform", "int8", "--runtime", "tensorrt", "--tensorrt", "10", "--json")
    done = tuner("materialize", tmp_path / "half.onnx", *images, *chosen)
    assert done.returncode == 0, done.stderr
    assert "read as float32" in done.stderr and "stay in fp32" in done.stderr
    nodes = json.loads(done.stdout)["fp32"]["nodes"]
    assert "/model/3/conv/Conv" in {node["node"] for node in nodes} and all(node["reason"] for node in nodes)
    assert "read as float32" in tuner("layers", tmp_path / "half.onnx").stderr


def test_a_file_with_little_quantized_says_so_and_one_with_nothing_is_refused(tuner: Tuner, tmp_path: Path) -> None:
    model = build_detector(tmp_path / "m.onnx", "scores")
    images = ("--calibration", write_calibration(tmp_path, 1), "--out", tmp_path / "q.onnx")
    done = tuner("materialize", model, "--uniform", "int8", *images, "--json")
    figures = json.loads(done.stdout)
    assert (figures["quantized_layers"], figures["layers"]) == (19, 20) and "warning" not in done.stderr
    (tmp_path / "q.onnx").unlink()

    shared = onnx.load(model)  # each weight is read once more: none but the first is a layer's own
    convolutions = [node for node in shared.graph.node if node.op_type == "Conv"]
    names = [node.input[1] for node in convolutions]
    for name in names[1:]:
        shared.graph.node.add(op_type="Shape", input=[name], output=[f"{name}.shape"], name=f"{name}.reader")
    onnx.save(shared, model)
    done = tuner("materialize", model, "--uniform", "int8", *images)
    assert done.returncode == 0 and "warning: only 1 of 20 layers can be quantized" in done.stderr
    assert "shared weight: also read by" in done.stderr
    (tmp_path / "q.onnx").unlink()

    shared.graph.node.add(op_type="Shape", input=[names[0]], output=["first.shape"], name="first.reader")
    onnx.save(shared, model)
    refused = tuner("materialize", model, "--uniform", "int8", *images)
    assert_refused(refused, "has no layer that can be quantized", "tuner layers")
    assert not (tmp_path / "q.onnx").exists()


def test_a_file_that_is_not_run_says_so(tuner: Tuner, tmp_path: Path) -> None:
    model = build_detector(tmp_path / "m.onnx", "scores")
    images = ("--calibration", write_calibration(tmp_path, 1), "--out", tmp_path / "q.onnx")
    done = tuner("materialize", model, "--uniform", "int8", *images, "--runtime", "tensorrt", "--tensorrt", "10")
    assert done.returncode == 0 and "checked, but not run: TensorRT" in done.stderr


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (IsADirectoryError(21, "Is a directory", "runs/a/x.json"), BAD_INPUT, "'runs/a/x.json': is a directory"),
        (MemoryError("cudaMalloc: the GPU is out of memory"), ENVIRONMENT, "the GPU is out of memory"),
        (MemoryError(), ENVIRONMENT, "MemoryError"),
    ],
)
def test_what_the_machine_refuses_is_one_line(
    capsys: pytest.CaptureFixture[str], error: Exception, code: int, line: str
) -> None:
    def work() -> None:
        raise error

    assert guarded(work) == code
    said = capsys.readouterr().err
    assert line in said and said.count("\n") == 1
