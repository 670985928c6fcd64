"""Studies without a file: composed of a model and data, as a user would write them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_detectors import build_detector, write_dataset

from objectives.runtimes.registry import RUNTIMES, open_runtime, parse_settings
from search_spaces.errors import InputError
from search_spaces.formats import get_format
from tuner.study.composed import Given, compose, open_study
from tuner.study.inputs import gains, read_inputs
from tuner.study.study_file import read_study

VAL, TRAIN = 6, 5


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A detector, and ``yolo/data.yaml`` with both splits."""
    model = build_detector(tmp_path / "best model.onnx")
    write_dataset(tmp_path, model, VAL + TRAIN)
    files = sorted((tmp_path / "images").iterdir())
    for split, chosen in (("val", files[:VAL]), ("train", files[VAL:])):
        folder = tmp_path / "yolo" / "images" / split
        folder.mkdir(parents=True)
        (tmp_path / "yolo" / "labels" / split).mkdir(parents=True)
        for file in chosen:
            shutil.copy(file, folder)
            (tmp_path / "yolo" / "labels" / split / f"{file.stem}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    write_yaml(tmp_path, train="images/train", val="images/val")
    return model


def write_yaml(root: Path, **splits: str) -> Path:
    path = root / "yolo" / "data.yaml"
    labels = json.loads((root / "labels.json").read_text())
    names = [category["name"] for category in labels["categories"]]
    path.write_text(yaml.safe_dump({"path": ".", "names": names, **splits}))
    return path


def opened(model: Path, given: Given, *overrides: str):
    config, notes = open_study(model, given, overrides)
    return read_inputs(config), notes


def test_a_model_and_a_data_yaml_are_a_study(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = Given(data=Path("yolo/data.yaml"), max_drop=1.5, trials=7)
    inputs, notes = opened(Path("best model.onnx"), given, "search.seed=4")
    assert not notes
    assert inputs.config.name == "best-model" and inputs.config.constraints.max_drop == 1.5
    assert inputs.config.search.trials == 7 and inputs.config.search.seed == 4
    assert len(inputs.data.full) == VAL and len(inputs.data.calibration) == TRAIN
    scored = {image.sha256 for image in inputs.data.full.images}
    assert not scored & {image.sha256 for image in inputs.data.calibration.images}


@pytest.mark.parametrize("runtime", ["onnxruntime-cpu", "openvino", "tensorrt-rtx"])
def test_formats_are_those_that_gain_something_on_the_runtime(model: Path, tmp_path: Path, runtime: str) -> None:
    target = open_runtime(parse_settings({"name": runtime}))
    try:
        target.check()
    except Exception as error:
        pytest.skip(str(error))
    given = Given(data=tmp_path / "yolo", runtime=runtime)
    found = compose(model, given, tmp_path)
    path = tmp_path / "study.yaml"
    path.write_text(found.text)
    config = read_study(path)
    assert config.runtime.name == runtime and ("latency_ms" in config.objectives) is not bool(target.emulated)
    assert len(config.space.formats) > 1
    for name in config.space.formats:
        assert gains(config, target, name)
    left_out = [line for line in found.text.splitlines() if "left out:" in line]
    for line in left_out:
        names, _, why = line.partition("left out: ")[2].partition(": ")
        for name in names.split(", "):
            assert not gains(config, target, name) and why == target.support(get_format(name)).text


def test_a_composed_file_is_commented_and_reads_as_the_study_itself(model: Path, tmp_path: Path) -> None:
    given = Given(data=tmp_path / "yolo" / "data.yaml", max_drop=2.0)
    for folder in (tmp_path, tmp_path / "elsewhere"):
        folder.mkdir(exist_ok=True)
        path = folder / "study.yaml"
        path.write_text(compose(model, given, folder).text)
        assert path.read_text().count("#") > 4
        assert read_study(path) == open_study(model, given)[0]


@pytest.mark.parametrize(
    "stem", ["2024-11-28", "123", "0x1F", "1.5", "null", "yes", "on", "a: b #c", "é\u2028\x85\n- x"]
)
def test_a_study_is_named_after_its_model_whatever_that_is_in_yaml(model: Path, tmp_path: Path, stem: str) -> None:
    shutil.copy(model, tmp_path / f"{stem}.onnx")
    config, _ = open_study(tmp_path / f"{stem}.onnx", Given(data=tmp_path / "yolo"))
    assert config.name == {"a: b #c": "a-b-c", "é\u2028\x85\n- x": "x"}.get(stem, stem)
    assert config.model.path == str(tmp_path / f"{stem}.onnx")


@pytest.mark.parametrize(
    ("splits", "why"),
    [
        ({"val": "images/val"}, "names no train images"),
        ({"val": "images/val", "train": "images/val"}, "its train images are those of val"),
        ({"val": "images/val", "train": "images/gone"}, "its train images are not there"),
        ({"test": "images/val"}, "names no train images, so some of its test images"),
    ],
)
def test_without_a_disjoint_split_some_images_are_held_out_and_it_is_said(
    model: Path, tmp_path: Path, splits: dict[str, str], why: str
) -> None:
    inputs, notes = opened(model, Given(data=write_yaml(tmp_path, **splits)))
    assert len(notes) == 1 and why in notes[0] and "--calibration" in notes[0]
    assert len(inputs.data.full) == VAL - 1 and len(inputs.data.calibration) == 1
    assert any(f"1 of its {VAL} images calibrate, and are not scored" in note for note in inputs.notes)


def test_calibration_images_that_are_scored_under_other_names_are_refused(model: Path, tmp_path: Path) -> None:
    copies = tmp_path / "yolo" / "images" / "copies"
    copies.mkdir()
    for file in (tmp_path / "yolo" / "images" / "val").iterdir():
        shutil.copy(file, copies / f"copy-{file.name}")
    given = Given(data=write_yaml(tmp_path, val="images/val", train="images/copies"))
    with pytest.raises(InputError, match="all 6 calibration images are also evaluated on; name other images"):
        opened(model, given)
    inputs, _ = opened(model, Given(data=given.data, calibration=tmp_path / "images"))
    assert len(inputs.data.calibration) == TRAIN  # the folder holds the scored images too


def test_images_of_their_own(model: Path, tmp_path: Path) -> None:
    inputs, notes = opened(model, Given(images=tmp_path / "images", annotations=tmp_path / "labels.json"))
    assert not notes and inputs.config.objectives[0] == "map_50_95"
    assert len(inputs.data.full) + len(inputs.data.calibration) == VAL + TRAIN
    inputs, notes = opened(model, Given(images=tmp_path / "images"))
    assert inputs.config.objectives[0] == "agreement" and "no labels" in notes[0]


def test_a_study_file_takes_wishes_but_no_other_data(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(compose(model, Given(data=tmp_path / "yolo"), tmp_path).text)
    config, _ = open_study(path, Given(max_drop=0.5, runtime="onnxruntime-cpu"), ["constraints.max_drop=0.25"])
    assert config.constraints.max_drop == 0.25
    with pytest.raises(InputError, match=r"--data .*: .* is a study file and names its own"):
        open_study(path, Given(data=tmp_path / "yolo"))


@pytest.mark.parametrize(
    ("target", "given", "parts"),
    [
        ("gone.onnx", {}, ["gone.onnx: no such file"]),
        ("labels.json", {}, ["neither a study file (.yaml), an ONNX file (.onnx) nor an Ultralytics checkpoint (.pt)"]),
        ("best model.onnx", {}, ["no images: give --data DATA.yaml, or --images DIR with --annotations FILE"]),
        ("best model.onnx", {"data": "gone.yaml"}, ["gone.yaml", "No such file"]),
        ("best model.onnx", {"data": "images"}, ["holds no yaml; name its data yaml"]),
        ("best model.onnx", {"data": "yolo", "images": "images"}, ["--images", "give one or other"]),
        ("best model.onnx", {"images": "gone"}, ["--images", "no such folder"]),
        ("best model.onnx", {"images": "images", "annotations": "gone"}, ["--annotations", "no such file"]),
        ("best model.onnx", {"data": "yolo", "calibration": "gone"}, ["--calibration", "no such list"]),
        ("best model.onnx", {"data": "yolo", "runtime": "tensorr"}, ["did you mean 'tensorrt'?"]),
        (
            "best model.onnx",
            {"images": "yolo/data.yaml", "annotations": "labels.json"},
            ["--annotations", "leave it out"],
        ),
        ("best model.onnx", {"data": "yolo", "trials": 0}, ["--trials 0: must be at least 1"]),
        ("best model.onnx", {"data": "yolo", "runtime": "replay"}, ["needs a study file"]),
        ("run", {}, ["is a run; `tuner resume"]),
    ],
)
def test_mistakes_are_one_line(
    model: Path, tmp_path: Path, target: str, given: dict[str, Any], parts: list[str]
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "study.yaml").write_text("name: x\n")
    named = {name: value if name in ("runtime", "trials") else tmp_path / value for name, value in given.items()}
    with pytest.raises(InputError) as caught:
        open_study(tmp_path / target, Given(**named))
    message = str(caught.value)
    assert "\n" not in message and all(part in message for part in parts), message


def test_every_runtime_of_the_registry_can_be_asked(model: Path, tmp_path: Path) -> None:
    """One that this machine lacks is named with a remedy; none makes the tool fall over."""
    from objectives.runners.runner import RuntimeUnavailable

    for name in RUNTIMES.names():
        try:
            text = compose(model, Given(data=tmp_path / "yolo", runtime=name), tmp_path).text
        except (InputError, RuntimeUnavailable) as error:
            assert "\n" not in str(error)
        else:
            assert f"name: {name}" in text
