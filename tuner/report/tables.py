"""The front as a table, in HTML for the page and in Markdown for the dashboard's note."""

from __future__ import annotations

import html
import shlex
from collections.abc import Sequence
from pathlib import Path

from objectives.objective import milliseconds
from objectives.scores import Scores
from search_spaces import markdown
from search_spaces.allocation import Allocation
from search_spaces.sensitivity import SensitivityTable
from tuner.report.figures import sorted_layers
from tuner.report.theme import format_colour, format_order
from tuner.report.view import Run, scores_of, uniform_name
from tuner.search.records import NOISY_MARK, FrontMember
from tuner.terminal import units


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
        rows: ``(class of the row, cells)``; a single cell spans the table.
        css: Class of the table.
    """
    lines = "".join(
        f'<tr class="{kind}">' + "".join(_cell(cell, len(head) - len(cells) + 1) for cell in cells) + "</tr>\n"
        for kind, cells in rows
    )
    titles = "".join(f"<th>{title}</th>" for title in head)
    body = f"<thead><tr>{titles}</tr></thead><tbody>\n{lines}</tbody>"
    return f'<div class="wide"><table class="{css}">{body}</table></div>'


def _cell(cell: str, columns: int) -> str:
    """A cell of HTML; the only one of a row spans it."""
    return f'<td colspan="{columns}">{cell}</td>' if columns > 1 else f"<td>{cell}</td>"


def front_head(run: Run) -> list[str]:
    """Column titles of the front table."""
    timed = ["latency, ms", "speed-up"] if run.timed else []
    unseen = ["on unseen images"] if run.unseen else []
    twin = ["same file in ONNX Runtime"] if run.twinned else []
    return [
        "trial",
        f"{run.goal.brief} change, points (95 %)",
        *unseen,
        *twin,
        *timed,
        "weights, MiB",
        "bits",
        *(objective.title for objective in run.objectives.further),
        "formats by layer",
    ]


def front_cells(run: Run, member: FrontMember) -> list[str]:
    """Cells between the first and the last column, plain text."""
    found, scores, rescore = run.standing(member), scores_of(member.record), member.rescore
    cells = [found.change_text]
    if run.unseen:
        unseen = units.NONE
        if rescore is not None and rescore.unseen_difference is not None:
            unseen = units.change(rescore.unseen_difference)
            if rescore.unseen_interval is not None:
                unseen += f" ({units.interval(*rescore.unseen_interval)})"
        cells.append(unseen)
    if run.twinned:
        twin, figure = rescore.onnxruntime if rescore is not None else None, run.goal.name
        gap = f" (engine {units.change(rescore.full.figure(figure) - twin.figure(figure))})" if rescore and twin else ""
        cells.append(units.accuracy(twin.figure(figure)) + gap if twin else units.NONE)
    if run.timed:
        cells += [
            found.latency_text or units.NONE,
            units.speedup(found.speedup) if found.speedup is not None else units.NONE,
        ]
    further = [objective.text(objective.value(scores)) for objective in run.objectives.further]
    return [*cells, units.mib(scores.size.weight_bytes), units.bits(scores.size.average_weight_bits), *further]


def front_html(run: Run) -> str:
    """The front, from the cheapest member, each with those folded under it, then the points to compare with."""
    head = front_head(run)
    rows: list[tuple[str, Sequence[str]]] = []
    for member in run.shown:
        rows.append(("best" if member.recommended else "", _member_cells(run, member)))
        if under := run.folded(member):
            table = table_html(head, [("", _member_cells(run, each)) for each in under], "front")
            text = f"{len(under)} more, no better than trial {member.record.name} beyond noise"
            rows.append(("folded", [f"<details><summary>{text}</summary>{table}</details>"]))
    front = {member.record.number for member in run.members}
    others = [member for member in run.uniform if member.record.number not in front]
    for member in others:
        name = uniform_name(member.record)
        rows.append(("other", [html.escape(name), *front_cells(run, member), _chips(member.record.allocation)]))
    blank = len(head) - 2
    if run.unquantized is not None:
        rows.append(("other", ["unquantized", *_unquantized_cells(run, run.unquantized, blank), ""]))
    for baseline in run.baselines:
        cells = [units.NONE] * blank
        cells[0] = units.change(run.baseline_change(baseline))
        if run.timed and baseline.latency_ms > 0 and run.unquantized is not None:
            first = 1 + run.unseen + run.twinned
            cells[first] = milliseconds(baseline.latency_ms) + NOISY_MARK * baseline.noisy
            cells[first + 1] = units.speedup(run.unquantized.latency_ms / baseline.latency_ms)
        if baseline.weight_bytes:
            cells[-2 - len(run.objectives.further)] = units.mib(baseline.weight_bytes)
        rows.append(("other", [html.escape(baseline.name), *cells, '<span class="muted">baseline</span>']))
    for failed in run.failed_baselines:
        why = f'<span class="muted">failed: {html.escape(failed.failure.message)}</span>'
        rows.append(("other", [html.escape(failed.name), *[units.NONE] * blank, why]))
    return table_html(head, rows, "front")


def _unquantized_cells(run: Run, scores: Scores, count: int) -> list[str]:
    cells = [units.NONE] * count
    cells[0] = units.change(0.0)
    if run.timed:
        first = 1 + run.unseen + run.twinned
        cells[first : first + 2] = [milliseconds(scores.latency_ms), units.speedup(1.0)]
    further = [objective.text(objective.value(scores)) for objective in run.objectives.further]
    size = [units.mib(scores.size.weight_bytes), units.bits(scores.size.average_weight_bits)]
    return [*cells[: count - 2 - len(further)], *size, *further]


def _member_cells(run: Run, member: FrontMember) -> list[str]:
    name = f"<b>{member.record.name}</b>" + _marks(member)
    return [name, *front_cells(run, member), _chips(member.record.allocation)]


def _marks(member: FrontMember) -> str:
    return (" ★" if member.recommended else " ☆" if member.nearest else "") + (" ◇" if member.knee else "")


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
    for member in run.shown:
        record = member.record
        under = ", ".join(each.record.name for each in run.folded(member))
        more = f"; as good within noise: {under}" if under else ""
        cells = [*front_cells(run, member), record.allocation.summary() + more]
        rows.append([f"**{record.name}**{_marks(member)}", *map(markdown.plain, cells)])
    text = markdown.table([markdown.plain(name) for name in front_head(run)], rows)
    noise = f" {NOISY_MARK} timed on a noisy machine." if any(member.noisy for member in run.members) else ""
    legend = f"★ recommended, ☆ nearest to it, ◇ knee of the front.{noise} Export a member with"
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
            text = f"{run.goal.brief} {units.accuracy(run.accuracy(record))} is below a tenth of the reference's"
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
