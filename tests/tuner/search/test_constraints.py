"""A constrained study from its file to front, report and dashboard; pins of layers."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tuner.launch import launch
from tuner.report.dashboard import DashboardServer
from tuner.report.pareto import pareto_figure
from tuner.report.view import Run
from tuner.results.loaded import LoadedRun, load_run
from tuner.results.reporting import run_summary
from tuner.search.front import drop, hypervolume
from tuner.search.records import FrontMember
from tuner.study.study_file import read_study

MIN_MAP, MAX_MIB = 0.43, 0.0024


@pytest.fixture
def loaded(study_file: Callable[..., Path], tmp_path: Path) -> LoadedRun:
    path = study_file(
        search={"trials": 40, "sampler": "model"},
        constraints={"min_map": MIN_MAP, "max_weight_mib": MAX_MIB},
    )
    return load_run(launch(read_study(path), tmp_path / "run").path)


def feasible(scores: object) -> bool:
    return scores.accuracy.map_50_95 >= MIN_MAP and scores.size.weight_bytes / 2**20 <= MAX_MIB


def test_only_feasible_schemes_stand_in_front_report_and_dashboard(loaded: LoadedRun) -> None:
    complete = [record for record in loaded.records if record.scores]
    good = {record.number for record in complete if feasible(record.scores)}
    bad = {record.number for record in complete} - good
    assert good and bad, "both kinds are needed to tell them apart"
    members = {member.record.number for member in loaded.front}
    assert members and members <= good
    front = json.loads((loaded.run.path / "front.json").read_text())["front"]
    assert {entry["trial"] for entry in front} == members
    assert {int(folder.name) for folder in loaded.run.schemes.iterdir()} == members
    assert "min_map 0.43, max_weight_mib 0.0024" in loaded.run.report.read_text()
    run = Run.of(run_summary(loaded), loaded.records, loaded.front, [])
    traces = {trace.name: trace for trace in pareto_figure(run).data if trace.name}
    assert all("infeasible: breaks" in text for text in traces["infeasible: breaks a constraint"].hovertext)
    for name in ("trials", "front", "recommended"):
        assert not any("infeasible" in text for text in (traces[name].hovertext if name in traces else ()))
    page = dashboard_study(loaded)
    assert {trial["number"] for trial in page["trials"] if feasible_in_page(trial)} == good
    (graph,) = page["plotly_graph_objects"]
    assert "infeasible: breaks" in graph["graph_object"]


def dashboard_study(loaded: LoadedRun) -> dict:
    """What optuna-dashboard's page is told of the study."""
    url = f"sqlite:///{loaded.run.database}"
    with DashboardServer(url, loaded.artifacts(), 0, writable=False) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/api/studies/1", timeout=20) as answer:
                return json.load(answer)
        finally:
            server.close()
            thread.join()


def feasible_in_page(trial: dict) -> bool:
    return trial["state"] == "Complete" and all(value <= 0 for value in trial["constraints"])


def test_the_sampler_adds_feasible_schemes_to_the_seeds(loaded: LoadedRun) -> None:
    objectives = loaded.config.objective_set
    whole = hypervolume(loaded.records, objectives, loaded.reference)
    seeds = [r for r in loaded.records if r.origin != "sampler"]
    assert whole > hypervolume(seeds, objectives, loaded.reference)


def test_a_rule_pins_layers_and_forbids_formats(study_file: Callable[..., Path], tmp_path: Path) -> None:
    path = study_file(search={"trials": 24, "sampler": "model"})
    names = list(load_run(launch(read_study(path), tmp_path / "free").path).space.layers)
    rules = [{"layers": names[0], "formats": ["fp16"]}, {"layers": names[3], "formats": ["int8"]}]
    rules.append({"layers": names[5], "formats": ["fp16", "int8"]})
    path = study_file(search={"trials": 24, "sampler": "model"}, space={"rules": rules})
    records = load_run(launch(read_study(path), tmp_path / "pinned").path).records
    assert len([record for record in records if record.scores]) == 24
    for record in records:
        assert record.allocation[names[0]] == "fp16" and record.allocation[names[3]] == "int8"
        assert record.allocation[names[5]] in ("fp16", "int8")
    assert {record.allocation[names[5]] for record in records} == {"fp16", "int8"}


@pytest.mark.parametrize("sampler", ["model"])
def test_a_greatest_loss_steers_the_search(study_file: Callable[..., Path], tmp_path: Path, sampler: str) -> None:
    """Relative to the reference, whose accuracy nobody knows before the run."""

    def searched(name: str, **constraints: float) -> LoadedRun:
        path = study_file(layers=24, search={"trials": 30, "sampler": sampler}, constraints=constraints)
        return load_run(launch(read_study(path), tmp_path / name).path)

    def losses(run: LoadedRun) -> list[float]:
        whole = run.reference.accuracy.map_50_95
        proposed = [r for r in run.records if r.scores and r.origin == "sampler"]
        return [100 * (whole - r.scores.accuracy.map_50_95) for r in proposed]

    free, bound = searched("free"), searched("bound", max_drop=0.5)
    kept = [sum(loss <= 0.5 for loss in losses(run)) / len(losses(run)) for run in (free, bound)]
    assert kept[1] > kept[0] + 0.2, kept
    assert any(100 * drop_of(run=free, member=m) > 0.5 for m in free.front)
    assert bound.front and all(100 * drop_of(run=bound, member=m) <= 0.5 + 1e-6 for m in bound.front)
    assert sum(member.recommended for member in bound.front) == 1 and bound.front[0].recommended
    far = next(r for r in bound.records if r.origin == "uniform:w4a16")
    assert bound.trials.study.trials[far.number].constraints["min_map"] > 0
    assert "max_drop 0.5" in bound.run.report.read_text()
    page = Run.of(run_summary(bound), bound.records, bound.front, [])
    assert page.broken_bounds(far) == ("min_map",)


def drop_of(run: LoadedRun, member: FrontMember) -> float:
    return drop(member, run.reference, run.config.objective_set.maximised)
