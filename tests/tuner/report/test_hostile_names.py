"""Names that somebody chose to harm: in the page and in the dashboard's note they are text, and nothing else."""

from __future__ import annotations

import html.parser
from dataclasses import replace
from pathlib import Path

import pytest
from coco_figures import coco_accuracy
from markdown_it import MarkdownIt

from objectives.runtimes.engine_report import EngineLayer, EngineReport
from objectives.scores import Failure, Latency, Scores, Size
from search_spaces.allocation import Allocation
from search_spaces.comparison import MeasuredDrop, Ranking, compare
from search_spaces.layers import Layer
from search_spaces.sensitivity import SensitivityEntry, SensitivityTable
from tuner.report.dashboard import _note
from tuner.report.html import page
from tuner.report.tables import export_command
from tuner.report.view import Run
from tuner.search.records import Baseline, FailedBaseline, FrontMember, Preview, RunSummary, TrialRecord

#: Whatever of it would take effect is seen: a tag, the end of an attribute or of a script, a link, a picture, a table.
EVIL = "a</script><evil-tag x='1'>\"><evil-tag>\n# b\n![p](http://evil.example/p)[l](javascript:x)|`c`<!--"
SCORES = Scores(
    accuracy=coco_accuracy(0.4, 0.6, 0.5, 0.2, 0.4, 0.6, images=8),
    latency=Latency(9.0, 9.0, 9.0, 9.0, 0.01, 30, 0.5, 18.0),
    size=Size(2**20, 8.0, 2**20),
    latency_ms=9.0,
    agreement=0.9,
    artifact="ab" * 32,
)
LAYERS = [f"{EVIL}{number}" for number in range(3)]


def record(number: int, fmt: str, **changes: object) -> TrialRecord:
    found = TrialRecord(number, "COMPLETE", EVIL, Allocation.uniform(LAYERS, fmt), SCORES)
    return replace(found, **changes)  # type: ignore[arg-type]


RECORDS = [
    record(0, "fp16", origin="reference"),
    record(1, "int8"),
    record(2, "w8a16", scores=None, state="FAIL", failure=Failure("build", EVIL, EVIL)),
    record(3, "w4a16", scores=replace(SCORES, broken=True)),
]
SUMMARY = RunSummary(EVIL, EVIL, {EVIL: EVIL})
FRONT = [FrontMember(RECORDS[1], None, True)]
BASELINES = [Baseline(EVIL, 0.3, 9.5), FailedBaseline(EVIL, Failure("error", EVIL))]


class Tags(html.parser.HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def assert_harmless(text: str) -> list[tuple[str, dict[str, str | None]]]:
    tags = Tags(text).found
    assert "evil-tag" not in {tag for tag, _ in tags}
    for _, attributes in tags:
        assert not any(name.startswith("on") for name in attributes)
        assert not any(str(attributes.get(name)).startswith(("http", "javascript")) for name in ("href", "src"))
    return tags


def test_the_page_holds_names_as_text() -> None:
    entries = tuple(SensitivityEntry(name, fmt, 0.1 + i, 0.1) for i, name in enumerate(LAYERS) for fmt in ("int8",))
    table = SensitivityTable("onnx", EVIL, "cd" * 32, 8, entries, {EVIL: EVIL})
    rankings = [Ranking(EVIL, "int8", dict(zip(LAYERS, (1.0, 2.0, 3.0), strict=True)), 1.0)]
    drops = [MeasuredDrop(name, "int8", 0.01 * i, 0.02 * i, 1.0) for i, name in enumerate(LAYERS)]
    parts = tuple(EngineLayer(EVIL, EVIL, name, "int8", 0.1) for name in LAYERS)
    engine = EngineReport(parts, ((EVIL, EVIL, EVIL),), 1 << 20, 4.0, EVIL, (EVIL,), EVIL)
    text = page(
        summary=SUMMARY,
        records=RECORDS,
        front=FRONT,
        baselines=BASELINES,
        layers=[
            Layer(name, "Conv", EVIL, "w", (8, 8, 3, 3), 1, 0, "a", "b", (1, 8, 9, 9), (1, 8, 9, 9), 576, 46656)
            for name in LAYERS
        ],
        engines={record.allocation.digest: engine for record in RECORDS},
        table=table,
        previews=[Preview(EVIL, b"left", b"right")],
        folder=Path(f"runs/{EVIL}"),
        comparison=compare("cd" * 32, 8, "int8", [rankings, rankings], drops),
    )
    tags = assert_harmless(text)
    assert [tag for tag, _ in tags].count("h1") == 1


def test_the_note_of_the_dashboard_holds_names_as_text() -> None:
    note = _note(Run.of(SUMMARY, RECORDS, FRONT, BASELINES), Path(f"runs/{EVIL}"))
    tags = assert_harmless(MarkdownIt("commonmark", {"html": True}).enable("table").render(note))
    names = [tag for tag, _ in tags]
    assert not {"img", "a", "script", "h1"} & set(names) and names.count("table") == 2


@pytest.mark.parametrize("name", ["a\nb", "a\udcffb", "a\x1b[31mb"])
def test_the_command_of_an_export_is_one_line(name: str) -> None:
    command = export_command(Path("runs") / name, 3)
    assert command.isprintable() and command.encode().startswith(b"tuner export ")
