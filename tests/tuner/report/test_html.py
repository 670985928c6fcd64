"""report.html from a made-up but complete run."""

from __future__ import annotations

import html
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from coco_figures import coco_accuracy

from objectives.runtimes.engine_report import EngineLayer, EngineReport
from objectives.scores import Accuracy, Failure, Latency, Scores, Size
from search_spaces.allocation import Allocation
from search_spaces.layers import Layer
from search_spaces.sensitivity import SensitivityEntry, SensitivityTable
from tuner.report.answer import headline, reasons
from tuner.report.engine import by_layer
from tuner.report.figures import bit_width_map
from tuner.report.html import page as write_page
from tuner.report.labels import place
from tuner.report.pareto import hover, pareto_figure
from tuner.report.progress import correlate, prior_figure
from tuner.report.tables import front_html, front_markdown
from tuner.report.view import Run
from tuner.search.records import Baseline, FrontMember, Preview, Rescore, RunSummary, TrialRecord
from tuner.terminal import units

EVIL = "/model.0/<script>alert(1)</script>/Conv"
NAMES = [EVIL, *(f"/model.{i}/conv/Conv" for i in range(1, 90))]


def accuracy(value: float, images: int = 128) -> Accuracy:
    return coco_accuracy(value, 0.6, 0.5, 0.2, 0.4, 0.6, images=images)


def scores(value: float, ms: float, mib: float = 8.0, *, broken: bool = False) -> Scores:
    latency = Latency(ms, ms * 1.1, ms * 1.2, ms, 0.01, 30, ms / 100, 100.0)
    size = Size(int(mib * 2**20), 8.0, 7_000_000)
    return Scores(
        accuracy=accuracy(value),
        latency=latency,
        size=size,
        latency_ms=ms,
        agreement=0.9 + value / 10,
        artifact="ab" * 32,
        broken=broken,
        seconds={"evaluate": 9.0, "time": 3.0},
    )


def scheme(high: int, fmt: str = "int8") -> Allocation:
    return Allocation.of({name: "fp16" if i < high else fmt for i, name in enumerate(NAMES)})


LAYERS = [
    Layer(n, "Conv", f"model.{i}", "w", (8, 8, 3, 3), 1, 0, "a", "b", (1, 8, 9, 9), (1, 8, 9, 9), 576, 46656)
    for i, n in enumerate(NAMES)
]
TABLE = SensitivityTable(
    "onnx",
    "kl+iou",
    "cd" * 32,
    8,
    tuple(
        SensitivityEntry(name, fmt, factor / (1 + i), 0.1)
        for i, name in enumerate(NAMES)
        for fmt, factor in (("int8", 0.01), ("w4a16", 0.1))
    ),
)
RECORDS = [
    TrialRecord(0, "COMPLETE", "reference", scheme(90), scores(0.432, 100, 28)),
    TrialRecord(1, "COMPLETE", "uniform:int8", scheme(0), scores(0.41, 33, 7)),
    TrialRecord(2, "COMPLETE", "uniform:w4a16", scheme(0, "w4a16"), scores(0.02, 104, 4, broken=True)),
    TrialRecord(3, "COMPLETE", "sampler", scheme(5), scores(0.428, 34.5, 7.3)),
    TrialRecord(4, "COMPLETE", "sampler", scheme(20), scores(0.431, 48, 12)),
    TrialRecord(5, "FAIL", "sampler", scheme(7), None, Failure("build", "node <b>x</b> has no kernel", "log-5.txt")),
    TrialRecord(6, "RUNNING", "sampler", scheme(8)),
]
RESCORE = Rescore(accuracy(0.428, 157), accuracy(0.40, 29), -0.004, (-0.009, 0.004), -0.006, (-0.02, 0.01))
FRONT = [FrontMember(RECORDS[4]), FrontMember(RECORDS[3], RESCORE, True), FrontMember(RECORDS[1])]
BASELINES = [Baseline("ORT <static>, Conv only", 0.427, 46.5)]
SUMMARY = RunSummary("study <one>", "m.onnx", {"machine": "2 cores & more"}, hypervolume=(1.0, 2.0, 2.5, 2.5, 3.0))
RUN = Run.of(SUMMARY, RECORDS, FRONT, BASELINES)


