"""The page of report.html: one file that opens anywhere, without a network."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs
from plotly.utils import PlotlyJSONEncoder

from objectives.runtimes.engine_report import EngineReport
from search_spaces.comparison import Comparison
from search_spaces.layers import Layer
from search_spaces.sensitivity import SensitivityTable
from tuner.report import engine, figures, methods, progress, tables
from tuner.report.answer import answer_html, choice_cells, choices, choices_head
from tuner.report.learned import learned_html
from tuner.report.pareto import pareto_figure
from tuner.report.screened import screened_html
from tuner.report.style import CSS, SCRIPT
from tuner.report.view import Run
from tuner.search.learned import Learned
from tuner.search.records import BaselineOutcome, FrontMember, Preview, Rescore, RunSummary, TrialRecord

# The browser itself refuses any request that this page could make.
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


def page(
    *,
    summary: RunSummary,
    records: Sequence[TrialRecord],
    front: Sequence[FrontMember],
    baselines: Sequence[BaselineOutcome],
    layers: Sequence[Layer],
    table: SensitivityTable | None,
    previews: Sequence[Preview],
    folder: Path,
    engines: Mapping[str, EngineReport] | None = None,
    comparison: Comparison | None = None,
    learned: Learned | None = None,
    rescores: Mapping[str, Rescore] | None = None,
) -> str:
    """The report of a run.

    Args:
        summary: Facts of the run.
        records: All trials.
        front: The front's members, in any order.
        baselines: Points to compare with, and what came to nothing.
        layers: The model's layers, in model order.
        table: The sensitivity table; None leaves out its two sections.
        previews: Images side by side; may be empty.
        folder: Of the run, for the commands that the page shows.
        engines: ``{allocation digest: what its engine became}``; None or empty where the runtime has none.
        comparison: Of sensitivity methods; None leaves out its section.
        learned: What the models learned; None leaves out its section.
        rescores: ``{allocation digest: rescore}`` of any scheme, the front's aside.

    Returns:
        HTML.
    """
    run = Run.of(summary, records, front, baselines, rescores)
    return _page(run, layers, table, previews, folder, engines or {}, comparison, learned)


def _page(
    run: Run,
    layers: Sequence[Layer],
    table: SensitivityTable | None,
    previews: Sequence[Preview],
    folder: Path,
    engines: Mapping[str, EngineReport],
    comparison: Comparison | None,
    learned: Learned | None,
) -> str:
    body = "\n".join(
        part
        for part in (
            _head(run),
            answer_html(run, folder, _choices(run)),
            _section(
                "Pareto front",
                _PARETO.format(accuracy=run.goal.brief, again=" and timed again" * run.timed),
                _pareto(run),
            ),
            _section("The front's schemes", _front_note(run, folder), tables.front_html(run) if run.members else ""),
            _section(
                "Reference and recommended scheme on evaluation images",
                "Left: the unquantized reference. Right: the recommended scheme.",
                "".join(map(_pair, previews)),
            ),
            _section(
                "Format of every layer",
                "One column per scheme of the front, from the cheapest (left): trial, cost, change of "
                + run.goal.brief
                + " in points. One row per quantizable layer, in model order.",
                _plot("bits", figures.bit_width_map(run, layers)),
            ),
            _section(
                "Where the milliseconds go",
                "The recommended scheme's engine, profiled layer by layer; the sum exceeds one inference's time. An "
                "engine layer counts for the quantizable layer that it fuses or follows; the mark is the "
                "unquantized engine.",
                _plot("milliseconds", engine.milliseconds_figure(run, engines)),
            ),
            _section("What the engine did", _ENGINES, engine.engines_html(run, engines)),
            _sensitivity(table),
            _comparison(comparison),
            _section(
                "Prior against observed",
                "Each point is a quantized trial. A good prior ranks the trials as they came out (rank "
                "correlation near 1); the search trusts it accordingly.",
                _plot("prior", progress.prior_figure(run, table) if table else None),
            ),
            _section("What the models learned", _LEARNED.format(accuracy=run.goal.brief), learned_html(learned)),
            _section(
                "Hypervolume",
                "Volume dominated by the front so far: the search has converged where the curve stays flat.",
                _plot("hypervolume", progress.hypervolume_figure(run)),
            ),
            _section("Where the trials' time went", "", _plot("time", progress.time_figure(run))),
            _section("Screened schemes", _SCREENED.format(accuracy=run.goal.brief), screened_html(run)),
            _section(
                "Failures",
                "Trials without a result, and schemes whose " + run.goal.brief + " collapsed.",
                tables.failures_html(run)
                if run.failed or any(r.scores and r.scores.broken for r in run.records)
                else '<p class="muted">None.</p>',
            ),
            _facts(run),
        )
        if part
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(run.summary.name)} – tuner report</title>\n<style>{CSS}</style>\n"
        f"<script>{get_plotlyjs()}</script>\n</head>\n<body>\n<main>\n{body}\n</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


_ENGINES = (
    "Read back from the engine inspector. <i>Reformats</i> change a tensor's layout or type and compute nothing; "
    "<i>fp32 inside</i> are layers in fp32 between faster ones; <i>stored packed</i> are layers whose weights the file "
    "holds in 4 or 8 bits and the builder unpacked, for want of a kernel that reads them: they save size, not time."
)
_LEARNED = (
    "The sampler's models, fitted on all complete trials: what one format in one layer costs in {accuracy} points and "
    "changes in latency. Most effects were seen only together with others; ± is one standard deviation."
)
_SCREENED = (
    "Proposals that were run on a part of the search images and no further, for a scheme of the front that costs no "
    "more was clearly more accurate there. None of them stands in the front. <i>at most</i> is the upper bound of the "
    "difference in {accuracy}; the {accuracy} expected on all images is the dominating scheme's plus the difference."
)
_REFINED = "<i>N-refined</i> has the formats of trial N, and numbers that were refined on unlabelled images. "
_PARETO = (
    "Up and to the left is better. Every scheme stands where it was measured last: those of the front on all "
    "evaluation images{again} after the search, with 95 % intervals; other trials as the search saw them. "
    "The change of {accuracy} is against the unquantized model; numbers are trials. Hover a point for its scheme."
)


def _head(run: Run) -> str:
    against = "measured latency" if run.timed else run.objectives.axis.label
    return (
        f'<h1>{html.escape(run.summary.name)}</h1>\n<p class="muted">{html.escape(run.summary.model.split(",")[0])}: '
        f"number formats per layer, {run.goal.label} against {against}</p>"
    )


def _facts(run: Run) -> str:
    """What was run where, below all that it found."""
    screened = f"{len(run.screened)} screened, " if run.screened else ""
    counts = f"{len(run.complete)} complete, {screened}{len(run.failed)} failed, {len(run.members)} on the front"
    facts = {"model": run.summary.model, "trials": counts, "objectives": ", ".join(run.summary.objectives)}
    rows = "".join(
        f"<div><dt>{html.escape(label)}</dt><dd>{html.escape(text)}</dd></div>"
        for label, text in {**facts, **run.summary.facts}.items()
    )
    return f"<section>\n<h2>This run</h2>\n<dl>{rows}</dl></section>"


def _choices(run: Run) -> str:
    rows = [(row.kind, [html.escape(cell) for cell in choice_cells(run, row)]) for row in choices(run)]
    return tables.table_html(choices_head(run), rows, "choices") if rows else ""


def _pareto(run: Run) -> str:
    """The figure, and how it is laid out on a narrow screen."""
    if not run.complete or run.unquantized is None:
        return ""
    narrow = pareto_figure(run, width=340, compact=True).layout.to_plotly_json()
    layout = json.dumps({**narrow, "autosize": True}, cls=PlotlyJSONEncoder).replace("<", "\\u003c")
    return f'{_plot("pareto", pareto_figure(run))}<script type="application/json" id="narrow-pareto">{layout}</script>'


def _front_note(run: Run, folder: Path) -> str:
    folded = (
        "Members that noise cannot tell to be better than another in anything are folded under it. "
        if len(run.shown) < len(run.members)
        else ""
    )
    refined = _REFINED if any(member.record.refined for member in run.members) else ""
    return (
        f"The change of {run.goal.label} is against the unquantized model, on all images with its paired-bootstrap "
        f"95 % interval where the front was scored again. {folded}★ is recommended, ☆ comes nearest where none can be, "
        "◇ is the knee (farthest below the line between the front's ends). "
        f"{refined}Grey rows compare. Export a scheme with "
        "<code>" + html.escape(tables.export_command(folder, "N")) + "</code>."
    )


def _section(title: str, note: str, content: str) -> str:
    """A section; nothing where it has no content. `title` and `note` are HTML."""
    if not content:
        return ""
    text = f'<p class="note">{note}</p>' if note else ""
    return f"<section>\n<h2>{title}</h2>\n{text}\n{content}\n</section>"


def _plot(name: str, figure: go.Figure | None) -> str:
    """A figure as a fragment; plotly escapes its data for a script element."""
    if figure is None:
        return ""
    fragment: str = figure.to_html(
        full_html=False,
        include_plotlyjs=False,
        div_id=f"plot-{name}",
        default_width="100%",
        default_height=f"{figure.layout.height}px",
        config={"displaylogo": False, "responsive": True, "modeBarButtons": [["toImage"]]},
    )
    return f'<div class="{"plot" if name == "pareto" else "plot wide"}">{fragment}</div>'


def _sensitivity(table: SensitivityTable | None) -> str:
    if table is None or not table.entries:
        return ""
    count = len(figures.sorted_layers(table))
    shown = "all layers" if count <= 40 else f"the 40 most sensitive of {count} layers"
    settings = "; ".join(f"{key} {value}" for key, value in table.settings.items())
    note = (
        f"One layer and one format at a time, method {table.method}, metric {table.metric}, "
        f"{table.images} images. Shown: {shown}; "
        "the further right, the more it hurts."
    )
    made = f'<p class="note">{html.escape(settings)}</p>' if settings else ""
    table_html = tables.sensitivity_html(table)
    details = f"<details><summary>All {count} layers as a table, and the settings</summary>{made}{table_html}</details>"
    return _section(
        "Sensitivity of the layers",
        html.escape(note),
        _plot("sensitivity", figures.sensitivity_figure(table)) + details,
    )


def _comparison(found: Comparison | None) -> str:
    if found is None:
        return ""
    content = _plot("methods", methods.comparison_figure(found)) + methods.comparison_html(found)
    return _section("Sensitivity methods compared", html.escape(methods.comparison_note(found)), content)


def _pair(preview: Preview) -> str:
    name = html.escape(preview.name)
    images = "".join(
        f'<img alt="{name}, {side}" src="data:image/jpeg;base64,{base64.b64encode(data).decode()}">'
        for side, data in (("reference", preview.reference_jpeg), ("scheme", preview.scheme_jpeg))
    )
    return f'<figure class="pair"><figcaption>{name}</figcaption>{images}</figure>'
