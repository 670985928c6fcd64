import json
import shutil

import numpy as np
import pytest
import yaml
from tiny_detectors import NAMES, build_detector, write_calibration, write_dataset, write_images

from objectives.tasks.detection.data.calibration_set import check_disjoint, load_calibration
from objectives.tasks.detection.data.dataset import load_dataset
from search_spaces.errors import InputError


@pytest.fixture
def coco(tmp_path):
    return write_dataset(tmp_path, build_detector(tmp_path / "m.onnx"), 5)


def _changed(annotations, change):
    data = json.loads(annotations.read_text())
    change(data)
    annotations.write_text(json.dumps(data))
    return annotations


def test_reads_a_coco_folder(coco):
    dataset = load_dataset(*coco)
    assert [image.id for image in dataset.images] == [1, 2, 3, 4, 5]
    assert all(len(image.sha256) == 64 for image in dataset.images)
    assert [category.name for category in dataset.categories] == list(NAMES[:3])


def test_subset_is_fixed_nested_and_digested(coco):
    dataset = load_dataset(*coco)
    three, four = dataset.subset(3), dataset.subset(4)
    assert len(three) == 3
    assert {i.id for i in three.images} < {i.id for i in four.images}
    assert three == load_dataset(*coco).subset(3)
    assert three.digest == load_dataset(*coco).subset(3).digest != four.digest
    assert dataset.subset(99) is dataset.subset(None) is dataset
    rest = dataset.without(three)
    assert {i.id for i in rest.images} | {i.id for i in three.images} == {1, 2, 3, 4, 5}
    assert dataset.without(dataset) is None
    with pytest.raises(InputError, match="0 images cannot be scored"):
        dataset.subset(0)


def test_missing_images_are_named(coco):
    for path in sorted(coco[0].iterdir())[:2]:
        path.unlink()
    with pytest.raises(InputError, match=r"2 of 5 images are missing: 01_000\.png, 01_001\.png"):
        load_dataset(*coco)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("images"), "'images' is not a list of objects"),
        (lambda d: d["annotations"].clear(), "has no annotation"),
        (lambda d: d["images"].clear(), "lists no image"),
        (lambda d: d["images"][0].update(file_name="../x.png"), "leaves the image folder"),
        (lambda d: d["images"][0].update(file_name="/etc/x.png"), "is absolute"),
        (lambda d: d["images"][0].update(file_name="C:\\x.png"), "is absolute"),
        (lambda d: d["images"][0].pop("id"), r"images\[0\]: id is None"),
        (lambda d: d["images"][1].update(id=1), "image id 1 occurs more than once"),
        (lambda d: d["annotations"][2].update(bbox=[1, 2, float("nan"), 4]), "annotation 3: bbox"),
        (lambda d: d["annotations"][2].update(bbox=[1, 2, -3, 4]), "annotation 3: .* negative width"),
        (lambda d: d["annotations"][2].update(bbox="abcd"), "annotation 3: bbox"),
        (lambda d: d["annotations"][0].update(image_id=77), "annotation 1: image_id 77 .* other images"),
        (lambda d: d["annotations"][0].update(category_id=77), "category_id 77 is not among"),
        (lambda d: d["annotations"][1].update(id=1), "annotation id 1 occurs more than once"),
        (lambda d: d["categories"][1].update(id=10), "category id 10 occurs more than once"),
    ],
)
def test_bad_annotations_are_refused_by_name(coco, change, message):
    with pytest.raises(InputError, match=message):
        load_dataset(coco[0], _changed(coco[1], change))


def test_other_files_are_refused(coco, tmp_path):
    with pytest.raises(InputError, match=r"data\.yaml: a data yaml names its labels itself; leave .*labels\.json out"):
        load_dataset(tmp_path / "data.yaml", tmp_path / "labels.json")
    with pytest.raises(InputError, match="no such folder"):
        load_dataset(tmp_path / "nowhere", coco[1])
    with pytest.raises(InputError, match="no such file"):
        load_dataset(coco[0], tmp_path / "nothing.json")
    coco[1].write_text(coco[1].read_text()[:-20])
    with pytest.raises(InputError, match="not JSON, or truncated"):
        load_dataset(*coco)
    coco[1].write_text("[1, 2]")
    with pytest.raises(InputError, match="not an object"):
        load_dataset(*coco)