def report(**changes: object) -> str:
    values: dict[str, object] = {
        "summary": SUMMARY,
        "records": RECORDS,
        "front": FRONT,
        "baselines": BASELINES,
        "layers": LAYERS,
        "table": TABLE,
        "previews": [Preview('a".jpg', b"\xff\xd8left", b"\xff\xd8right")],
        "folder": Path("runs/demo"),
    }
    return write_page(**{**values, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def text() -> str:
    return report()


def test_is_self_contained_with_one_copy_of_plotly(text: str) -> None:
    assert text.count("plotly.js v") == 1
    page = re.sub(r"<script>/\*\*.*?</script>", "", text, count=1, flags=re.S)  # plotly itself holds addresses
    assert len(page) < 1_000_000
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page)
    assert "<link" not in page
    assert "default-src 'none'" in page
    for name in ("pareto", "bits", "sensitivity", "prior", "hypervolume", "time"):
        assert page.count(f'<div id="plot-{name}"') == 1
    assert page.count("data:image/jpeg;base64,") == 2


def test_escapes_what_users_write(text: str) -> None:
    assert "<script>alert(1)" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "study &lt;one&gt;" in text and "study <one>" not in text
    assert "2 cores &amp; more" in text
    assert "node &lt;b&gt;x&lt;/b&gt; has no kernel" in text
    assert 'alt="a&quot;.jpg' in text
    assert "ORT <static>" not in text
    # Figures carry JSON; plotly reads a subset of HTML there, so names arrive escaped for it too.
    assert EVIL not in bit_width_map(RUN, LAYERS).to_json()
    assert EVIL not in prior_figure(RUN, TABLE).to_json()


def test_the_first_screen_is_the_answer_and_the_facts_come_last(text: str) -> None:
    headings = re.findall(r"<h2>(.*?)</h2>", text)
    assert headings[0] == headline(RUN) and headings[-1] == "This run"
    assert text.index(html.escape(reasons(RUN)[0])) < text.index('id="plot-pareto"') < text.index("2 cores &amp; more")
    assert "--trial 3 --out DIR" in text


def test_empty_run_gives_a_page() -> None:
    page = report(records=[], front=[], baselines=[], layers=[], table=None, previews=[])
    assert "No scheme is measured yet" in page and "The front is empty" in page and "plot-pareto" not in page


def test_noise_is_marked_in_table_and_hover() -> None:
    found = RECORDS[4].scores
    marked = replace(found, latency=replace(found.latency, noisy=True, ratio_low=0.44, ratio_high=0.53))
    records = [replace(record, scores=marked) if record.number == 4 else record for record in RECORDS]
    rescore = replace(RESCORE, ratios=(0.34, 0.35, 0.36), noisy_rounds=2)
    run = Run.of(SUMMARY, records, [FrontMember(records[4]), FrontMember(records[3], rescore)], BASELINES)
    assert hover(run, records[4]).count("noisy, 44.0 to 53.0 ms") == 1 and "in the search" not in hover(run, records[3])
    table = front_html(run)
    assert "48.0~" in table and "35.0~ (34.0 to 36.0)" in table and "34.5" not in table
    assert "~ timed on a noisy machine" in front_markdown(run, None) and "noisy" not in front_markdown(RUN, None)


def test_the_front_has_a_column_of_unseen_images_where_there_are_any() -> None:
    assert "on unseen images" in front_html(RUN) and "on unseen images" in front_markdown(RUN, None)
    rescore = replace(RESCORE, unseen_difference=None, unseen_interval=None)
    members = [replace(member, rescore=rescore) for member in RUN.members]
    without = Run.of(SUMMARY, RECORDS, members, BASELINES)
    tables = front_html(RUN), front_html(without)
    assert "on unseen images" not in tables[1] and "on unseen images" not in front_markdown(without, None)
    heads, rows = ([table.count(cell) for table in tables] for cell in ("<th>", "<td>"))
    assert heads[0] - 1 == heads[1] and rows[0] - rows[1] == tables[1].count("<tr") - 1


def test_pareto_figure_labels_the_comparisons() -> None:
    figure = pareto_figure(RUN)
    labels = [annotation.text for annotation in figure.layout.annotations]
    assert "unquantized" in labels and "trial 3, recommended" in labels and "all int8" in labels
    assert "ORT &lt;static&gt;, Conv only" in labels
    assert any(label.startswith("all w4a16 (−41.2, below the axis)") for label in labels)
    names = [trace.name for trace in figure.data]
    assert any(name and name.startswith("failed: 1") for name in names)
    assert figure.layout.yaxis.range[0] > -10  # the collapsed scheme does not flatten the rest
    assert '"bdata"' not in figure.to_json()


def test_three_objectives_are_coloured_by_size() -> None:
    summary = RunSummary("s", "m", objectives=("map_50_95", "latency_ms", "weight_mib"))
    figure = pareto_figure(Run.of(summary, RECORDS, FRONT, BASELINES))
    front = next(trace for trace in figure.data if trace.name == "front" and trace.hovertext)
    assert list(front.marker.color) == [7.0, 12.0]


def test_without_latency_the_size_is_the_cost() -> None:
    summary = RunSummary("s", "m", objectives=("map_50_95", "weight_mib"))
    run = Run.of(summary, RECORDS, FRONT, [])
    assert [member.record.number for member in run.members] == [1, 3, 4]
    assert "MiB" in pareto_figure(run).layout.xaxis.title.text
    assert "as fast" not in headline(run) and "7.30 MiB" in headline(run)
    page = report(summary=summary, baselines=[])
    shown = re.sub(r"<script.*?</script>", "", page, flags=re.S)
    assert " ms" not in shown and "0.0 ms" not in page and "speed-up" not in shown
    assert "Latency was not measured" in shown


def test_map_has_a_colour_per_format_and_a_row_per_layer() -> None:
    figure = bit_width_map(RUN, LAYERS)
    cells = figure.data[0].z
    assert len(cells) == len(NAMES) and len(cells[0]) == 3
    assert [trace.name for trace in figure.data[1:]] == ["fp16", "int8"]
    assert len(set(figure.layout.yaxis.ticktext)) == len(NAMES)


def test_prior_is_correlated_with_what_was_observed() -> None:
    assert str(correlate([1, 2, 3, 4], [1, 2, 4, 3])) == "Spearman 0.80, Kendall 0.67 (4 trials)"
    assert str(correlate([1, 1, 1], [1, 2, 3])) == "no rank correlation (3 trials)"
    titles = [annotation.text for annotation in prior_figure(RUN, TABLE).layout.annotations]
    assert len(titles) == 2 and all(title.startswith("Spearman") for title in titles)


def test_labels_do_not_overlap() -> None:
    anchors = [(300.0 + 9 * i, 200.0 + 4 * (i % 5)) for i in range(14)]
    texts = [f"label number {i}" for i in range(14)]
    offsets = place(anchors, texts, [], (1000, 500), character=6.4, line=15)
    boxes = []
    for (x, y), (dx, dy), text in zip(anchors, offsets, texts, strict=True):
        half = 6.4 * len(text) / 2
        boxes.append((x + dx - half, y + dy - 7.5, x + dx + half, y + dy + 7.5))
    for i, a in enumerate(boxes):
        assert a[0] >= 0 and a[1] >= 0 and a[2] <= 1000 and a[3] <= 500
        assert not any(a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3] for b in boxes[:i])


