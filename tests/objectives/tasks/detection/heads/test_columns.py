"""Columns are traced through what exporters put between the last layers and an output."""

from __future__ import annotations

from math import inf
from pathlib import Path

import pytest
from scene_detectors import scene_detector

from objectives.tasks.detection.heads.columns import boxes_are_shares, columns, first
from objectives.tasks.detection.heads.input_levels import takes_levels
from objectives.tasks.detection.heads.value_range import CHANGES
from search_spaces.model_graph import ModelGraph


def _told(path: Path, layout: str) -> list[tuple[int, str, tuple[str, ...]]]:
    graph = ModelGraph(scene_detector(path / "m.onnx", layout))
    return [(part.width, part.maker, part.operators) for part in columns(graph, "output0", 2)]


def test_what_each_column_passed(tmp_path: Path) -> None:
    assert _told(tmp_path, "yolox") == [
        (4, "Conv", ()),
        (1, "Conv", ("Sigmoid",)),
        (3, "Conv", ("Sigmoid",)),
    ]
    assert _told(tmp_path, "yolox_decoded")[:2] == [(2, "Conv", ("Add", "Mul")), (2, "Conv", ("Exp", "Mul"))]
    assert _told(tmp_path, "yolov5") == [
        (2, "Conv", ("Sigmoid", "Mul", "Add", "Mul")),
        (2, "Conv", ("Sigmoid", "Mul", "Pow", "Mul")),
        (4, "Conv", ("Sigmoid",)),
    ]
    assert _told(tmp_path, "yolov5_shares") == [(8, "Conv", ("Sigmoid",))]
    assert [width for width, _, _ in _told(tmp_path, "rtdetr_selected")] == [4, 1, 1]


@pytest.mark.parametrize(
    ("layout", "axis", "shares"),
    [("rtdetr", 2, True), ("scores_normalised", 1, True), ("divided", 1, False), ("yolox_decoded", 2, False)],
)
def test_boxes_in_shares_are_told_from_pixels(tmp_path: Path, layout: str, axis: int, shares: bool) -> None:
    assert boxes_are_shares(ModelGraph(scene_detector(tmp_path / "m.onnx", layout)), "output0", axis) is shares


def test_a_part_of_the_columns_keeps_where_it_is_from(tmp_path: Path) -> None:
    parts = columns(ModelGraph(scene_detector(tmp_path / "m.onnx", "yolov5")), "output0", 2)
    assert [(part.start, part.width) for part in first(parts, 3, 6)] == [(3, 1), (4, 2)]
    assert len({part.source for part in parts}) == 1


@pytest.mark.parametrize(
    ("operator", "values", "constants", "position", "found"),
    [
        ("Mul", (0.0, 1.0), [(-2.0, 3.0)], 0, (-2.0, 3.0)),
        ("Sub", (0.0, 1.0), [(5.0, 5.0)], 0, (-5.0, -4.0)),
        ("Sub", (0.0, 1.0), [(5.0, 5.0)], 1, (4.0, 5.0)),
        ("Div", (0.0, 1.0), [(2.0, 4.0)], 0, (0.0, 0.5)),
        ("Div", (0.0, 1.0), [(-1.0, 4.0)], 0, (-inf, inf)),
        ("Pow", (-1.0, 3.0), [(2.0, 2.0)], 0, (0.0, 9.0)),
        ("Pow", (0.0, 3.0), [(0.5, 0.5)], 0, (-inf, inf)),
        ("Mul", (-inf, inf), [(0.0, 0.0)], 0, (-inf, inf)),
        ("Clip", (-inf, inf), [(0.0, 0.0), (1.0, 1.0)], 0, (0.0, 1.0)),
    ],
)
def test_ranges_are_bounds(operator, values, constants, position, found) -> None:
    assert CHANGES[operator](values, constants, position) == found


def test_a_division_of_the_image_is_seen(tmp_path: Path) -> None:
    assert takes_levels(ModelGraph(scene_detector(tmp_path / "d.onnx", "divided")))
    assert not takes_levels(ModelGraph(scene_detector(tmp_path / "p.onnx", "yolov6")))
