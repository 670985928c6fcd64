from pathlib import Path

import pytest

from objectives.tasks.detection.data.class_match import match_classes
from objectives.tasks.detection.data.coco_json import Category, read_coco
from search_spaces.errors import InputError


def match(labels: dict[int, str], classes: list[str], count: int = 0, used: set[int] | None = None):
    categories = [Category(number, name) for number, name in labels.items()]
    return match_classes(categories, set(labels) if used is None else used, classes, count, Path("labels.json"))


def test_names_match_as_written_before_they_match_folded() -> None:
    found = match({3: "crane", 4: "Crane", 5: "traffic_light"}, ["Crane", "Traffic-Light", "crane"])
    assert found.categories == (4, 5, 3) and not found.joined and not found.notes


def test_a_name_that_fits_two_classes_is_refused() -> None:
    with pytest.raises(InputError, match=r"category 'CRANE' fits several classes .*: 0 'Crane' and 1 'crane'"):
        match({1: "CRANE"}, ["Crane", "crane"])


def test_names_that_are_there_twice_in_both_match_by_place() -> None:
    labels = {0: "pin", 1: "pin", 2: "cap"}
    assert match(labels, ["pin", "pin", "cap"]).categories == (0, 1, 2)
    with pytest.raises(InputError, match="fits several"):
        match(labels, ["pin", "cap", "pin"])


def test_categories_of_one_class_are_joined_under_the_one_that_is_written_as_the_class_is() -> None:
    found = match({1: "Nut", 7: "nut", 9: "nut", 4: "bolt"}, ["nut", "bolt"])
    assert found.categories == (7, 4) and found.joined == {1: 7, 9: 7}
    assert found.notes == (
        "labels.json: categories 7 'nut', 1 'Nut', 9 'nut' count as one: class 0 'nut' of the model",
    )
    unused = match({1: "Nut", 7: "nut"}, ["nut"], used={1})
    assert unused.categories == (1,) and not unused.joined


def test_labelled_categories_that_are_no_class_are_counted() -> None:
    with pytest.raises(InputError, match=r"category 'cog' is not one of the model's 1 classes \(1 more are not\)"):
        match({1: "nut", 2: "cog", 3: "cam"}, ["nut"])
    assert match({1: "nut", 2: "cog"}, ["nut"], used={1}).categories == (1,)


def test_without_names_classes_are_categories_in_order_and_that_is_told() -> None:
    found = match({8: "b", 2: "a"}, [], 2)
    assert found.categories == (2, 8)
    assert "the model has no class names" in found.notes[0] and "0 = 2 'a', 1 = 8 'b'" in found.notes[0]
    assert "the labels have no class names" in match({0: "", 1: ""}, ["a", "b"]).notes[0]
    for classes, count in (([], 3), ([], 0), (["a"], 1)):
        with pytest.raises(InputError, match=r"the labels have 2 categories.*--classes \(in a study: model\.classes\)"):
            match({0: "", 1: ""}, classes, count)


@pytest.mark.parametrize("above", ["pieces", None])
def test_without_names_a_category_that_only_groups_others_is_left_out(above: str | None) -> None:
    rows = [{"id": 0, "name": "pieces"}, *({"id": id, "name": name} for id, name in ((1, "rook"), (2, "king")))]
    if above:
        rows = [{**row, "supercategory": above if row["id"] else "none"} for row in rows]
    boxes = [{"id": 4, "image_id": 9, "category_id": 2, "bbox": [1, 2, 3, 4]}]
    data = {"images": [{"id": 9, "file_name": "a.png"}], "annotations": boxes, "categories": rows}
    _, _, categories = read_coco(data, Path("images"), Path("labels.json"))
    labels = Path("labels.json")
    found = match_classes(categories, {2}, [], 2, labels)
    assert found.categories == (1, 2)
    assert "left out" in found.notes[0] and found.notes[0].endswith("category 0 'pieces'")
    assert match_classes(categories, {2}, [], 3, labels).categories == (0, 1, 2)  # a class of the model all the same
    for used, count in (({0, 2}, 2), ({2}, 1)):
        with pytest.raises(InputError, match=r"the labels have [23] categories, the model has [12] classes"):
            match_classes(categories, used, [], count, labels)


def test_without_names_an_unused_class_is_not_taken_for_a_group() -> None:
    with pytest.raises(InputError, match="the labels have 3 categories, the model has 2 classes"):
        match({0: "a", 1: "b", 2: "c"}, [], 2, used={1, 2})  # labels of YOLO: class 0 is a class
    data = {
        "images": [{"id": 9, "file_name": "a.png"}],
        "annotations": [{"id": 4, "image_id": 9, "category_id": 2, "bbox": [1, 2, 3, 4]}],
        "categories": [{"id": id, "name": name, "supercategory": "tool"} for id, name in enumerate("abc")],
    }
    _, _, categories = read_coco(data, Path("images"), Path("labels.json"))
    with pytest.raises(InputError, match="the labels have 3 categories, the model has 2 classes"):
        match_classes(categories, {2}, [], 2, Path("labels.json"))
