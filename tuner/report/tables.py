"""The front as a table, in HTML for the page and in Markdown for the dashboard's note."""

from __future__ import annotations

import html
import shlex
from collections.abc import Sequence
from pathlib import Path

from objectives.objective import MIB, milliseconds
from objectives.scores import Scores
from search_spaces import markdown
from search_spaces.allocation import Allocation
from search_spaces.sensitivity import SensitivityTable
from tuner.report.figures import sorted_layers
from tuner.report.theme import format_colour, format_order
from tuner.report.view import Run, interval_text, percent, points, scores_of
from tuner.search.records import NOISY_MARK, FrontMember, Rescore


def export_command(run_folder: Path | None, trial: int | str) -> str:
    """The command that exports a front member."""
    folder = "RUN"
    if run_folder is not None:
        here = Path.cwd()
        inside = run_folder.is_absolute() and run_folder.is_relative_to(here)
        folder = shlex.quote(str(run_folder.relative_to(here) if inside else run_folder))
        folder = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in folder)  # one line, of whole characters
    return f"tuner export {folder} --trial {trial} --out DIR"


def table_html(head: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]], css: str = "") -> str:
    """A table of cells that are HTML already.

    Args:
        head: Column titles.
        rows: ``(class of the row, cells)``.
        css: Class of the table.
    """
    lines = "".join(
        f'<tr class="{kind}">' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>\n" for kind, cells in rows
    )
    titles = "".join(f"<th>{title}</th>" for title in head)
    body = f"<thead><tr>{titles}</tr></thead><tbody>\n{lines}</tbody>"
    return f'<div class="wide"><table class="{css}">{body}</table></div>'


def front_head(run: Run) -> list[str]:
    """Column titles of the front table."""
    timed = ["ms", *(["ms, timed again"] if run.retimed else []), "speed-up", "p90 ms"] if run.timed else []
    twin = ["same file in ONNX Runtime"] if run.twinned else []
    return [
        "trial",
        f"{run.goal.brief} search",
        f"{run.goal.brief} all",
        "difference [95 %]",
        "on unseen images",
        *twin,
        *timed,
        "MiB",
        "bits",
        *(objective.title for objective in run.objectives.further),
        "formats by layer",
    ]


def front_cells(run: Run, scores: Scores, rescore: Rescore | None) -> list[str]:
    """Cells between the first and the last column, plain text."""
    difference = run.search_difference(scores)
    cells = [
        percent(run.goal.value(scores)),
        "–",
        points(difference) if difference is not None else "–",
        "–",
    ]
    figure = run.goal.name
    if rescore is not None:
        cells[1:3] = [percent(rescore.full.figure(figure)), _with_interval(rescore.difference, rescore.interval)]
        if rescore.unseen_difference is not None:
            cells[3] = _with_interval(rescore.unseen_difference, rescore.unseen_interval)
    if run.twinned:
        twin = rescore.onnxruntime if rescore is not None else None
        gap = f" (engine {points(rescore.full.figure(figure) - twin.figure(figure))})" if rescore and twin else ""
        cells.append(percent(twin.figure(figure)) + gap if twin else "–")
    if run.timed:
        speedup = run.speedup(scores)
        again = rescore.latency_ratio if rescore is not None else None
        if again is not None:
            speedup = 1 / again
        cells += [
            milliseconds(scores.latency_ms) + NOISY_MARK * (scores.latency is not None and scores.latency.noisy),
            *([_again(scores, rescore)] if run.retimed else []),
            f"{speedup:.2f}x" if speedup is not None else "–",
            milliseconds(scores.latency.p90_ms) if scores.latency else "–",
        ]
    further = [objective.text(objective.value(scores)) for objective in run.objectives.further]
    return [*cells, f"{scores.size.weight_bytes / MIB:.2f}", f"{scores.size.average_weight_bits:.1f}", *further]


