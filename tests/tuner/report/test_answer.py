"""The report's first screen, on made-up scores."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from coco_figures import coco_accuracy

from objectives.scores import Accuracy, Latency, Scores, Size
from search_spaces.allocation import Allocation
from tuner.report.answer import choices, headline, reasons, scheme_markdown, worth
from tuner.report.html import page as write_page
from tuner.report.pareto import pareto_figure
from tuner.report.tables import front_html, front_markdown
from tuner.report.view import Run
from tuner.search.front import front_of
from tuner.search.records import Baseline, BaselineOutcome, Rescore, RunSummary, TrialRecord

TIMED = ("map_50_95", "latency_ms")
LAYERS = ["/model.0/conv", "/model.1/conv", "/model.2/conv"]
SHARED = np.random.default_rng(0).normal(0, 0.002, 1000)
Scheme = tuple[str, str, float, float]  # origin, format of the last layer, points lost, milliseconds


def scores(value: float, ms: float, size: float, timed: bool) -> Scores:
    latency = Latency(ms, ms, ms, ms, 0.01, 20, ms / 100, 100.0, ratio_low=ms / 100 - 0.01, ratio_high=ms / 100 + 0.01)
    return Scores(
        accuracy=Accuracy(metrics={**coco_accuracy(value).metrics, "map_50_95_mask": value}, images=128),
        latency=latency if timed else None,
        size=Size(int(size * 2**20), 8.0, 2**20),
        latency_ms=ms if timed else 0.0,
        agreement=value,
        artifact="",
    )


def rescore(lost: float, ms: float, noise: float = 0.001) -> Rescore:
    own = np.random.default_rng(int(100 * ms)).normal(0, noise, 1000)
    differences = SHARED + own - lost / 100
    low, high = np.quantile(differences, [0.025, 0.975])
    return Rescore(
        coco_accuracy(0.5 - lost / 100, images=200),
        None,
        -lost / 100,
        (float(low), float(high)),
        ratios=(ms / 100,) * 3,
        ratio_intervals=((ms / 100 - 0.005, ms / 100 + 0.005),) * 3,
        resampled=tuple(differences),
    )


def made(
    *schemes: Scheme,
    scored: bool = True,
    objectives: tuple[str, ...] = TIMED,
    baselines: list[BaselineOutcome] | None = None,
    state: str = "",
) -> Run:
    """A run of the unquantized model, trial 0, and schemes from trial 1 on."""
    timed = "latency_ms" in objectives
    reference = scores(0.5, 100.0, 4.0, timed)
    summary = RunSummary("made", "m.onnx", {"machine": "two cores"}, objectives, reference=reference, state=state)
    records = [TrialRecord(0, "COMPLETE", "reference", Allocation.uniform(LAYERS, "fp16"), reference)]
    rescores: dict[str, Rescore] = {}
    for number, (origin, fmt, lost, ms) in enumerate(schemes, 1):
        choice = Allocation.of({**dict.fromkeys(LAYERS, "int8"), LAYERS[-1]: fmt, f"l{number}": "int8"})
        records.append(TrialRecord(number, "COMPLETE", origin, choice, scores(0.5 - lost / 100, ms, ms / 30, timed)))
        if scored:
            rescores[choice.digest] = rescore(lost, ms)
    members = front_of(records, summary.objective_set, reference, rescores=rescores)
    return Run.of(summary, records, members, baselines or [], rescores)


def page(run: Run, folder: Path) -> str:
    """What the page says, scripts and figures aside."""
    html = write_page(
        summary=run.summary,
        records=run.records,
        front=run.members,
        baselines=run.baselines,
        layers=[],
        table=None,
        previews=[],
        folder=folder,
        rescores=run.rescores,
    )
    text = re.sub(r"<(script|style).*?</\1>", "", html, flags=re.S)
    return re.sub(r"<[^>]+>", " ", text)


UNIFORM: Scheme = ("uniform:int8", "int8", 0.4, 40.0)


def test_the_headline_names_scheme_speed_change_and_size() -> None:
    run = made(UNIFORM, ("sampler", "w8a16", 0.2, 35.0))
    assert headline(run) == (
        "Ship trial 2: 2.86x as fast as unquantized, −0.2 mAP points, 1.17 MiB of weights (29 % of fp32)"
    )
    assert "surely within 1.0 mAP points" in reasons(run)[0] and "int8 x 3; w8a16 x 1: /model.2/conv" in reasons(run)[1]


def test_the_table_tells_what_else_there_is() -> None:
    rivals: list[BaselineOutcome] = [
        Baseline("slow", 0.499, 70.0),
        Baseline("fast", 0.497, 45.0, 2**20),
        Baseline("bad", 0.4, 20.0),
    ]
    run = made(UNIFORM, ("sampler", "w8a16", 0.2, 35.0), baselines=rivals)
    rows = {row.name: row for row in choices(run)}
    assert list(rows) == ["trial 2, recommended", "all int8 (trial 1)", "fast", "unquantized"]
    assert rows["fast"].change == "−0.3" and rows["fast"].speedup == "2.22x" and rows["fast"].size == "1.00"
    assert rows["all int8 (trial 1)"].latency == "40.0 (39.5 to 40.5)"
    assert rows["unquantized"].speedup == "1.00x" and rows["unquantized"].latency == "100.0"


@pytest.mark.parametrize(
    ("schemes", "said"),
    [
        ([UNIFORM, ("sampler", "w8a16", 0.1, 35.0)], "Yes: surely better than all int8 (trial 1) in mAP and latency"),
        ([UNIFORM], "Not for this budget: nothing is better than all int8 (trial 1)"),
        ([UNIFORM, ("sampler", "w8a16", 0.39, 39.9)], "Not that noise could tell"),
        (
            [("uniform:int8", "int8", 2.0, 40.0), ("sampler", "w8a16", 0.1, 60.0)],
            "Yes: no uniform scheme is surely within",
        ),
        ([UNIFORM, ("sampler", "w8a16", -0.6, 39.0), ("sampler", "fp16", 2.5, 10.0)], "Yes: surely better"),
        ([("uniform:int8", "int8", 1.2, 40.0), ("sampler", "w8a16", 0.9, 52.0)], "A trade: surely better"),
        ([("sampler", "w8a16", 0.1, 60.0)], "No uniform scheme is measured"),
    ],
)
def test_whether_the_search_was_worth_it(schemes: list[Scheme], said: str) -> None:
    assert said in worth(made(*schemes))


def test_the_difference_to_the_best_uniform_scheme_has_its_paired_interval() -> None:
    text = worth(made(UNIFORM, ("sampler", "w8a16", 0.1, 35.0)))
    found = re.search(
        r"\+0\.3 mAP points, 95 % interval [+±](\d\.\d) to \+(\d\.\d); 1\.14x as fast, 1\.11x to 1\.17x", text
    )
    assert found and float(found[1]) >= 0.0 and float(found[2]) <= 0.6, "each alone is known to 0.4 points only"


def test_what_is_folded_under_a_refined_scheme_names_it(tmp_path: Path) -> None:
    run = made(("sampler", "int8", 0.4, 50.0))
    note = scheme_markdown(run, replace(run.members[0], folded_under=~1), tmp_path)
    assert "better than trial 1-refined in anything" in note.replace("\\", "") or run.members[0].recommended, note


def test_none_within_the_budget_is_said_and_names_the_nearest(tmp_path: Path) -> None:
    run = made(("uniform:int8", "int8", 0.9, 40.0), ("sampler", "w8a16", 3.0, 20.0))
    assert headline(run).startswith("No scheme is surely within 1.0 mAP points. Nearest: trial 1, 2.50x as fast")
    assert "The nearest is trial 1" in reasons(run)[0] and "crosses the budget of −1.0" in reasons(run)[0]
    assert choices(run)[0].name == "trial 1, nearest"
    text = page(run, tmp_path)
    assert "1 ☆" in " ".join(text.split()) and "★" in text
    labels = [note.text for note in pareto_figure(run).layout.annotations]
    assert "trial 1, nearest" in labels and "budget −1.0" in labels


def test_before_the_front_is_scored_again_nothing_is_called_sure(tmp_path: Path) -> None:
    state = "2 of 60 trials are done. Only seeds ran so far: the sampler has not begun."
    run = made(UNIFORM, scored=False, state=state)
    assert headline(run).startswith("So far: trial 1: 2.50x")
    text = page(run, tmp_path)
    assert state in text and "not scored on all images" in text and "surely within" not in text


def test_folded_members_are_kept_under_the_one_shown() -> None:
    run = made(
        UNIFORM, ("sampler", "w8a16", 0.4, 60.0), ("sampler", "w4a16", 0.41, 70.0), ("sampler", "fp16", 0.3, 65.0)
    )
    assert [each.record.number for each in run.shown] == [1]
    text = front_html(run)
    assert "2 more, no better than trial 1 beyond noise" in text
    assert text.index("<details>") < text.index("<b>4</b>")
    assert "as good within noise: " in front_markdown(run, None)
    numbers = [note.text for note in pareto_figure(run).layout.annotations]
    assert not {"2", "3", "4"} & set(numbers)


def test_the_figure_shows_the_latest_figures_with_error_bars() -> None:
    run = made(UNIFORM, ("sampler", "w8a16", 0.2, 30.0))
    again = replace(run.members[0].rescore, difference=-0.003, ratios=(0.32,) * 3, ratio_intervals=((0.31, 0.33),) * 3)
    run = replace(run, members=(replace(run.members[0], rescore=again), *run.members[1:]))
    (star,) = [trace for trace in pareto_figure(run).data if trace.name == "recommended"]
    assert list(star.x) == pytest.approx([32.0]) and list(star.y) == pytest.approx([-0.3])
    assert list(star.error_x.array) == pytest.approx([1.0]) and list(star.error_x.arrayminus) == pytest.approx([1.0])
    low, high = again.interval
    assert list(star.error_y.array) == pytest.approx([100 * high + 0.3])
    assert list(star.error_y.arrayminus) == pytest.approx([-0.3 - 100 * low])


@pytest.mark.parametrize(
    "objectives",
    [
        ("map_50_95", "weight_mib"),
        ("agreement", "weight_mib"),
        (*TIMED, "weight_mib"),
        ("agreement", "latency_ms"),
        ("map_50_95_mask", "latency_ms"),
    ],
)
@pytest.mark.parametrize("schemes", [(), (UNIFORM,), (UNIFORM, ("sampler", "w8a16", 0.2, 35.0))])
def test_every_kind_of_study_reads_right(
    objectives: tuple[str, ...], schemes: tuple[Scheme, ...], tmp_path: Path
) -> None:
    run = made(*schemes, objectives=objectives)
    text = page(run, tmp_path)
    timed = "latency_ms" in objectives
    assert "0.0 ms" not in text and " nan" not in text and "None" not in headline(run)
    assert ("speed-up" in text) is timed and ("as fast as unquantized" in text) is (timed and bool(schemes))
    assert ("noise cannot tell apart in" in text) is ("surely within" in text and timed)
    assert "timed again" not in text or timed
    assert ("Latency was not measured" in text) == (not timed and bool(schemes))
    if not schemes:
        assert headline(run) == "No quantized scheme to ship" and "ship the unquantized model" in text
    brief = {"agreement": "agreement", "map_50_95": "mAP", "map_50_95_mask": "mask mAP"}[objectives[0]]
    assert f"{brief} change, points" in text


def test_each_quantity_has_one_unit(tmp_path: Path) -> None:
    """No accuracy as a share, no latency ratio, no bytes: points, ms, x and MiB alone."""
    text = page(made(UNIFORM, ("sampler", "w8a16", 0.2, 35.0)), tmp_path)
    assert not re.search(r"\b0\.\d{3,}\b", text), "an accuracy or a ratio as a share"
    assert set(re.findall(r"\d ?(kB|KiB|MB|GB|GiB|bytes)\b", text)) == set()
    assert not re.search(r"\d(?<!\dx) (times|fps|us|µs)\b", text)


def test_a_front_without_any_scheme(tmp_path: Path) -> None:
    run = Run.of(RunSummary("none", "m.onnx"), [], [], [])
    assert headline(run) == "No scheme is measured yet" and worth(run) == "" and choices(run) == []
    assert "The front is empty" in page(run, tmp_path)
