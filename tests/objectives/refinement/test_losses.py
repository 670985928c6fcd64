"""Losses are 0 for the unquantized model's own values, and count an anchor by what it detects."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_detectors import build_detector

from objectives.tasks.detection.detector import recognise
from search_spaces.model_graph import ModelGraph

torch = pytest.importorskip("torch", reason="the torch extra is not installed")

from objectives.refinement.executor import Executor  # noqa: E402
from objectives.refinement.losses import Layout, distance, feature_loss, layout_of  # noqa: E402
from objectives.refinement.refine import last_tensors  # noqa: E402


def test_a_feature_loss_is_a_share_of_the_variance() -> None:
    wanted = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert float(feature_loss({"x": wanted}, {"x": wanted})) == 0.0
    mean = wanted.mean().expand_as(wanted)
    assert float(feature_loss({"x": mean}, {"x": wanted})) == pytest.approx(1.0, rel=0.01)
    scaled = float(feature_loss({"x": 1000 * mean}, {"x": 1000 * wanted}))
    assert scaled == pytest.approx(1.0, rel=0.01), "whatever the unit"


@pytest.mark.parametrize("layout", ["scores", "end_to_end", "decoded"])
def test_class_logits_are_found_by_their_values(layout: str, tmp_path) -> None:  # type: ignore[no-untyped-def]
    graph = ModelGraph(build_detector(tmp_path / "m.onnx", layout))
    detector, executor, last = recognise(graph), Executor(graph, "cpu"), last_tensors(graph)
    dense = detector.dense(graph)
    assert dense is not None
    names = tuple(dict.fromkeys((*dense.tensors, *last)))
    draw = np.random.default_rng(0)
    image = torch.from_numpy(draw.random(graph.input_shape, dtype=np.float32))
    found = executor.run(executor.nodes(names, [graph.input]), {graph.input: image}, names)
    outputs = [found[name].numpy() for name in dense.tensors]
    made = layout_of(dense, outputs, [found[name] for name in last])
    channels = [found[name].shape[1] for name in last]
    assert any(made.classes) and not all(made.classes)
    assert {channels[place] for place, own in enumerate(made.classes) if own} == {detector.class_count}
    for place, score in enumerate(made.scores):
        assert score is not None and made.classes[score]
        assert found[last[place]].shape[2:] == found[last[score]].shape[2:], "the same anchors"


def test_an_anchor_counts_as_much_as_it_detects() -> None:
    logits = torch.full((1, 2, 4, 4), -8.0)
    logits[0, 0, 1, 1] = 4.0
    boxes = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    layout, wanted = Layout((True, False), (0, 0)), [logits, boxes]
    assert float(distance(wanted, wanted, layout)) == pytest.approx(0.0, abs=1e-6)
    there, elsewhere = boxes.clone(), boxes.clone()
    there[0, :, 1, 1] += 1.0
    elsewhere[0, :, 3, 3] += 1.0
    of_object = float(distance([logits, there], wanted, layout))
    of_background = float(distance([logits, elsewhere], wanted, layout))
    assert of_object > 20 * of_background > 0.0
    lost = logits.clone()
    lost[0, 0, 1, 1] = -4.0
    assert float(distance([lost, boxes], wanted, layout)) > 0.5