def test_a_number_of_thousands_of_digits_is_one_line(coco):
    images, annotations = coco
    text = annotations.read_text()
    for digits, part in ((6000, "not JSON"), (400, r"id is a huge number")):
        annotations.write_text(text.replace('"id": 1,', f'"id": {"9" * digits},', 1))
        with pytest.raises(InputError, match=part) as caught:
            load_dataset(images, annotations)
        assert len(str(caught.value)) < 300


def test_background_images_are_kept(coco):
    annotations = _changed(coco[1], lambda d: d.update(annotations=[a for a in d["annotations"] if a["image_id"] != 2]))
    assert len(load_dataset(coco[0], annotations)) == 5


def test_classes_map_to_categories(coco):
    dataset = load_dataset(*coco)
    used = [i if i in dataset.category_ids else None for i in (10, 11, 12)]
    assert dataset.category_of_class(["Cat", "extra", "apple", "boat"], 4) == (
        used[2],
        None,
        used[0],
        used[1],
    )
    assert dataset.category_of_class([], 3) == (10, 11, 12)
    with pytest.raises(InputError, match="labels have 3 categories, the model has 7 classes"):
        dataset.category_of_class([], 7)
    with pytest.raises(InputError, match=r"category 'apple' is not one of the model's 2 classes.*'apples'"):
        dataset.category_of_class(["apples", "boat"], 2)


@pytest.fixture
def yolo(tmp_path):
    write_images(tmp_path / "set" / "images" / "val", 3)
    labels = tmp_path / "set" / "labels" / "val"
    labels.mkdir(parents=True)
    (labels / "00_000.txt").write_text("1 0.5 0.5 0.5 0.25\n0 0.25 0.25 0.1 0.1\n")
    (labels / "00_001.txt").write_text("")
    path = tmp_path / "data.yaml"
    path.write_text(yaml.safe_dump({"path": "set", "val": "images/val", "names": {0: "a", 1: "b"}}))
    return path


def test_reads_an_ultralytics_data_yaml(yolo):
    dataset = load_dataset(yolo)
    image = dataset.images[0]
    assert (len(dataset), len(dataset.annotations)) == (3, 2)
    assert [category.id for category in dataset.categories] == [0, 1]
    expected = [image.width / 4, image.height * 3 / 8, image.width / 2, image.height / 4]
    assert np.allclose(dataset.annotations[0].bbox, expected)
    assert dataset.annotations[0].category_id == 1


def test_boxes_and_polygons_in_one_label_file_are_said(yolo):
    """Ultralytics 8.4 leaves such an image out of its figures."""
    label = next((yolo.parent / "set" / "labels" / "val").glob("*.txt"))
    assert not load_dataset(yolo).notes
    label.write_text("1 0.5 0.375 0.5 0.25\n0 0.1 0.1 0.4 0.1 0.4 0.4\n")
    dataset = load_dataset(yolo)
    assert [note for note in dataset.notes if "label files that hold boxes and polygons: 1;" in note]
    assert {box.category_id for box in dataset.annotations} == {0, 1}
    label.write_text("1 0.1 0.1 0.4 0.1 0.4 0.4\n0 0.1 0.1 0.4 0.1 0.4 0.4\n")
    assert not load_dataset(yolo).notes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("7 0.5 0.5 0.5 0.5", "class 7 is not among the 2 names"),
        ("1 0.5 0.5 1.5 0.5", "shares of 1"),
        ("1 0.5 nan 0.5 0.5", "shares of 1"),
        ("1 0.5", "shares of 1"),
    ],
)
def test_bad_label_lines_are_refused_by_line(yolo, text, message):
    (yolo.parent / "set" / "labels" / "val" / "00_002.txt").write_text("0 0.5 0.5 0.5 0.5\n" + text)
    with pytest.raises(InputError, match=rf"00_002\.txt:2: .*{message}"):
        load_dataset(yolo)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"val": "x" * 300}, "neither an image folder nor an image list"),
        ({"val": "images/\0val"}, "holds a character that no file name"),
        ({"path": "s\0t"}, "holds a character that no file name"),
    ],
)
def test_names_that_no_file_can_have_are_one_line(yolo, change, message):
    yolo.write_text(yaml.safe_dump(yaml.safe_load(yolo.read_text()) | change))
    with pytest.raises(InputError, match=message):
        load_dataset(yolo)


