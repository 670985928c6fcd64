import json

import pytest

from search_spaces.comparison import Comparison, MeasuredDrop, Ranking, agree, compare, sample_layers
from search_spaces.errors import InputError

LAYERS = [f"l{index}" for index in range(10)]


def ranking(method, scores, fmt="int8", seconds=1.0):
    return Ranking(method, fmt, dict(zip(LAYERS, scores, strict=False)), seconds)


def drops(values):
    return [MeasuredDrop(layer, "int8", value / 100, value, 1.0) for layer, value in zip(LAYERS, values, strict=False)]


def test_order_alone_counts():
    found = agree(ranking("a", range(10)), ranking("b", [x**3 for x in range(10)]))
    assert (found.layers, found.spearman, found.kendall, found.overlap) == pytest.approx((10, 1, 1, 1))
    turned = agree(ranking("a", range(10)), ranking("b", range(10, 0, -1)))
    assert (turned.spearman, turned.kendall, turned.overlap) == pytest.approx((-1, -1, 0))


def test_only_common_layers_are_compared():
    found = agree(ranking("a", range(10)), Ranking("b", "int8", {"l9": 3, "l2": 1, "l5": 2, "other": 9}, 0))
    assert (found.layers, found.spearman) == (3, pytest.approx(1))
    with pytest.raises(ValueError, match="a and b have 1 layers in common"):
        agree(ranking("a", range(10)), Ranking("b", "int8", {"l9": 3}, 0))


def test_a_sample_spans_the_ranking():
    found = sample_layers(ranking("a", range(10)), 4)
    assert found == ["l9", "l6", "l3", "l0"]
    assert len(sample_layers(ranking("a", range(10)), 50)) == 10


def test_the_method_nearest_to_the_damage_is_named():
    good, bad = ranking("good", range(10)), ranking("bad", [5, 1, 4, 2, 9, 0, 3, 8, 6, 7])
    found = compare("digest", 7, "int8", [[bad], [good]], drops(range(10)))
    assert found.best == "good" and found.to_json()["use"] == "good"
    assert found.not_told_apart == []
    alike = compare("digest", 7, "int8", [[good], [ranking("near", [1, 0, *range(2, 10)])]], drops(range(10)))
    assert alike.best == "good" and "too few to tell it from near" in alike.to_markdown()
    assert Comparison.from_json(json.dumps(found.to_json())) == found
    with pytest.raises(InputError, match="comparison: not one of ours"):
        Comparison.from_json("{}")
    text = found.to_markdown()
    assert "Use **good**" in text and "| good | int8 | 1 | +1.00 | +1.00 | +1.00 | +1.00 |" in text
    assert [(p.first, p.second) for p in found.pairs] == [("bad", "good")]


def test_methods_are_compared_in_a_format_that_both_score():
    first = [ranking("a", range(10), "w4a16"), ranking("a", range(10, 0, -1), "int8")]
    second = [ranking("b", range(10), "int8")]
    found = compare("digest", 7, "w4a16", [first, second], drops(range(10)))
    assert found.pairs[0].spearman == pytest.approx(-1)  # both in int8
    assert [r.format for r in found.rankings] == ["w4a16", "int8"]
