"""A refined trial stands beside the trials with figures of its own; one that gains nothing leaves the run as it was."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pytest
from tiny_detectors import write_calibration
from tiny_study import write_tiny_study

from objectives.quantization.refined import Refined
from objectives.runners.runner import RuntimeUnavailable
from search_spaces.errors import InputError
from tuner.compare.refining import refine_trial
from tuner.launch import launch, resume
from tuner.prepare.refinements import KeptRefinement, keep_refined, kept_refinements
from tuner.results.export import Exporter
from tuner.results.loaded import load_run
from tuner.results.ship import ship
from tuner.study.identity import read_run_study
from tuner.study.run_folder import RunFolder
from tuner.study.study_file import read_study

W4 = 1  # the uniform scheme of the only quantized format


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    objectives = ["map_50_95", "weight_mib"]
    study = write_tiny_study(
        folder,
        "tiny",
        formats=["fp16", "w4a16"],
        objectives=objectives,
        weights={"method": "rtn"},
        search={"trials": 3},
    )
    write_calibration(folder, 16)
    return launch(read_study(study), folder / "run").path


@pytest.fixture
def run(searched: Path, tmp_path: Path) -> Path:
    """A copy elsewhere, for a test to write into: its study file names its files by relative paths."""
    return Path(shutil.copytree(searched, tmp_path / "moved" / "run"))


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch", reason="the torch extra is not installed")
    from objectives.refinement import refine

    shorter = partial(refine.RefinementSettings, block_steps=20, steps=20, batch=4, block_batch=4)
    monkeypatch.setattr(refine, "RefinementSettings", shorter)
    torch.set_num_threads(1)


def _snapshot(folder: Path) -> dict[str, bytes]:
    names = ("front.*", "report.html", "schemes/**/*", "refined/**/*", "cache/evaluations/*", "cache/predictions/*")
    files = (path for name in names for path in folder.glob(name) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_what_gains_is_measured_and_stands_beside_the_trials(few_steps: None, run: Path, tmp_path: Path) -> None:
    before = _snapshot(run)
    trial = load_run(run).record(W4)
    found = refine_trial(run, W4, 5.0, device="cpu")
    assert found.kept is not None and found.best < found.divergence
    assert (found.kept.learnt_on, found.kept.judged_on) == (14, 2)
    loaded = load_run(run)
    refined = loaded.named(f"{W4}-refined")
    assert refined.scores is not None and trial.scores is not None
    assert refined.scores.size == trial.scores.size and refined.scores.artifact != trial.scores.artifact
    assert loaded.record(W4) == trial, "the trial itself stays"
    assert loaded.record(refined.number) == refined, "which Python exports it by"
    again = loaded.rescores[refined.allocation.digest]
    assert again.interval[0] <= again.difference <= again.interval[1]
    assert [row["refined"] for row in found.rows] == [False, True]

    dominated = any(
        other.scores.size.weight_bytes <= refined.scores.size.weight_bytes
        and other.scores.metrics["map_50_95"] > refined.scores.metrics["map_50_95"]
        for other in loaded.records
        if other.scores is not None
    )
    front = json.loads((run / "front.json").read_text())["front"]
    marked = [entry for entry in front if entry["refined"]]
    assert found.on_front == bool(marked) == (not dominated)
    assert found.on_front == (f"**refined from trial {W4}**" in (run / "front.md").read_text())
    assert found.on_front == (run / "schemes" / f"{W4}-refined" / "model.onnx").is_file()
    assert found.on_front == (f"<b>{W4}-refined</b>" in (run / "report.html").read_text())

    for record in (refined, loaded.record(W4)):
        out = tmp_path / record.name
        scheme = Exporter(loaded).export(record, out)
        assert hashlib.sha256((out / "model.onnx").read_bytes()).hexdigest() == record.scores.artifact
        assert scheme["trial"] == W4 and ("refined" in scheme) == record.refined
    ship(loaded, refined, tmp_path / "shipped")
    card = (tmp_path / "shipped" / "README.md").read_text()
    assert "# tiny, trial 1-refined" in card and "--trial 1-refined" in card and "Latency" not in card
    kept = {name: data for name, data in before.items() if name.startswith("cache/")}
    assert {name: _snapshot(run)[name] for name in kept} == kept, "nothing of the trials is written again"

    resume(run, trials=4)
    assert load_run(run).named(f"{W4}-refined") == refined
    repeated = refine_trial(run, W4, 5.0, device="cpu")
    assert repeated.kept is not None
    assert [kept.made for kept in kept_refinements(load_run(run).run)] == [repeated.kept.made], "in its place"


def test_what_gains_nothing_leaves_the_run_as_it_was(few_steps: None, run: Path) -> None:
    before = _snapshot(run)
    found = refine_trial(run, W4, 0.0, device="cpu")
    assert found.kept is None and found.best == found.divergence
    assert _snapshot(run) == before


def test_images_of_ones_own(few_steps: None, run: Path, tmp_path: Path) -> None:
    own = write_calibration(tmp_path, 9, seed=5)
    found = refine_trial(run, W4, 0.0, images=own, device="cpu")
    assert found.judged_on == 1
    with pytest.raises(InputError, match="also evaluated on"):
        refine_trial(run, W4, 0.0, images=_evaluated(run), device="cpu")
    (tmp_path / "few").mkdir()
    few = write_calibration(tmp_path / "few", 4, seed=6)
    with pytest.raises(InputError, match="4 images are too few"):
        refine_trial(run, W4, 0.0, images=few, device="cpu")


def _evaluated(run: Path) -> Path:
    images = read_run_study(RunFolder(run)).data.images
    assert images is not None
    return Path(images)


def test_refined_numbers_that_would_lie_outside_the_run_are_refused(searched: Path, tmp_path: Path) -> None:
    """Their folder is removed when the trial is refined again."""
    run = load_run(shutil.copytree(searched, tmp_path / "run")).run
    facts = KeptRefinement(1, "20261128T142007Z", "reconstruction", 0.2, 0.1, 14, 2, "", 1.0, "cpu")
    kept = keep_refined(run, Refined({}, {}, "onnxruntime"), facts)
    assert kept_refinements(run) == [kept]
    for told in ({"made": "x/../../../victim"}, {"trial": 2}, {"trial": -1}):
        (kept.folder(run) / "refinement.json").write_text(json.dumps({**asdict(kept), **told}))
        with pytest.raises(InputError, match="not of the folder that it lies in; restore or delete it"):
            kept_refinements(run)


def test_what_cannot_be_refined_is_refused_in_a_line(few_steps: None, run: Path) -> None:
    before = _snapshot(run)
    reference = next(record.number for record in load_run(run).records if record.allocation.unquantized)
    for asked, device, words in (
        (reference, "cpu", "quantizes no weight"),
        (99, "cpu", "holds trials 0 to"),
        (W4, "gpu", "is not one of cpu, cuda"),
    ):
        with pytest.raises(InputError, match=words):
            refine_trial(run, asked, 0.0, device=device)
    assert _snapshot(run) == before


def test_without_torch_it_is_said_in_a_line(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(RuntimeUnavailable, match=r"tuner refine: .*'torch' is missing; install"):
        refine_trial(run, W4, 1.0)


def test_a_name_that_is_no_trial_is_refused(searched: Path) -> None:
    with pytest.raises(InputError, match=r"--trial '7-refined'.*none was refined"):
        load_run(searched).named("7-refined")