@pytest.mark.parametrize("where", ["absolute", "relative", "list"])
def test_a_data_yaml_may_name_images_anywhere(yolo, tmp_path, where):
    """As Ultralytics has it: sets lie beside each other, and lists name absolute paths."""
    shutil.move(tmp_path / "set", tmp_path / "elsewhere")
    (tmp_path / "set").mkdir()
    images = tmp_path / "elsewhere" / "images" / "val"
    (tmp_path / "list.txt").write_text("".join(f"{path}\n" for path in sorted(images.iterdir())))
    named = {"absolute": str(images), "relative": "../elsewhere/images/val", "list": "../list.txt"}[where]
    yolo.write_text(yaml.safe_dump(yaml.safe_load(yolo.read_text()) | {"val": named}))
    assert len(load_dataset(yolo)) == 3


@pytest.mark.parametrize("end", [b"", b"\n" + bytes(100 << 20), b"\n\xff\xfe"], ids=["text", "large", "no text"])
def test_a_file_that_is_no_image_list_is_refused_without_its_contents(yolo, tmp_path, end):
    secret = tmp_path / "secret.conf"
    secret.write_bytes(b"# settings\npassword = hunter2" + end)
    yolo.write_text(yaml.safe_dump(yaml.safe_load(yolo.read_text()) | {"val": str(secret)}))
    for read in (lambda: load_dataset(yolo), lambda: load_calibration(secret)):
        said = r"secret\.conf: (line 2 names no image .*|not a text file); write one image path per line"
        with pytest.raises(InputError, match=said) as caught:
            read()
        assert "hunter2" not in str(caught.value) and "password" not in str(caught.value)


def test_a_label_file_that_is_something_else_is_not_shown(yolo, tmp_path):
    (tmp_path / "secret.conf").write_text("password = hunter2 4 5")
    label = yolo.parent / "set" / "labels" / "val" / "00_002.txt"
    label.symlink_to(tmp_path / "secret.conf")
    with pytest.raises(
        InputError, match=r"00_002\.txt:1: the line, which holds other than numbers, is neither"
    ) as caught:
        load_dataset(yolo)
    assert "hunter2" not in str(caught.value)


def test_data_yaml_without_labels(yolo):
    shutil.rmtree(yolo.parent / "set" / "labels")
    with pytest.raises(InputError, match="no label for any of the 3 images"):
        load_dataset(yolo)


def test_calibration_list(tmp_path):
    listing = write_calibration(tmp_path, 3)
    loaded = load_calibration(listing)
    assert [image.path.name for image in loaded.images] == ["09_000.png", "09_001.png", "09_002.png"]
    assert load_calibration(listing, 2).digest != loaded.digest
    absolute = tmp_path / "absolute.txt"
    absolute.write_text("\n\n" + "".join(f"{image.path}\n" for image in loaded.images))
    assert load_calibration(absolute).digest == loaded.digest


@pytest.mark.parametrize(
    ("text", "limit", "message"),
    [
        ("# nothing\n\n", None, "lists no image"),
        ("calibration/09_000.png\n\nabsent.png\n", None, r"list\.txt:3: no such image 'absent\.png'"),
        ("calibration/09_000.png\ncalibration/09_000.png\n", None, r"list\.txt:2: .* same content as line 1"),
        ("calibration/09_000.png\n", 4, "lists 1 images, fewer than the 4"),
        ("calibration/09_000.png\n", 0, "0 is too few"),
    ],
)
def test_bad_calibration_lists(tmp_path, text, limit, message):
    write_calibration(tmp_path, 3)
    listing = tmp_path / "list.txt"
    listing.write_text(text)
    with pytest.raises(InputError, match=message):
        load_calibration(listing, limit)


def test_a_missing_calibration_list(tmp_path):
    with pytest.raises(InputError, match="no such image list"):
        load_calibration(tmp_path / "none.txt")


def test_calibration_and_evaluation_are_disjoint_by_content(tmp_path, coco):
    listing = write_calibration(tmp_path, 2)
    dataset = load_dataset(*coco)
    check_disjoint(load_calibration(listing), dataset)
    shutil.copy(coco[0] / "01_003.png", tmp_path / "calibration" / "renamed.png")
    listing.write_text(listing.read_text() + "calibration/renamed.png\n")
    with pytest.raises(InputError, match=r"1 calibration images are also evaluated on: renamed\.png = 01_003\.png"):
        check_disjoint(load_calibration(listing), dataset)


def test_real_lists_are_disjoint(shared_data):
    dataset = load_dataset(shared_data / "coco" / "val", shared_data / "coco" / "instances_val.json")
    check_disjoint(load_calibration(shared_data / "coco" / "calib.txt", 128), dataset)
    assert len(dataset) == 157
