from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from coco_figures import coco_accuracy

from objectives.objective import MAP_50_95
from objectives.scores import Accuracy, Failure, Latency, Scores, Size, checked
from search_spaces.errors import InputError

GOOD = Scores(
    accuracy=coco_accuracy(0.4, 0.5, 0.4, 0.1, 0.4, 0.5, images=8),
    latency=Latency(5.0, 5.1, 5.2, 5.0, 0.01, 100, 0.5, 10.0),
    size=Size(100, 8.0, 100),
    latency_ms=5.0,
    agreement=0.9,
    artifact="ab",
)


def figures(**changes: float) -> Accuracy:
    return replace(GOOD.accuracy, metrics={**GOOD.metrics, **changes})


def test_scores_that_can_be_pass() -> None:
    assert checked(GOOD) is GOOD
    other = replace(GOOD, accuracy=figures(map_small=-1.0, other=7.0))  # no small objects; of an unknown unit
    assert checked(other) is other
    assert checked(replace(GOOD, latency=None, latency_ms=0.0)) == replace(GOOD, latency=None, latency_ms=0.0)


def test_scores_of_before_they_could_be_reused_are_read() -> None:
    data = json.loads(json.dumps(GOOD.to_json()))
    assert data.pop("reused") == "" and Scores.from_json(data) == GOOD
    assert Scores.from_json({**data, "reused": "ab"}) == replace(GOOD, reused="ab")


def test_accuracy_is_flat_as_json_and_read_so() -> None:
    data = json.loads(json.dumps(GOOD.to_json()))
    names = ["map_50_95", "map_50", "map_75", "map_small", "map_medium", "map_large", "images"]
    assert list(data["accuracy"]) == names and data["accuracy"]["images"] == 8
    data["accuracy"]["other"] = 0.25
    read = Scores.from_json(data)
    assert (read.metrics["other"], read.accuracy.map_50_95, read.accuracy.map_50) == (0.25, 0.4, 0.5)
    del data["accuracy"]["map_50_95"]
    with pytest.raises(InputError, match="map_50_95: field required"):
        MAP_50_95.value(Scores.from_json(data))
    data["accuracy"] = {"images": 8}
    with pytest.raises(InputError, match="no figure"):
        Scores.from_json(data)


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"latency_ms": math.nan}, "nan"),
        ({"latency_ms": math.inf}, "nan"),
        ({"latency_ms": -1.0}, "impossible"),
        ({"latency_ms": 0.0}, "impossible"),
        ({"latency": replace(GOOD.latency, ratio=-0.5)}, "impossible"),
        ({"accuracy": figures(map_50_95=1.2)}, "impossible"),
        ({"accuracy": figures(map_50_95=-0.1)}, "impossible"),
        ({"accuracy": figures(map_50_95=math.nan)}, "nan"),
        ({"accuracy": figures(map_75=7.0)}, "impossible"),
        ({"accuracy": figures(other=math.inf)}, "nan"),
        ({"size": replace(GOOD.size, weight_bytes=-1)}, "impossible"),
        ({"agreement": 1.5}, "impossible"),
    ],
)
def test_scores_that_cannot_be_are_failures(changes: dict, kind: str) -> None:
    found = checked(replace(GOOD, **changes))
    assert isinstance(found, Failure) and found.kind == kind and "\n" not in found.message
