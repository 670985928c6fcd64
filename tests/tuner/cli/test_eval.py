"""`tuner eval` on data as people's tools write it: labels that are read rightly score 1."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from known_detector import BOXES, NAMES, SIDE, box_row, coco_set, known_detector, polygon_row, yolo_set

from search_spaces.errors import InputError
from tuner.cli.commands.model import evaluate
from tuner.cli.commands.scheme import materialize


class Score:
    """Scores a detector by the command; `said` is what it wrote to stderr."""

    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self._model, self._capture, self.said = known_detector(folder / "known.onnx"), capture, ""

    def __call__(
        self, images: Path, annotations: Path | None = None, model: Path | None = None, **options: Any
    ) -> float:
        self._capture.readouterr()
        evaluate(model or self._model, images=images, annotations=annotations, as_json=True, **options)
        captured = self._capture.readouterr()
        self.said = captured.err
        return float(json.loads(captured.out)["map_50_95"])


@pytest.fixture
def score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Score:
    return Score(tmp_path, capsys)


def data_yaml(path: Path, /, **keys: object) -> Path:
    path.write_text(yaml.safe_dump({"names": list(NAMES), **keys}))
    return path


@pytest.mark.parametrize(
    "keys",
    [
        {"path": ".", "val": "images/val", "names": dict(enumerate(NAMES))},
        {"val": "../images/val", "nc": 3},
        {"val": ["images/val"], "names": {"0": NAMES[0], "1": NAMES[1], "2": NAMES[2]}},
        {"path": "/no/such/folder/on/this/machine", "val": "images/val"},
        {"val": "images\\val"},
        {"validation": "images/val", "nc": "3"},
        {"val": "images/val/part 0.png"},
        {"val": "images/val", "names": ["Bolt", "hex_nut", "WASHER"]},
        {"val": "images/val", "names": None, "nc": 3},
    ],
    ids=["path", "roboflow", "list", "moved", "windows", "validation", "one image", "case", "no names"],
)
def test_a_data_yaml_is_read_however_it_is_written(tmp_path: Path, score: Score, keys: dict[str, object]) -> None:
    yolo_set(tmp_path / "set")
    assert score(data_yaml(tmp_path / "set" / "data.yaml", **keys)) == pytest.approx(1.0)


def test_splits_of_a_data_yaml(tmp_path: Path, score: Score) -> None:
    yolo_set(tmp_path / "set", "test/images", "test/labels")
    yolo_set(tmp_path / "set", "valid/images", "valid/labels")[0].write_text("")
    path = data_yaml(tmp_path / "set" / "data.yaml", val="../valid/images", test="../test/images")
    assert score(path) < 1.0
    assert score(path, split="test") == pytest.approx(1.0)
    with pytest.raises(InputError, match=r"has no 'train' split \(it has: val, test\)"):
        score(path, split="train")
    with pytest.raises(InputError, match=r"split 'tset'.*did you mean 'test'"):
        score(path, split="tset")


@pytest.mark.parametrize(
    "rows",
    [
        [polygon_row(box) for box in BOXES],
        [polygon_row(box, 6) for box in BOXES],
        [box_row(BOXES[0]), *(polygon_row(box) for box in BOXES[1:])],
        [box_row(box) for box in (*BOXES, *BOXES)],
        [polygon_row(box) for box in (*BOXES, BOXES[1])],
        [f"  {box_row(box)}\t" for box in BOXES],
        [f"{box_row(box)} 0.4 0.4 2 0.5 0.5 0" for box in BOXES],
    ],
    ids=["oriented", "polygons", "mixed", "doubled", "doubled polygons", "blanks", "keypoints"],
)
def test_label_rows_of_every_kind_are_boxes(tmp_path: Path, score: Score, rows: list[str]) -> None:
    for file in yolo_set(tmp_path / "set")[1:]:
        file.write_text("\n\n".join(rows) + "\n")
    assert score(data_yaml(tmp_path / "set" / "data.yaml", val="images/val", kpt_shape=[2, 3])) == pytest.approx(1.0)
    assert ("there twice" in score.said) == (len(rows) > len(BOXES))


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [(codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")],
    ids=["utf-8", "utf-16-le", "utf-16-be"],
)
def test_byte_order_marks_of_windows_programs(tmp_path: Path, score: Score, mark: bytes, encoding: str) -> None:
    def rewrite(file: Path) -> Path:
        text = file.read_text().replace("\n", "\r\n")
        file.write_bytes(mark + text.encode(encoding))
        return file

    for file in yolo_set(tmp_path / "set"):
        rewrite(file)
    listing = tmp_path / "set" / "val.txt"
    listing.write_text("images/val/part 0.png\n./images/val/part 1.png\nimages\\val\\part 2.png\n")
    assert score(rewrite(data_yaml(tmp_path / "set" / "data.yaml", val=rewrite(listing).name))) == pytest.approx(1.0)
    assert score(tmp_path / "img", rewrite(coco_set(tmp_path / "img"))) == pytest.approx(1.0)
    out = tmp_path / "int8.onnx"
    materialize(tmp_path / "known.onnx", calibration=listing, out=out, uniform="int8", as_json=True)
    assert out.is_file()


@pytest.mark.parametrize(
    ("row", "fits"),
    [
        ("2 0.5 0.5 1.0000001 0.5", True),
        ("2 1.009 0.5 0.2 0.5", True),
        ("2 0.5 -0.004 0.2 0.2", True),
        ("2 0.5 0.5 -0.000001 0.2", True),
        ("2 0.5 0.5 1.02 0.5", False),
        ("2 0.5 -0.02 0.2 0.2", False),
        ("2 48 48 20 20", False),
        ("2 0.5 0.5 0.2 0.2 0.9", False),
        ("1.5 0.5 0.5 0.2 0.2", False),
        ("-1 0.5 0.5 0.2 0.2", False),
        ("2 0.1 0.1 0.2 0.1 0.2 0.2 0.1", False),
    ],
)
def test_shares_a_hair_outside_pass_and_others_do_not(tmp_path: Path, score: Score, row: str, fits: bool) -> None:
    file = yolo_set(tmp_path / "set")[1]
    file.write_text(f"{file.read_text()}\n{row}\n")
    path = data_yaml(tmp_path / "set" / "data.yaml", val="images/val")
    if fits:  # a box that the detector does not see
        assert 0.7 < score(path) < 1.0
    else:
        with pytest.raises(InputError, match=r"part 1\.txt:5: "):
            score(path)


def test_files_that_a_mac_or_an_editor_leaves_are_no_images(tmp_path: Path, score: Score) -> None:
    yolo_set(tmp_path / "set")
    folder = tmp_path / "set" / "images" / "val"
    for name in ("._part 1.png", ".DS_Store", ".cache/part 7.jpg", "Thumbs.db", "desktop.ini"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"\0\5\x16\7nothing")
    path = data_yaml(tmp_path / "set" / "data.yaml", val="images/val")
    assert score(path) == pytest.approx(1.0)
    (tmp_path / "set" / "all.txt").write_text("".join(f"{p}\n" for p in sorted(folder.glob("*.png"))))
    assert score(data_yaml(path, val="all.txt")) == pytest.approx(1.0)
    (folder / "part 9.heic").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"part 9\.heic.*cannot be read"):
        score(data_yaml(path, val="images/val"))


def changed(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    return path


def each(data: dict[str, Any], kind: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    for item in data[kind]:
        item.update(change(item))


@pytest.mark.parametrize("first", [0, 1, 900])
@pytest.mark.parametrize("ids", [(0, 1, 2), (90, 13, 44)])
def test_coco_ids_may_begin_anywhere(tmp_path: Path, score: Score, first: int, ids: tuple[int, ...]) -> None:
    assert score(tmp_path / "img", coco_set(tmp_path / "img", 1, first, ids)) == pytest.approx(1.0)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: each(d, "images", lambda i: {"file_name": f"deep\\img\\{i['file_name']}"}),
        lambda d: each(d, "images", lambda i: {"file_name": f"img/{i['file_name']}"}),
        lambda d: each(d, "images", lambda i: {"width": 96.0, "height": None}),
        lambda d: each(d, "annotations", lambda a: {"area": None, "iscrowd": None, "id": float(a["id"])}),
        lambda d: each(d, "annotations", lambda a: {"iscrowd": False, "segmentation": {"size": [9, 9], "counts": "0"}}),
        lambda d: d["categories"].insert(0, {"id": 0, "name": "parts", "supercategory": "none"}),
        lambda d: d["categories"].append(dict(d["categories"][1])),
        lambda d: each(d, "categories", lambda c: {"name": c["name"].upper().replace(" ", "-")}),
        lambda d: d["annotations"].append(
            {"id": 99, "image_id": 1, "category_id": 2, "bbox": [0, 0, SIDE, SIDE], "area": 9216, "iscrowd": 1}
        ),
    ],
    ids=["windows", "folder", "sizes", "nulls", "rle", "roboflow", "doubled", "case", "crowd"],
)
def test_coco_files_of_all_tools(tmp_path: Path, score: Score, change: Callable[[dict[str, Any]], None]) -> None:
    annotations = changed(coco_set(tmp_path / "deep" / "img"), change)
    assert score(tmp_path / "deep" / "img", annotations) == pytest.approx(1.0)


@pytest.mark.parametrize("prefix", ["upload/7/", "C:\\data\\", "/home/someone/parts/", "../../media/"])
def test_images_that_were_elsewhere_when_they_were_labelled(tmp_path: Path, score: Score, prefix: str) -> None:
    annotations = coco_set(tmp_path / "img")
    changed(annotations, lambda d: each(d, "images", lambda i: {"file_name": f"{prefix}{i['file_name']}"}))
    assert score(tmp_path / "img", annotations) == pytest.approx(1.0)
    (tmp_path / "img" / "part 1.png").rename(tmp_path / "part 1.png")
    with pytest.raises(InputError, match=r"part 1\.png"):
        score(tmp_path / "img", annotations)


def test_a_folder_brings_its_labels_where_an_export_has_put_them(tmp_path: Path, score: Score) -> None:
    labels = coco_set(tmp_path / "valid")
    with pytest.raises(InputError, match=r"valid: give its labels: a COCO json as --annotations"):
        score(tmp_path / "valid")
    labels.rename(tmp_path / "valid" / "_annotations.coco.json")
    assert score(tmp_path / "valid") == pytest.approx(1.0)
    yolo_set(tmp_path / "set")
    data_yaml(tmp_path / "set" / "data.yaml", val="images/val")
    assert score(tmp_path / "set") == pytest.approx(1.0)


def test_ids_may_be_names(tmp_path: Path, score: Score) -> None:
    def rename(data: dict[str, Any]) -> None:
        each(data, "images", lambda i: {"id": f"picture-{i['id']}"})
        each(data, "annotations", lambda a: {"image_id": f"picture-{a['image_id']}"})

    assert score(tmp_path / "img", changed(coco_set(tmp_path / "img"), rename)) == pytest.approx(1.0)


def test_categories_of_one_class_are_joined_and_told(tmp_path: Path, score: Score) -> None:
    def split(data: dict[str, Any]) -> None:
        data["categories"] += [{"id": 8, "name": "bolt"}, {"id": 9, "name": "Hex_Nut"}]
        for box in data["annotations"][::2]:
            box["category_id"] = {1: 8, 2: 9}.get(box["category_id"], box["category_id"])
        data["annotations"][1]["category_id"] = 9

    assert score(tmp_path / "img", changed(coco_set(tmp_path / "img"), split)) == pytest.approx(1.0)
    said = score.said
    assert "categories 1 'bolt', 8 'bolt' count as one: class 0 'bolt'" in said
    assert "categories 2 'hex nut', 9 'Hex_Nut' count as one: class 1 'hex nut'" in said


@pytest.mark.parametrize(
    "names",
    [list(NAMES), NAMES, json.dumps(dict(enumerate(NAMES))), dict(enumerate(NAMES))],
    ids=["list", "tuple", "json", "dict"],
)
def test_names_in_a_model_of_every_form(tmp_path: Path, score: Score, names: object) -> None:
    model = known_detector(tmp_path / "m.onnx", names)
    assert score(tmp_path / "img", coco_set(tmp_path / "img", ids=(5, 1, 3)), model) == pytest.approx(1.0)


def test_a_model_without_names_is_given_them(tmp_path: Path, score: Score) -> None:
    model, annotations = known_detector(tmp_path / "m.onnx", None), coco_set(tmp_path / "img", ids=(5, 1, 3))
    with pytest.raises(InputError, match=r"unknown number of classes without names; .*: --classes \(in a study"):
        score(tmp_path / "img", annotations, model)
    (tmp_path / "names.txt").write_text("\n".join(NAMES) + "\n")
    path = data_yaml(tmp_path / "names.yaml")
    for classes in (", ".join(NAMES), str(tmp_path / "names.txt"), str(path)):
        assert score(tmp_path / "img", annotations, model, classes=classes) == pytest.approx(1.0)
    with pytest.raises(InputError, match="names no class"):
        score(tmp_path / "img", annotations, model, classes=",")


def test_detections_of_classes_without_a_name_are_told(tmp_path: Path, score: Score) -> None:
    model = known_detector(tmp_path / "m.onnx", {0: NAMES[0]})
    annotations = coco_set(tmp_path / "img")
    changed(annotations, lambda d: d.update(annotations=[a for a in d["annotations"] if a["category_id"] == 1]))
    assert score(tmp_path / "img", annotations, model) == pytest.approx(1.0)
    assert "6 detections are of classes without a name (up to class 2; names: 1)" in score.said


def test_a_score_of_nothing_says_what_was_seen(tmp_path: Path, score: Score) -> None:
    annotations = coco_set(tmp_path / "img")
    swapped = known_detector(tmp_path / "s.onnx", ["washer", "bolt", "hex nut"])
    assert score(tmp_path / "img", annotations, swapped) == 0.0
    assert "boxes overlap, but never of one class; 6 detections of class 0 'washer' lie on labels of 1 'bolt'" in (
        score.said
    )
    tiny = known_detector(tmp_path / "t.onnx", boxes=[(1, 1, 2, 2, 0)])
    assert score(tmp_path / "img", annotations, tiny) == 0.0
    said = score.said
    assert "no two overlap by half" in said and "detections span x 1 to 2" in said and "labels x 6 to 90" in said
    blind = known_detector(tmp_path / "b.onnx", boxes=[])
    assert score(tmp_path / "img", annotations, blind) == 0.0
    assert "nothing is detected: no score in 3 images is above 0.001" in score.said
    crowds = changed(annotations, lambda data: each(data, "annotations", lambda a: {"iscrowd": 1}))
    assert score(tmp_path / "img", crowds) == -1.0
    assert "none of the 3 images has a labelled object" in score.said
