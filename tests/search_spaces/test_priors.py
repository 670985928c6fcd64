import numpy as np
import pytest
from tiny_detectors import build_detector

from search_spaces.errors import InputError
from search_spaces.model_graph import ModelGraph
from search_spaces.priors import ladders
from search_spaces.sensitivity import SensitivityEntry, SensitivityTable
from search_spaces.space import SearchSpace

FORMAT_NAMES = ["fp16", "int8", "w4a16"]


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> ModelGraph:
    return ModelGraph(build_detector(tmp_path_factory.mktemp("m") / "m.onnx", "end_to_end"))


@pytest.fixture(scope="module")
def space(graph: ModelGraph) -> SearchSpace:
    return SearchSpace.build(graph.layers, FORMAT_NAMES)


@pytest.fixture(scope="module")
def table(graph: ModelGraph) -> SensitivityTable:
    draw = np.random.default_rng(3)
    entries = tuple(
        SensitivityEntry(layer.name, fmt, float(draw.lognormal()) * harm)
        for layer in graph.quantizable
        for fmt, harm in (("int8", 1.0), ("w4a16", 4.0))
    )
    return SensitivityTable("onnx", "kl+iou", graph.digest, 8, entries, {"weights": "rtn"})


def test_ladders_keep_the_most_sensitive_layers_high(space: SearchSpace, table: SensitivityTable) -> None:
    for seed in ladders(space, table, "int8"):
        count = int(seed.origin.split(":")[2])
        high = {name for name, fmt in seed.allocation.items if fmt == "fp16"}
        worst = {entry.layer for entry in table.ranking("int8")[:count]}
        assert high == worst


def test_table_round_trip_and_reports(table: SensitivityTable) -> None:
    assert SensitivityTable.from_json(table.to_json()) == table
    first = table.ranking()[0]
    assert table.to_csv().splitlines()[1].startswith(f"1,{first.layer},{first.format},")
    assert f"`{first.layer}`" in table.to_markdown()
    with pytest.raises(InputError, match="not one of ours"):
        SensitivityTable.from_json("{}")