def front_html(run: Run) -> str:
    """The front, from the cheapest member, then the points to compare with."""
    rows = [("best" if m.recommended else "", _member_cells(run, m)) for m in run.members]
    front = {member.record.number for member in run.members}
    for record in run.complete:
        named = record is run.reference or record.origin.startswith("uniform:")
        if named and record.number not in front:
            cells = front_cells(run, scores_of(record), None)
            name = "reference" if record is run.reference else f"all {record.origin.removeprefix('uniform:')}"
            rows.append(("other", [html.escape(name), *cells, _chips(record.allocation)]))
    blank = len(front_head(run)) - 2
    for baseline in run.baselines:
        cells = ["–"] * blank
        cells[0] = percent(baseline.accuracy)
        if run.reference is not None:
            cells[2] = points(baseline.accuracy - run.accuracy(run.reference))
        if run.timed:
            first = 4 + run.twinned
            cells[first] = milliseconds(baseline.latency_ms) + NOISY_MARK * baseline.noisy
            if run.reference is not None and baseline.latency_ms > 0:
                cells[first + 1 + run.retimed] = f"{scores_of(run.reference).latency_ms / baseline.latency_ms:.2f}x"
        if baseline.weight_bytes:
            cells[-2 - len(run.objectives.further)] = f"{baseline.weight_bytes / MIB:.2f}"
        rows.append(("other", [html.escape(baseline.name), *cells, '<span class="muted">baseline</span>']))
    for failed in run.failed_baselines:
        why = f'<span class="muted">failed: {html.escape(failed.failure.message)}</span>'
        rows.append(("other", [html.escape(failed.name), *["–"] * blank, why]))
    return table_html(front_head(run), rows, "front")


def _member_cells(run: Run, member: FrontMember) -> list[str]:
    scores = scores_of(member.record)
    name = f"<b>{member.record.number}</b>" + _marks(member)
    return [name, *front_cells(run, scores, member.rescore), _chips(member.record.allocation)]


def _marks(member: FrontMember) -> str:
    return (" ★" if member.recommended else "") + (" ◇" if member.knee else "")


def _again(scores: Scores, rescore: Rescore | None) -> str:
    """Latency of the repeated rounds, and their range."""
    if rescore is None or not rescore.ratios or scores.latency is None:
        return "–"
    unit = scores.latency_ms / scores.latency.ratio
    low, middle, high = (
        milliseconds(unit * ratio) for ratio in (min(rescore.ratios), rescore.latency_ratio or 0.0, max(rescore.ratios))
    )
    return f"{middle}{NOISY_MARK * (rescore.noisy_rounds > 0)} [{low} to {high}]"


def _chips(allocation: Allocation) -> str:
    """Format counts, each beside its colour."""
    values = list(allocation.formats.values())
    return " ".join(
        f'<span class="chip"><i style="background:{format_colour(name)}"></i>{html.escape(name)}'
        f" {values.count(name)}</span>"
        for name in format_order(values)
    )


def front_markdown(run: Run, run_folder: Path | None) -> str:
    """The front as a Markdown table with how to export a member."""
    rows = []
    for member in run.members:
        record = member.record
        cells = [*front_cells(run, scores_of(record), member.rescore), record.allocation.summary()]
        rows.append([f"**{record.number}**{_marks(member)}", *map(markdown.plain, cells)])
    text = markdown.table([markdown.plain(name) for name in front_head(run)], rows)
    noise = f" {NOISY_MARK} timed on a noisy machine." if any(member.noisy for member in run.members) else ""
    legend = f"★ recommended, ◇ knee of the front.{noise} Export a member with"
    return f"{text}\n{legend}\n\n    {export_command(run_folder, '<trial>')}\n"


def sensitivity_html(table: SensitivityTable) -> str:
    """All scores: one row per layer, most sensitive first, one column per format."""
    formats = format_order(entry.format for entry in table.entries)
    scores = table.scores
    rows = [
        (
            "",
            [
                str(rank),
                f"<code>{html.escape(layer)}</code>",
                *(f"{scores[layer, fmt]:.3g}" if (layer, fmt) in scores else "" for fmt in formats),
            ],
        )
        for rank, layer in enumerate(sorted_layers(table), 1)
    ]
    return table_html(["rank", "layer", *(html.escape(fmt) for fmt in formats)], rows, "scores")


def failures_html(run: Run) -> str:
    """Failed and broken trials, one row each."""
    rows = []
    for record in run.failed:
        failure = record.failure
        rows.append(
            (
                "",
                [
                    str(record.number),
                    html.escape(failure.kind if failure else "interrupted"),
                    html.escape(failure.message if failure else "ended without a result"),
                    html.escape(failure.log if failure else ""),
                    html.escape(record.origin),
                    _chips(record.allocation),
                ],
            )
        )
    for record in run.complete:
        if scores_of(record).broken:
            text = f"{run.goal.brief} {percent(run.accuracy(record))} is below a tenth of the reference's"
            rows.append(
                (
                    "",
                    [
                        str(record.number),
                        "broken",
                        text,
                        "",
                        html.escape(record.origin),
                        _chips(record.allocation),
                    ],
                )
            )
    return table_html(["trial", "kind", "message", "log", "origin", "formats by layer"], rows, "failures")


def _with_interval(value: float, interval: tuple[float, float] | None) -> str:
    return points(value) + (f" [{interval_text(*interval)}]" if interval else "")