def test_markdown_front_and_numbers() -> None:
    note = front_markdown(RUN, Path("runs/one two"))
    assert "| **3** ★ |" in note
    assert "tuner export 'runs/one two' --trial <trial> --out DIR" in note
    assert (units.change(-0.0041), units.change(0.02), units.change(-0.0001)) == ("−0.4", "+2.0", "±0.0")


def test_figures_are_valid_json() -> None:
    assert json.loads(pareto_figure(RUN, width=590, compact=True).to_json())["data"]


def _engine(*precisions: str) -> EngineReport:
    layers = [
        EngineLayer(f"{name} + PWN", "Convolution", name, kind, 0.1)
        for name, kind in zip(NAMES, precisions, strict=False)
    ]
    copy = EngineLayer("copy", "Reformat", NAMES[0], "fp16", 0.05)
    return EngineReport((copy, *layers), ((EVIL, "int8", "fp32"),), 3 << 20, 41.0, "10.13", (NAMES[1],), "cuda graph")


def test_engines_are_told_of_beside_the_front() -> None:
    assert "What the engine did" not in report()
    engines = {RECORDS[3].allocation.digest: _engine("int8", "fp32", "int8")}
    engines[RECORDS[0].allocation.digest] = _engine("fp16", "fp16", "fp16")
    text = report(engines=engines)
    assert "Where the milliseconds go" in text and "What the engine did" in text
    assert "asked int8, ran fp32" in text and "cuda graph" in text and "0.050 (14 %)" in text
    assert EVIL not in text


def test_time_of_a_layer_by_what_it_ran_in() -> None:
    times = by_layer(_engine("int8", "fp32"))
    assert times[NAMES[0]] == pytest.approx({"reformat": 0.05, "int8": 0.1}) and times[NAMES[1]] == {"fp32": 0.1}


def test_the_twin_in_onnx_runtime_gets_a_column() -> None:
    twin = replace(RESCORE, onnxruntime=accuracy(0.430, 157))
    run = Run.of(SUMMARY, RECORDS, [FrontMember(RECORDS[3], twin, True), FrontMember(RECORDS[1])], BASELINES)
    text = front_markdown(run, None)
    assert "same file in ONNX Runtime" in text and "43.0 (engine −0.2)" in text
    assert "ONNX Runtime |" not in front_markdown(RUN, None)
    assert {line.count("|") for line in text.splitlines() if line.startswith("|")} == {text.splitlines()[0].count("|")}
