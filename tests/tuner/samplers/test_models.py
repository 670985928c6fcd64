"""The parts of the model-guided sampler, each against what can be computed otherwise."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import optuna
import pytest
from scipy.sparse import csr_array
from scipy.stats import multivariate_normal, spearmanr

from tuner.samplers import make_sampler
from tuner.samplers.accuracy_model import AccuracyModel
from tuner.samplers.acquisition import expected_improvement, improvement, nondominated
from tuner.samplers.candidates import drawn
from tuner.samplers.cost_model import CostModel
from tuner.samplers.history import History
from tuner.samplers.knapsack import frontier, knapsack_points
from tuner.samplers.posterior import JointPosterior
from tuner.samplers.problem import Problem, Target, edge_costs, summed
from tuner.samplers.regression import Observations, Posterior, Prior, hamming, log_marginal_likelihood
from tuner.samplers.solver import solve

FORMATS = ("fp16", "int8", "w4a16")
DRAW = np.random.default_rng(5)


@pytest.fixture(autouse=True)
def same_draws() -> None:
    """Every test draws the same numbers, in whatever order they run."""
    DRAW.bit_generator.state = np.random.default_rng(5).bit_generator.state


def make_problem(
    groups: int = 30, prior_noise: float = 0.5, blocked: frozenset[tuple[str, str]] = frozenset()
) -> Problem:
    draw = np.random.default_rng(1)
    names = [f"g{index}" for index in range(groups)]
    effects = true_effects(groups)
    costs = np.outer(draw.lognormal(0, 0.7, groups), [1.0, 0.4, 0.9])
    costs /= costs[:, 0].sum() / 0.8
    return Problem(
        dict.fromkeys(names, FORMATS),
        (Target("map_50_95", 0.5, 0.25), Target("latency_ms", 20.0, 22.0, costs, 0.2, 0.008)),
        effects * np.exp(draw.normal(0, prior_noise, effects.shape)) * 100,
        np.array([*pairwise(range(groups)), (0, 5), (2, 6)]),
        np.ones(groups + 1),
        np.array([0, 1, 0]),
        np.arange(groups) // 4,
        blocked,
    )


def true_effects(groups: int) -> np.ndarray:
    draw = np.random.default_rng(0)
    return 0.006 * np.outer(draw.lognormal(0, 1.0, groups), [0.0, 1.0, 3.0])


def schemes_of(problem: Problem, count: int) -> np.ndarray:
    return np.random.default_rng(7).integers(0, len(FORMATS), (count, problem.groups))


def test_posterior_equals_the_textbook_formula() -> None:
    """About any point the values are linear in the deviates: there the posterior is that of Gaussian regression."""
    design = csr_array(DRAW.integers(0, 3, (5, 6)).astype(float))
    members = csr_array(DRAW.integers(0, 2, (6, 4)).astype(float))
    mean, deviation, point = DRAW.normal(-1, 0.3, 6), DRAW.uniform(0.2, 0.5, 4), DRAW.normal(-1, 0.3, 6)
    prior = Prior(mean, members, deviation, 0.2, 0.3)
    schemes, values, spread = DRAW.integers(0, 3, (5, 4)), DRAW.uniform(1, 3, 5), DRAW.uniform(1, 2, 5)
    found = Posterior(prior, Observations(schemes, design, values, spread), point)

    theta = np.exp(point)
    sums, jacobian = design @ theta, design.toarray() * theta
    linear = jacobian @ members.toarray() * deviation
    covariance = linear @ linear.T + 0.09 * np.outer(sums, sums) * np.exp(-hamming(schemes, schemes) / 10)
    covariance += np.diag((0.2 * spread) ** 2)
    error = values - sums - jacobian @ (mean - point)
    gain = linear.T @ np.linalg.inv(covariance)
    expected = mean + members.toarray() @ (deviation * (gain @ error))
    assert np.allclose(found.log_effects, expected, atol=1e-9)
    density = multivariate_normal(np.zeros(5), covariance).logpdf(error)
    assert log_marginal_likelihood(covariance.copy(), error) == pytest.approx(density + 2.5 * np.log(2 * np.pi))

    drawn = found.draw(np.random.default_rng(0), np.ones(20_000))
    assert np.allclose(drawn.mean(axis=0), expected, atol=0.02)
    spreads = members.toarray() * deviation
    assert np.allclose(np.cov(drawn.T), spreads @ (np.eye(4) - gain @ linear) @ spreads.T, atol=0.02)
    assert np.allclose(found.draw(np.random.default_rng(0), np.zeros(3)), expected)


def test_steps_lead_to_the_mode_and_doubt_raises_what_is_expected() -> None:
    """One effect, seen once: the mode of a log-normal prior times a Gaussian likelihood, by a fine grid."""
    prior = Prior(np.array([-1.0, 0.0]), csr_array(np.eye(2)), np.array([0.8, 0.8]), 0.1)
    seen = Observations(np.array([[0]]), csr_array([[1.0, 0.0]]), np.array([1.5]), np.ones(1))
    point = prior.mean
    for _ in range(30):
        posterior = Posterior(prior, seen, point)
        point = posterior.step()
    grid = np.linspace(-2, 2, 40_001)
    best = grid[np.argmin(0.5 * ((grid + 1) / 0.8) ** 2 + 0.5 * ((np.exp(grid) - 1.5) / 0.1) ** 2)]
    assert point[0] == pytest.approx(best, abs=0.01) and point[1] == pytest.approx(0.0)
    both = csr_array(np.eye(2))
    (seen_mean, unseen_mean), (narrow, wide) = posterior.predict(np.array([[0], [1]]), both)
    assert seen_mean == pytest.approx(np.exp(point[0]), rel=0.02) and narrow < 0.15
    assert unseen_mean == pytest.approx(np.exp(0.32)) and wide == pytest.approx(unseen_mean * np.sqrt(np.expm1(0.64)))


@pytest.mark.parametrize("seen", [2, 3, 20])
def test_what_is_expected_of_running_schemes_keeps_their_means_and_narrows_the_spread(seen: int) -> None:
    """Believed at their medians, schemes in doubt and all near them would look better for running."""
    problem = make_problem(10)
    schemes, losses = schemes_of(problem, 20)[:seen], np.random.default_rng(5).random(20)[:seen] / 10
    fresh = np.random.default_rng(8).integers(0, len(FORMATS), (30, problem.groups))
    mean, deviation = AccuracyModel(problem, schemes, losses).predict(fresh)
    expected, narrowed = AccuracyModel(problem, schemes, losses, running=fresh[:3]).predict(fresh)
    assert np.allclose(expected[:3], mean[:3], rtol=0.05)
    assert (narrowed <= deviation * 1.01).all() and (narrowed[:3] < 0.95 * deviation[:3]).all()


def test_the_solver_finds_the_optimum_of_a_small_graph() -> None:
    draw = np.random.default_rng(2)
    problem = make_problem(7, blocked=frozenset({("g3", "int8")}))
    costs, reformats = draw.normal(size=(40, 7, 3)), draw.uniform(0, 0.6, (40, len(problem.edges)))
    breaks = draw.uniform(0, 0.3, reformats.shape)
    found = solve(problem, costs, reformats, breaks)

    def on_edges(schemes: np.ndarray, row: int) -> np.ndarray:
        return problem.mismatches(schemes) @ reformats[row] + problem.breaks(schemes) @ breaks[row]

    every = np.array([s for s in product(range(3), repeat=7) if s[3] != 1])
    gaps = []
    for row in range(40):
        total = costs[row][np.arange(7), every].sum(axis=1) + on_edges(every, row)
        mine = costs[row][np.arange(7), found[row]].sum() + on_edges(found[row : row + 1], row)[0]
        gaps.append(mine - total.min())
    assert (found[:, 3] != 1).all()
    assert min(gaps) >= -1e-9 and np.mean(np.array(gaps) < 1e-9) >= 0.9 and max(gaps) < 0.3


@pytest.mark.parametrize("objectives", [2, 3])
def test_improvement_is_the_difference_of_two_hypervolumes(objectives: int) -> None:
    from optuna._hypervolume import compute_hypervolume

    front, points = DRAW.random((12, objectives)), DRAW.random((20, objectives))
    worst = np.full(objectives, 0.8)
    inside = front[(front < worst).all(axis=1)]
    before = compute_hypervolume(inside, worst)
    for point, found in zip(points, improvement(points, front, worst), strict=True):
        both = np.concatenate([inside, point[None]]) if (point < worst).all() else inside
        assert found == pytest.approx(compute_hypervolume(both, worst) - before, abs=1e-9)


def test_a_sample_beyond_a_bound_gains_nothing() -> None:
    samples = np.array([[[0.1, 0.1, 0.4]], [[0.1, 0.1, 0.6]]])
    worst, bounds = np.ones(3), np.array([np.inf, np.inf, 0.5])
    optimised = np.array([True, True, False])
    found = expected_improvement(samples, np.zeros((0, 3)), worst, bounds, optimised)
    assert found == pytest.approx([0.81, 0.0])
    assert nondominated(np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])).tolist() == [0, 1]


def test_the_accuracy_model_learns_effects_and_doubts_a_poor_prior() -> None:
    problem = make_problem(prior_noise=0.2)
    truth = true_effects(problem.groups)
    schemes = schemes_of(problem, 80)
    noise = np.random.default_rng(3).normal(0, 0.004, 80)
    losses = truth[np.arange(problem.groups), schemes].sum(axis=1) + noise
    good = AccuracyModel(problem, schemes, losses)
    misled = problem.harm.copy()
    misled[:, 1:] = np.random.default_rng(4).permutation(misled[:, 1:])
    poor = AccuracyModel(problem, schemes, losses, misled)
    assert good.hyperparameters["shrink"] < poor.hyperparameters["shrink"]
    assert good.log_likelihood > poor.log_likelihood
    for model in (good, poor):
        fresh = np.random.default_rng(8).integers(0, 3, (60, problem.groups))
        mean, deviation = model.predict(fresh)
        error = mean - truth[np.arange(problem.groups), fresh].sum(axis=1)
        assert np.sqrt((error**2).mean()) < 0.35 * losses.std()
        assert 0.3 < np.sqrt((error**2 / deviation**2).mean()) < 2.0


def test_the_cost_model_finds_the_price_of_a_reformat() -> None:
    problem = make_problem()
    latency = problem.objectives[1]
    schemes = schemes_of(problem, 60)
    shares = 0.2 + latency.prior[np.arange(problem.groups), schemes].sum(axis=1)
    shares = shares + 0.02 * problem.mismatches(schemes).sum(axis=1)
    model = CostModel(problem, latency, schemes, shares)
    assert np.median(model.reformat_cost) == pytest.approx(0.02, rel=0.15)
    fresh = np.random.default_rng(9).integers(0, 3, (40, problem.groups))
    truth = (
        0.2 + latency.prior[np.arange(problem.groups), fresh].sum(axis=1) + 0.02 * problem.mismatches(fresh).sum(axis=1)
    )
    assert np.abs(model.predict(fresh)[0] - truth).max() < 0.01


def test_the_cost_model_finds_broken_fusions_inside_one_domain() -> None:
    problem = make_problem()
    latency = problem.objectives[1]
    schemes = schemes_of(problem, 120)
    shares = 0.2 + latency.prior[np.arange(problem.groups), schemes].sum(axis=1)
    free = shares + 0.02 * problem.mismatches(schemes).sum(axis=1)
    found = [
        np.median(
            CostModel(problem, latency, schemes, free + cost * problem.breaks(schemes).sum(axis=1)).broken_fusion_cost
        )
        for cost in (0.0, 0.01)
    ]
    assert found[0] < 0.002 and found[1] == pytest.approx(0.01, rel=0.2), found


def test_what_is_known_exactly_needs_no_trial_to_learn_it() -> None:
    problem = make_problem()
    costs = problem.objectives[1].prior
    assert costs is not None
    size = Target("weight_mib", 1.0, 1.1, costs, 0.2, exact=True)
    schemes = schemes_of(problem, 40)
    shares = 0.2 + costs[np.arange(problem.groups), schemes].sum(axis=1)
    mean, deviation = CostModel(problem, size, schemes[:2], shares[:2]).predict(schemes[2:])
    assert np.allclose(mean, shares[2:], atol=1e-4) and (deviation < 1e-3).all()


def test_agreement_replaces_a_poor_prior() -> None:
    problem = make_problem(prior_noise=2.5)
    truth = true_effects(problem.groups)
    schemes = schemes_of(problem, 60)
    losses = truth[np.arange(problem.groups), schemes].sum(axis=1)
    noisy = 0.5 * np.exp(-losses) + np.random.default_rng(1).normal(0, 0.01, 60)
    values = np.stack([noisy, np.full(60, 20.0)], axis=1)
    none = np.zeros((0, problem.groups), dtype=np.int64)
    found = []
    for agreement in (np.full(60, np.nan), np.exp(-0.4 * losses)):
        history = History(schemes, values, agreement, none, frozenset())
        effects = JointPosterior(problem, history).accuracy.effects[:, 2]
        found.append(spearmanr(effects, truth[:, 2])[0])
    assert found[1] > 0.8 and found[1] > found[0] + 0.1, found


def test_knapsack_points_pay_for_reformats() -> None:
    problem = make_problem()
    schemes, total = frontier(problem, (1.0,))
    latency = problem.objectives[1].prior
    assert latency is not None and (np.diff(total) >= 0).all()
    harm = problem.harm[np.arange(problem.groups), schemes].sum(axis=1)

    def cost_of(schemes: np.ndarray) -> np.ndarray:
        edges = edge_costs(problem, problem.objectives[1])
        on_edges = problem.mismatches(schemes) @ edges.reformats + problem.breaks(schemes) @ edges.breaks
        return summed(latency, schemes) + on_edges

    cost = cost_of(schemes)
    assert np.allclose(cost, total)
    fresh = schemes_of(problem, 500)
    other_harm = problem.harm[np.arange(problem.groups), fresh].sum(axis=1)
    other = cost_of(fresh)
    assert not any(((other < c) & (other_harm < h)).any() for c, h in zip(cost, harm, strict=True))
    points = knapsack_points(problem, 13)
    assert 10 <= len(points) <= 13 and len({p.tobytes() for p in points}) == len(points)


def test_knapsack_points_keep_a_bound_where_any_does() -> None:
    free = make_problem()
    latency = free.objectives[1].prior
    assert latency is not None

    def costs(points: list[np.ndarray]) -> np.ndarray:
        schemes, edges = np.array(points), edge_costs(free, free.objectives[1])
        on_edges = free.mismatches(schemes) @ edges.reformats + free.breaks(schemes) @ edges.breaks
        return 0.2 + summed(latency, schemes) + on_edges

    every = costs(knapsack_points(free, 13))
    for bound, kept in ((float(np.median(every)), 1.0), (float(every.min()) / 2, None)):
        bounded = replace(free.objectives[1], bound=20.0 * bound)
        points = knapsack_points(replace(free, objectives=(free.objectives[0], bounded)), 13)
        if kept:
            assert len(points) >= 5 and (costs(points) <= bound).all() and costs(points).max() > 0.9 * bound
        else:  # nothing keeps it: all that there are
            assert np.allclose(np.sort(costs(points)), np.sort(every))


def test_the_model_sampler_beats_random_and_needs_no_prior() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    problem = make_problem(16)
    truth, latency = true_effects(16), problem.objectives[1].prior
    assert latency is not None
    blank = replace(problem, harm=np.where(problem.harm > 0, 1.0, 0.0))

    def outcome(scheme: np.ndarray) -> list[float]:
        cost = 0.2 + latency[np.arange(16), scheme].sum() + 0.01 * problem.mismatches(scheme[None]).sum()
        return [0.5 * float(np.exp(-truth[np.arange(16), scheme].sum())), 20 * float(cost)]

    volumes = {}
    for name, known in (("model", blank), ("random", blank)):
        study = optuna.create_study(directions=["maximize", "minimize"], sampler=make_sampler(name, known, 0))
        for _ in range(25):
            trial = study.ask()
            assert trial.relative_params is not None
            choices = {group: trial.suggest_categorical(group, names) for group, names in known.parameters.items()}
            study.tell(trial, outcome(known.encode(choices)))
        points = np.array([[-t.values[0], t.values[1]] for t in study.trials])
        volumes[name] = sum_volume(points)
    assert volumes["model"] > volumes["random"]


def sum_volume(points: np.ndarray) -> float:
    from optuna._hypervolume import compute_hypervolume

    worst = np.array([-0.25, 22.0])
    return float(compute_hypervolume(points[(points < worst).all(axis=1)], worst))


def test_a_bound_draws_candidates_that_keep_it_without_making_those_near_it_worthless() -> None:
    free = make_problem()
    schemes = schemes_of(free, 12)
    latency = free.objectives[1].prior
    assert latency is not None
    least = float(latency.min(axis=1).sum()) + 0.2
    bound = 20.0 * (least + 0.03)
    bounded = replace(free, objectives=(free.objectives[0], replace(free.objectives[1], bound=bound)))
    shares = latency[np.arange(free.groups), schemes].sum(axis=1) + 0.2
    values = np.stack([0.5 - 0.1 * DRAW.random(12), 20.0 * shares], axis=1)
    none = np.zeros((0, free.groups), dtype=np.int64)
    kept, worth = [], []
    for problem in (free, bounded):
        posterior = JointPosterior(problem, History(schemes, values, np.full(12, np.nan), none, frozenset()))
        found = drawn(posterior, np.random.default_rng(0))
        kept.append((posterior.mean(found)[:, 1] <= bound / 20.0).mean())
        worth.append(posterior.worst)
    assert kept[1] > kept[0] + 0.05 and kept[1] > 0.7, kept
    assert np.array_equal(*worth)
