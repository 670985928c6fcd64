from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from objectives.scores import Accuracy, Failure, Latency, Scores, Size, checked

GOOD = Scores(
    Accuracy(0.4, 0.5, 0.4, 0.1, 0.4, 0.5, 8),
    Latency(5.0, 5.1, 5.2, 5.0, 0.01, 100, 0.5, 10.0),
    Size(100, 8.0, 100),
    5.0,
    0.9,
    "ab",
)


def test_scores_that_can_be_pass() -> None:
    assert checked(GOOD) is GOOD
    assert checked(replace(GOOD, latency=None, latency_ms=0.0)) == replace(GOOD, latency=None, latency_ms=0.0)


def test_scores_of_before_they_could_be_reused_are_read() -> None:
    data = json.loads(json.dumps(GOOD.to_json()))
    assert data.pop("reused") == "" and Scores.from_json(data) == GOOD
    assert Scores.from_json({**data, "reused": "ab"}) == replace(GOOD, reused="ab")


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"latency_ms": math.nan}, "nan"),
        ({"latency_ms": math.inf}, "nan"),
        ({"latency_ms": -1.0}, "impossible"),
        ({"latency_ms": 0.0}, "impossible"),
        ({"latency": replace(GOOD.latency, ratio=-0.5)}, "impossible"),
        ({"accuracy": replace(GOOD.accuracy, map_50_95=1.2)}, "impossible"),
        ({"accuracy": replace(GOOD.accuracy, map_50_95=-0.1)}, "impossible"),
        ({"accuracy": replace(GOOD.accuracy, map_50_95=math.nan)}, "nan"),
        ({"size": replace(GOOD.size, weight_bytes=-1)}, "impossible"),
        ({"agreement": 1.5}, "impossible"),
    ],
)
def test_scores_that_cannot_be_are_failures(changes: dict, kind: str) -> None:
    found = checked(replace(GOOD, **changes))
    assert isinstance(found, Failure) and found.kind == kind and "\n" not in found.message
