from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from search_spaces.errors import InputError
from tuner.study.study_file import read_study, write_study

GOOD = {
    "name": "demo",
    "model": {"path": "m.onnx"},
    "data": {"images": "val", "annotations": "a.json", "calibration": "c.txt"},
}


def write(folder: Path, **changes: object) -> Path:
    for name in ("m.onnx", "a.json", "c.txt", "s.json"):
        (folder / name).touch()
    (folder / "val").mkdir(exist_ok=True)
    study = {key: value for key, value in {**GOOD, **changes}.items() if value is not ...}
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(study))
    return path


def test_every_key_has_a_default_but_the_required_ones(tmp_path: Path) -> None:
    config = read_study(write(tmp_path))
    assert config.search.sampler == "model" and config.runtime.threads == 1 and config.weights.method == "auto"
    assert config.timing.resolved(config.runtime_type.timing).min_iterations == 15 and config.objectives == [
        "map_50_95",
        "latency_ms",
    ]
    assert config.model.path == str(tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("runtime", "weights", "expected"),
    [
        ("openvino", {}, "corrected"),
        ("openvino", {"images": 8}, "corrected"),
        ("openvino", {"method": "auto"}, "auto"),  # what runs from before have in their files
        ("onnxruntime-cpu", {}, "auto"),
    ],
)
def test_weights_that_nobody_asked_for_are_what_the_runtime_gains_by(
    tmp_path: Path, runtime: str, weights: dict[str, object], expected: str
) -> None:
    config = read_study(write(tmp_path, runtime={"name": runtime}, weights=weights))
    assert config.weights.method == expected
    run = tmp_path / "run.yaml"
    run.write_text(write_study(config, tmp_path))
    assert read_study(run).weights == config.weights


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"serach": {}}, ["serach: unknown key", "did you mean 'search'?"]),
        ({"search": {"trails": 3}}, ["search.trails: unknown key", "did you mean 'trials'?"]),
        ({"space": {"rules": [{"layer": "x", "formats": ["int8"]}]}}, ["space.rules.0", "'layers'"]),
        ({"search": {"trials": "many"}}, ["search.trials", "'many'"]),
        ({"search": {"trials": True}}, ["search.trials", "True"]),
        ({"search": {"trials": 0}}, ["search.trials", "greater than 0", "0"]),
        ({"search": {"sampler": "tp"}}, ["search.sampler", "did you mean 'tpe'?"]),
        ({"search": 5}, ["search", "5"]),
        ({"model": ...}, ["model: missing"]),
        ({"model": {}}, ["model.path: missing"]),
        ({"data": {"images": "val", "calibration": "c.txt"}}, ["data.annotations: missing"]),
        ({"model": {"path": "gone.onnx"}}, ["model.path", "gone.onnx", "does not exist"]),
        ({"model": {"path": "m.onnx", "image_size": "big"}}, ["model.image_size", "'big'"]),
        ({"model": {"path": "m.onnx", "image_size": [1, 2, 3]}}, ["model.image_size", "[height, width]"]),
        ({"objectives": ["latency_ms"]}, ["objectives", "map_50_95"]),
        ({"objectives": ["map_50_95", "speed"]}, ["objectives.1", "'speed'"]),
        ({"name": "../up"}, ["name", "'../up'"]),
        ({"sensitivity": {"method": "file"}}, ["sensitivity.file: missing"]),
        ({"runtime": {"name": "onnxruntime-cpux"}}, ["runtime.name", "did you mean 'onnxruntime-cpu'?"]),
    ],
)
def test_mistakes_are_one_line_that_names_key_value_and_remedy(tmp_path: Path, changes: dict, parts: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        read_study(write(tmp_path, **changes))
    message = str(caught.value)
    assert "study.yaml" in message and "\n" not in message
    for part in parts:
        assert part in message


def doubling(levels: int) -> str:
    """YAML of 2 aliases a level that writes out ``2**levels`` values."""
    return "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, levels + 1))


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("name: [", "not YAML"),
        ("- a\n- b\n", "must be a mapping"),
        ("name: !!python/object/apply:os.system ['true']\n", "not YAML"),
        ("a: &a [x]\nb: [" + ", ".join(["*a"] * 40) + "]\n", "aliases"),
        ("x: " + "y" * (1 << 20), "too large"),
        ("[" * 5000, "not YAML"),
        ("a: " + "[" * 60 + "]" * 60, "nested more than 50 deep"),
        (doubling(15), "more than 65536 values, its YAML aliases written out"),
        ("a: " + "9" * 6000, "not YAML"),
        ("a: 0x" + "f" * 6000, "a number of 24000 bits"),
        ('a: "x\\0y"', "holds a character that no file name"),
        ('a: "x\\ud800"', "holds a character that no file name"),
    ],
)
def test_hostile_yaml_is_refused(tmp_path: Path, text: str, part: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=part):
        read_study(path)


def test_missing_and_binary_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_study(tmp_path / "gone.yaml")
    with pytest.raises(InputError, match="Is a directory"):
        read_study(tmp_path)
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not a text file"):
        read_study(tmp_path / "b.yaml")


def test_overrides_are_parsed_as_yaml(tmp_path: Path) -> None:
    path = write(tmp_path)
    config = read_study(path, ["search.trials=7", "space.formats=[fp16, int8]", "search.hours=1.5"])
    assert (config.search.trials, config.space.formats, config.search.hours) == (7, ["fp16", "int8"], 1.5)
    for bad, part in [
        ("search.trials", "KEY=VALUE"),
        ("name.x=1", "not a mapping"),
        ("search.trials=[", "YAML"),
    ]:
        with pytest.raises(InputError, match=part):
            read_study(path, [bad])


def test_the_composed_study_reads_back_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = read_study(write(tmp_path), ["search.seed=4"])
    run = tmp_path / "deep" / "runs"
    run.mkdir(parents=True)
    (run / "study.yaml").write_text(write_study(config, run))
    monkeypatch.chdir("/")
    assert read_study(run / "study.yaml") == config
    assert "../../m.onnx" in (run / "study.yaml").read_text()


@pytest.mark.parametrize("name", ["data.yaml", "DATA.YAML", "data.yml"])
def test_a_data_yaml_needs_no_annotations(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, data={"images": name, "calibration": "c.txt"})
    (tmp_path / name).touch()
    assert read_study(path).data.annotations is None


def test_what_a_bound_needs_is_computed(tmp_path: Path) -> None:
    assert read_study(write(tmp_path, constraints={"min_agreement": 0.9})).data.metrics == ["coco_box", "agreement"]
    assert read_study(write(tmp_path, constraints={"min_map": 0.3})).data.metrics == ["coco_box"]
    assert read_study(write(tmp_path, constraints={"max_weight_mib": 3})).data.metrics == ["coco_box"]
