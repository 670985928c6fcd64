"""`tuner export`: what a finished study hands out, its card, and the lines of Python in it."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny_detectors import write_images
from tiny_study import write_tiny_study

from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner
from objectives.tasks.detection.data.letterbox import letterbox
from objectives.tasks.detection.data.preprocessing import Fit, Preprocessing
from tuner.results.export import Exporter
from tuner.results.loaded import load_run
from tuner.results.ship import _detector
from tuner.results.snippet import snippet


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of three trials."""
    folder = tmp_path_factory.mktemp("shipped")
    study = write_tiny_study(
        folder,
        "tiny",
        formats=["fp16", "int8"],
        timing={"min_seconds": 0.05},
        search={"trials": 3},
    )
    assert call("run", study, "--run", folder / "run") == 0
    return folder / "run"


def call(*words: object) -> int:
    from tuner.cli.app import app
    from tuner.terminal.console import guarded

    return guarded(lambda: app([str(word) for word in words], standalone_mode=False))


@pytest.mark.parametrize("target", [None, "ultralytics", "triton"])
def test_every_export_has_a_card_that_tells_the_measured_figures(run: Path, tmp_path: Path, target: str | None) -> None:
    out, loaded = tmp_path / "out", load_run(run)
    number = loaded.front[0].record.number
    assert call("export", run, "--trial", number, "--out", out, *(("--for", target) if target else ())) == 0
    card, scheme = (out / "README.md").read_text(), json.loads((out / "scheme.json").read_text())
    figure = loaded.rescores[loaded.front[0].record.allocation.digest].full.figure("map_50_95")
    assert f"{figure:.4f}" in card and "95 % interval" in card and "times as fast" in card
    assert (
        "Licence of the weights, as the model file says: not stated" in card
        and "of 4 images by the method `max`" in card
    )
    for layer, fmt in scheme["allocation"].items():
        assert (
            f"| `{layer}` | {'8-bit integer weights and activations' if fmt == 'int8' else 'not quantized'} |" in card
        )
    assert str(run) not in card and "RUN --trial" in card


@pytest.mark.parametrize("target", [None, "ultralytics", "triton"])
def test_the_cards_lines_of_python_compute_what_was_measured(
    run: Path, tmp_path: Path, target: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert call("export", run, "--trial", "1", "--out", out, *(("--for", target) if target else ())) == 0
    code = re.findall(r"^```python\n(import cv2.*?)^```$", (out / "README.md").read_text(), re.M | re.S)
    assert len(code) == 1
    image = write_images(tmp_path / "seen", 1)[0]
    image.rename(out / "image.jpg")
    monkeypatch.chdir(out)
    found: dict[str, object] = {}
    exec(code[0], found)
    pixels, _ = letterbox(cv2.imread("image.jpg"), Preprocessing((64, 64)))
    with OnnxRuntimeRunner(next(out.rglob("*.onnx"))) as runner:
        for theirs, ours in zip(
            found["outputs"], runner.infer(Preprocessing((64, 64)).feed(pixels[None])), strict=True
        ):
            np.testing.assert_array_equal(theirs, ours)


@pytest.mark.parametrize(
    "how",
    [
        Preprocessing((64, 96), Fit.TOP_LEFT, channels="bgr", divisor=1.0),
        Preprocessing((64, 96), Fit.STRETCHED, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7)),
        Preprocessing((96, 64), padding=0),
    ],
)
def test_its_preprocessing_is_any_heads(tmp_path: Path, how: Preprocessing, monkeypatch: pytest.MonkeyPatch) -> None:
    image = write_images(tmp_path, 1)[0]
    image.rename(tmp_path / "image.jpg")
    monkeypatch.chdir(tmp_path)
    lines = [line for line in snippet("m.onnx", "x", how, 2).splitlines() if "session" not in line]
    found: dict[str, object] = {}
    exec("\n".join(lines), found)
    pixels, _ = letterbox(cv2.imread("image.jpg"), how)
    np.testing.assert_array_equal(found["planes"], how.feed(pixels[None])[0])


def test_mistakes_are_one_line_and_write_nothing(run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        (("--for", "tritn"), "did you mean 'triton'"),
        (("--for", "deepstream"), "made for ONNX Runtime"),
        (("--for", "openvino"), "runtime.name=openvino"),
    ):
        assert call("export", run, "--trial", "1", "--out", tmp_path / "out", *words) == 2
        error = capfd.readouterr().err
        assert said in error and len(error.strip().splitlines()) == 1 and not (tmp_path / "out").exists()


def test_a_kept_export_that_tells_too_little_is_made_anew(
    run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    copy, number = Path(shutil.copytree(run, tmp_path / "copy")), load_run(run).front[0].record.number
    described = copy / "schemes" / str(number) / "scheme.json"
    told = json.loads(described.read_text())
    for hashes in (None, {}, {"model.onnx": ""}):
        described.write_text(json.dumps({**told, "sha256": hashes}))
        out = tmp_path / f"out {hashes}"
        capfd.readouterr()
        assert call("export", copy, "--trial", number, "--out", out, "--json") == 0
        digest = hashlib.sha256((out / "model.onnx").read_bytes()).hexdigest()
        assert json.loads(capfd.readouterr().out)["sha256"] == digest == told["sha256"]["model.onnx"]


def test_a_run_whose_model_is_gone_reads_the_schemes_own(run: Path, tmp_path: Path) -> None:
    loaded = load_run(run)
    exporter = Exporter(loaded)
    exported = exporter.contents(loaded.record(1))
    found = _detector(loaded.config, exporter, exported)
    gone = Exporter(replace(loaded, manifest={**loaded.manifest, "identity": {"digest.model": "another"}}))
    assert _detector(loaded.config, gone, exported) == found
