"""What one search taught, put in place of the priors of another: over real models fitted to synthetic outcomes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from chain_model import chain
from scipy.stats import spearmanr

from search_spaces.formats import UNQUANTIZED
from search_spaces.groups import group_layers
from search_spaces.model_graph import ModelGraph
from search_spaces.space import SearchSpace
from tuner.samplers.acquisition import nondominated
from tuner.samplers.history import History
from tuner.samplers.problem import Ints, Problem, Target, edge_costs, summed
from tuner.transfer.keys import GroupKeys
from tuner.transfer.knowledge import DeviceCosts, Knowledge, ModelEffects
from tuner.transfer.prior import transferred
from tuner.transfer.teach import MIN_TRIALS, taught

FORMATS = (UNQUANTIZED, "int8", "w8a16")
REFERENCE_MS = 20.0


@pytest.fixture
def graph(tmp_path: Path) -> ModelGraph:
    chain(tmp_path / "model.onnx", 12)
    return ModelGraph(tmp_path / "model.onnx")


def space_of(graph: ModelGraph) -> SearchSpace:
    groups = group_layers(graph.layers, "layer")
    return SearchSpace(groups, (FORMATS,) * len(groups), tuple(layer.name for layer in graph.quantizable))


def problem_of(space: SearchSpace, harm: np.ndarray, latency: np.ndarray) -> Problem:
    count = len(space.groups)
    return Problem(
        space.parameters(),
        (Target("map_50_95", 0.4, 0.0), Target("latency_ms", REFERENCE_MS, 30.0, latency, 0.1, 0.01)),
        harm,
        np.stack([np.arange(count - 1), np.arange(1, count)], axis=1),
        np.ones(count - 1),
        np.array([0, 1, 0]),
        np.arange(count),
    )


def outcomes(problem: Problem, schemes: Ints, effects: np.ndarray, latency: np.ndarray, reformat: float) -> np.ndarray:
    shares = 0.1 + summed(latency, schemes) + reformat * problem.mismatches(schemes).sum(axis=1)
    return np.stack([0.4 * np.exp(-summed(effects, schemes)), REFERENCE_MS * shares], axis=1)


def test_a_second_search_begins_from_what_the_first_found(graph: ModelGraph) -> None:
    space, draw = space_of(graph), np.random.default_rng(0)
    keys = GroupKeys.of(graph, space)
    count = len(space.groups)
    effects = np.zeros((count, 3))
    effects[:, 1:] = np.exp(draw.normal(-4.5, 1.0, (count, 2)))
    latency = np.full((count, 3), 0.9 / count)
    latency[:, 1] *= 0.4
    told = np.full((count, 3), 0.9 / count)
    told[:, 1] *= 0.8  # the runtime's own estimate is wrong by a factor of two
    own = problem_of(space, np.where(effects > 0, 1.0, 0.0), told)
    schemes = draw.integers(0, 3, (80, count))
    values = outcomes(own, schemes, effects, latency, 0.03)
    history = History(schemes, values, np.full(80, np.nan), np.zeros((0, count), np.int64), frozenset())
    found = taught("first", own, own, history, keys)
    assert found is not None and found.costs is not None and found.costs.trials == 80
    kept = Knowledge.from_json(found.to_json(), "x")
    assert kept == found

    second = transferred(own, kept, keys)
    assert spearmanr(second.harm[:, 1:].ravel(), effects[:, 1:].ravel())[0] > 0.9
    assert (second.harm[:, 0] == 0).all()
    timed = second.objectives[1]
    assert timed.prior is not None and timed.learned is not None
    speedup = timed.prior[:, 1] / timed.prior[:, 0]
    assert np.abs(np.median(speedup) - 0.4) < 0.08, speedup
    assert np.isclose(timed.prior[:, 0].sum(), 0.9, rtol=1e-6)  # what the unquantized layers spend stays today's
    assert np.abs(np.median(edge_costs(second, timed).reformats) - 0.03) < 0.01
    assert second.objectives[0] == own.objectives[0]


def test_layers_that_cannot_have_a_format_are_known_all_the_same(graph: ModelGraph) -> None:
    """What a space leaves out is never measured: a depthwise layer in blocks, say."""
    space = space_of(graph)
    space = replace(space, formats=tuple(FORMATS[:2] if row else FORMATS for row in range(len(space.groups))))
    keys, count = GroupKeys.of(graph, space), len(space.groups)
    own = problem_of(space, np.ones((count, 3)), np.full((count, 3), 0.9 / count))
    rows = {key: {UNQUANTIZED: 2.0, "int8": 1.0} for key in keys.shapes}
    rows[keys.shapes[0]]["w8a16"] = 2.0
    timed = transferred(own, Knowledge(DeviceCosts("x", 20, rows, {}, {}, 0.1, 0.01)), keys).objectives[1]
    assert timed.prior is not None and np.isfinite(timed.prior).all()
    assert np.allclose(timed.prior[:, 0].sum(), 0.9) and np.allclose(timed.prior[:, 1], timed.prior[:, 0] / 2)
    assert timed.learned is not None


def test_a_slower_day_changes_no_share(graph: ModelGraph) -> None:
    space = space_of(graph)
    keys, count = GroupKeys.of(graph, space), len(space.groups)
    own = problem_of(space, np.ones((count, 3)), np.full((count, 3), 0.9 / count))
    rows = {key: {UNQUANTIZED: 1.0, "int8": 0.5, "w8a16": 1.0} for key in keys.shapes}
    shares = []
    for slowness in (1.0, 3.0):
        slowed = {key: {name: slowness * ms for name, ms in row.items()} for key, row in rows.items()}
        costs = DeviceCosts("x", 20, slowed, {}, {}, slowness * 0.1, slowness * 0.01)
        shares.append(transferred(own, Knowledge(costs), keys).objectives[1])
    assert shares[0].prior is not None and shares[1].prior is not None
    assert np.allclose(shares[0].prior, shares[1].prior) and np.allclose(shares[0].prior[:, 1], 0.45 / count)
    assert shares[0].learned is not None and shares[1].learned is not None
    assert np.allclose(shares[0].learned.reformats, shares[1].learned.reformats)


def test_other_shapes_take_the_correction_of_their_kind(graph: ModelGraph) -> None:
    space = space_of(graph)
    keys, count = GroupKeys.of(graph, space), len(space.groups)
    own = problem_of(space, np.ones((count, 3)), np.full((count, 3), 0.9 / count))
    kinds = {kind: {UNQUANTIZED: 0.0, "int8": float(np.log(0.5))} for kind in keys.kinds}
    costs = DeviceCosts("other model", 20, {}, kinds, {}, 0.1, 0.01)
    timed = transferred(own, Knowledge(costs), keys).objectives[1]
    assert timed.prior is not None and np.allclose(timed.prior[:, 1], 0.45 / count)
    assert np.allclose(timed.prior[:, [0, 2]], 0.9 / count)
    assert timed.learned is None  # nothing is known of its edges


def test_another_model_keeps_its_own_sensitivities(graph: ModelGraph) -> None:
    space = space_of(graph)
    keys, count = GroupKeys.of(graph, space), len(space.groups)
    own = problem_of(space, np.random.default_rng(1).random((count, 3)), np.full((count, 3), 0.9 / count))
    effects = ModelEffects("other", 20, {"layer of another model": {"int8": 0.1}})
    assert np.array_equal(transferred(own, Knowledge(effects=effects), keys).harm, own.harm)


def test_what_is_unknown_of_a_model_is_scaled_to_what_is_known(graph: ModelGraph) -> None:
    space = space_of(graph)
    keys, count = GroupKeys.of(graph, space), len(space.groups)
    harm = np.tile([0.0, 2.0, 4.0], (count, 1))
    own = problem_of(space, harm, np.full((count, 3), 0.9 / count))
    effects = ModelEffects("same", 20, {key: {"int8": 0.01 * (1 + row)} for row, key in enumerate(keys.names)})
    found = transferred(own, Knowledge(effects=effects), keys).harm
    assert np.allclose(found[:, 1], 0.01 * np.arange(1, count + 1))  # learned: losses
    median = np.exp(np.log(found[:, 1]).mean())
    assert np.allclose(found[:, 2] / found[0, 2], 1.0) and 1.5 < found[0, 2] / median < 2.5  # twice as harmful, as told


def test_few_trials_teach_nothing(graph: ModelGraph) -> None:
    space = space_of(graph)
    keys, count = GroupKeys.of(graph, space), len(space.groups)
    own = problem_of(space, np.ones((count, 3)), np.full((count, 3), 0.9 / count))
    schemes = np.random.default_rng(0).integers(0, 3, (MIN_TRIALS - 1, count))
    values = outcomes(own, schemes, np.full((count, 3), 0.01), np.full((count, 3), 0.9 / count), 0.0)
    none = np.zeros((0, count), np.int64)
    assert (
        taught("x", own, own, History(schemes, values, np.full(len(values), np.nan), none, frozenset()), keys) is None
    )


def test_a_study_of_sizes_teaches_no_latency(graph: ModelGraph) -> None:
    space = space_of(graph)
    keys, count = GroupKeys.of(graph, space), len(space.groups)
    latency = np.full((count, 3), 0.9 / count)
    own = problem_of(space, np.where(np.arange(3) > 0, 1.0, 0.0) * np.ones((count, 1)), latency)
    own = replace(own, objectives=(own.objectives[0], Target("weight_mib", 20.0, 30.0, latency, 0.1, exact=True)))
    schemes = np.random.default_rng(0).integers(0, 3, (30, count))
    values = outcomes(own, schemes, np.full((count, 3), 0.01), latency, 0.0)
    none = np.zeros((0, count), np.int64)
    found = taught("x", own, own, History(schemes, values, np.full(30, np.nan), none, frozenset()), keys)
    assert found is not None and found.costs is None
    assert found.effects is not None and len(found.effects.groups) == count and found.front is not None


def test_the_front_of_an_earlier_search_is_known_where_it_may_be_chosen(graph: ModelGraph) -> None:
    space, draw = space_of(graph), np.random.default_rng(0)
    keys, count = GroupKeys.of(graph, space), len(space.groups)
    effects = np.where(np.arange(3) > 0, np.exp(draw.normal(-4.5, 1.0, (count, 1))), 0.0)
    latency = np.array([1.0, 0.4, 0.9]) * np.full((count, 1), 0.9 / count)
    own = problem_of(space, np.where(effects > 0, 1.0, 0.0), latency)
    schemes = draw.integers(0, 3, (40, count))
    values = outcomes(own, schemes, effects, latency, 0.03)
    history = History(schemes, values, np.full(40, np.nan), np.zeros((0, count), np.int64), frozenset())
    found = taught("first", own, own, history, keys)
    assert found is not None and found.front is not None
    known = transferred(own, found, keys).earlier
    front = nondominated(values * [-1, 1])
    best = set(map(tuple, schemes[front].tolist()))
    assert len(best & {member.scheme for member in known}) > len(best) / 2
    for member in known:
        row = schemes.tolist().index(list(member.scheme))
        assert member.shares == pytest.approx((values[row] / [0.4, REFERENCE_MS]).tolist(), rel=0.02)

    without = replace(space, formats=(FORMATS[:2],) * count)  # a study that leaves a format out
    narrow = replace(own, parameters=without.parameters(), harm=own.harm[:, :2], domains=own.domains[:2])
    narrow = replace(narrow, objectives=(own.objectives[0], replace(own.objectives[1], prior=latency[:, :2])))
    assert all(max(member.scheme) < 2 for member in transferred(narrow, found, keys).earlier)
    assert len(transferred(narrow, found, keys).earlier) < len(known)
    renamed = replace(keys, names=tuple(f"other {name}" for name in keys.names))
    assert transferred(own, found, renamed).earlier == ()
