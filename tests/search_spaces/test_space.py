import pytest
from tiny_detectors import build_detector

from search_spaces.allocation import Allocation
from search_spaces.costs import CostTable
from search_spaces.errors import InputError
from search_spaces.formats import FORMATS, get_format
from search_spaces.model_graph import ModelGraph
from search_spaces.space import Rule, SearchSpace

FORMAT_NAMES = ["fp16", "int8", "w4a16"]


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> ModelGraph:
    return ModelGraph(build_detector(tmp_path_factory.mktemp("m") / "m.onnx", "end_to_end"))


def test_a_cost_table_survives_json_and_a_damaged_one_is_named() -> None:
    table = CostTable("ms", {("a", "int8"): 0.25, ("b", "fp16"): 1.0}, "test", 2.0, 3.0)
    text = table.to_json()
    assert CostTable.from_json(text) == table
    for damaged in (text[:-4], "[]", text.replace("0.25", "NaN"), text.replace('"ms"', "1")):
        with pytest.raises(InputError, match="cost table: not "):
            CostTable.from_json(damaged)


def test_the_formats() -> None:
    assert list(FORMATS) == ["fp16", "w8a16", "w4a16", "int8", "fp8", "w8a8f", "w4a8", "nvfp4"]
    with pytest.raises(InputError, match="did you mean 'int8'"):
        get_format("in8")


@pytest.mark.parametrize("granularity", ["layer", "module", "stage"])
def test_groups_cover_every_quantizable_layer_once(graph: ModelGraph, granularity: str) -> None:
    space = SearchSpace.build(graph.layers, FORMAT_NAMES, granularity)
    covered = [name for group in space.groups for name in group.layers]
    assert sorted(covered) == sorted(layer.name for layer in graph.quantizable)
    allocation = space.allocation(space.project("int8"))
    assert space.choices(allocation) == space.project("int8")
    assert [name for name, _ in allocation.items] == list(space.layers)


def test_formats_that_a_layer_cannot_have_are_left_out(graph: ModelGraph) -> None:
    space = SearchSpace.build(graph.layers, ["fp16", "nvfp4"])
    for layer, allowed in zip(graph.quantizable, space.formats, strict=True):
        fits = layer.block_axis is not None and layer.weight_shape[layer.block_axis] % 16 == 0
        assert allowed == (("fp16", "nvfp4") if fits else ("fp16",))
    stem = graph.quantizable[0].name
    with pytest.raises(InputError, match=f"space.formats: no format is left for layer '{stem}': nvfp4 needs whole"):
        SearchSpace.build(graph.layers, ["nvfp4"])
    with pytest.raises(InputError, match=f"space.rules: no format is left for layer '{stem}'"):
        SearchSpace.build(graph.layers, ["fp16"], rules=[Rule(stem, ("nvfp4",))])


def test_later_rules_win_and_fingerprints_differ(graph: ModelGraph) -> None:
    plain = SearchSpace.build(graph.layers, FORMAT_NAMES)
    first = graph.quantizable[0].name
    rules = [Rule("*", ("fp16", "int8")), Rule(first, ("fp16",))]
    ruled = SearchSpace.build(graph.layers, FORMAT_NAMES, "layer", rules)
    assert ruled.formats[0] == ("fp16",)
    assert set(ruled.formats[1:]) == {("fp16", "int8")}
    assert plain.fingerprint != ruled.fingerprint
    assert not ruled.contains(Allocation.uniform(ruled.layers, "int8"))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        ({"formats": []}, "space.formats: empty"),
        ({"formats": ["int9"]}, "unknown format 'int9'"),
        ({"formats": ["int8"], "granularity": "layr"}, "did you mean 'layer'"),
        ({"formats": ["int8"], "rules": [Rule("/nothing/*", ("int8",))]}, "'/nothing/\\*' matches no"),
        ({"formats": ["int8"], "rules": [Rule("*", ())]}, "allows no format"),
    ],
)
def test_mistakes_are_named(graph: ModelGraph, build: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        SearchSpace.build(graph.layers, **build)


def test_allocation_text_and_digest() -> None:
    one = Allocation.of({"a": "int8", "b": "fp16"})
    other = Allocation.of({"b": "fp16", "a": "int8"})
    assert Allocation.from_text(one.text) == one
    assert one.digest == other.digest
    assert one.digest != Allocation.of({"a": "fp16", "b": "int8"}).digest
    assert one.summary() == "int8 x 1, fp16 x 1"
    for text in ("{", "[1]", '{"a": 3}', '{"a": "int9"}'):
        with pytest.raises(InputError):
            Allocation.from_text(text)
