"""What the engine builder made of the schemes: where an engine's time goes, and what did not run as it was asked."""

from __future__ import annotations

import html
from collections.abc import Mapping

import plotly.graph_objects as go

from objectives.runtimes.engine_report import EngineReport
from search_spaces.formats import FORMATS, UNQUANTIZED
from tuner.report import theme
from tuner.report.tables import table_html
from tuner.report.theme import plain
from tuner.report.view import Run

_FULL = "fp32"
# What no format is named for.
_COLOURS = {
    FORMATS[UNQUANTIZED].activation.name: theme.STEPS[6],
    _FULL: theme.STEPS[5],
    "other": theme.STEPS[4],
    "reformat": theme.STEPS[3],
}
_ROW = 15
_ROWS = 60
_UNMET = 12


def milliseconds_figure(run: Run, engines: Mapping[str, EngineReport]) -> go.Figure | None:
    """Time of every model layer in the recommended scheme's engine, beside the unquantized engine's.

    Args:
        run: The run.
        engines: ``{allocation digest: report}``.
    """
    member = run.named
    report = engines.get(member.record.allocation.digest) if member is not None else None
    if member is None or report is None:
        return None
    base = engines.get(run.reference.allocation.digest) if run.reference is not None else None
    times, before = by_layer(report), by_layer(base) if base is not None else {}
    order = list(dict.fromkeys([*times, *before]))
    dearest = sorted(order, key=lambda name: -sum(times.get(name, {}).values()) - sum(before.get(name, {}).values()))
    shown = [name for name in order if name in set(dearest[:_ROWS])]
    labels = [plain(name) for name in theme.distinct_names([name or "(no layer)" for name in shown], 44)]
    figure = theme.base_figure(90 + _ROW * len(shown), left=290, top=56)
    for kind in (*_precisions(), "other", "reformat"):
        milliseconds = [times.get(name, {}).get(kind, 0.0) for name in shown]
        if not any(milliseconds):
            continue
        colour = _COLOURS.get(kind) or theme.format_colour(kind)
        figure.add_bar(
            x=milliseconds, y=labels, orientation="h", name=kind, marker={"color": colour},
            hovertemplate=f"%{{y}}<br>{kind}: %{{x:.4f}} ms<extra></extra>",
        )  # fmt: skip
    if base is not None and run.reference is not member.record:
        figure.add_scatter(
            x=[sum(before.get(name, {}).values()) for name in shown], y=labels, mode="markers", name="unquantized",
            marker={"symbol": "line-ns-open", "size": 9, "color": theme.REFERENCE},
            hovertemplate="%{y}<br>unquantized: %{x:.4f} ms<extra></extra>",
        )  # fmt: skip
    figure.update_layout(
        barmode="stack", bargap=0.15, legend={"traceorder": "normal", "y": 1 + 30 / figure.layout.height}
    )
    figure.update_xaxes(title={"text": "ms, profiled layer by layer"}, rangemode="tozero")
    figure.update_yaxes(autorange="reversed", tickfont={"size": 10.5}, showgrid=False)
    return figure


def by_layer(report: EngineReport) -> dict[str, dict[str, float]]:
    """``{model layer: {precision, "other" or "reformat": milliseconds}}``, in engine order."""
    found: dict[str, dict[str, float]] = {}
    precisions = _precisions()
    for layer in report.layers:
        known = layer.precision in precisions
        kind = "reformat" if layer.kind == "Reformat" else layer.precision if known else "other"
        times = found.setdefault(layer.layer, {})
        times[kind] = times.get(kind, 0.0) + layer.ms
    return found


def _precisions() -> list[str]:
    """What an engine may compute in, the quantized ones first."""
    activations = dict.fromkeys(fmt.activation for fmt in FORMATS.values())
    return [number.name for number in sorted(activations, key=lambda number: not number.quantized)] + [_FULL]


def engines_html(run: Run, engines: Mapping[str, EngineReport]) -> str:
    """One row per front member: what its engine holds beside what was asked for; empty without engines."""
    head = [
        "trial", "engine layers", "reformats", "reformat ms", "fp32 inside", "not as asked", "stored packed, run fp16",
        "plan MiB", "build s", "version", "timed by", "slowest place", "clock MHz", "slowed by",
    ]  # fmt: skip
    rows = []
    for member in run.shown:
        report = engines.get(member.record.allocation.digest)
        if report is None:
            continue
        scores = member.record.scores
        state = scores.latency.state if scores is not None and scores.latency is not None else None
        built = scores.seconds.get("build", 0.0) if scores is not None else 0.0
        share = report.reformat_ms / report.total_ms if report.total_ms else 0.0
        cells = [
            f"<b>{member.record.name}</b>",
            str(len(report.layers)),
            str(report.reformats),
            f"{report.reformat_ms:.3f} ({100 * share:.0f} %)",
            _named(report.fp32_islands),
            _named([f"{layer}: asked {asked}, ran {ran}" for layer, asked, ran in report.unmet]),
            _named(report.folded),
            f"{report.engine_bytes / 2**20:.1f}",
            f"{built:.0f}" if built >= 1 else "kept",
            html.escape(report.version),
            html.escape(report.method),
            f"{100 * (report.place_spread - 1):+.1f} %",
            str(state.sm_mhz) if state is not None else "–",
            html.escape(", ".join(state.throttle)) or "–" if state is not None else "–",
        ]
        rows.append(("best" if member.recommended else "", cells))
    return table_html(head, rows) if rows else ""


def _named(names: list[str] | tuple[str, ...]) -> str:
    """A count that unfolds to names."""
    if not names:
        return "0"
    listed = "<br>".join(html.escape(name) for name in names[:_UNMET])
    more = f"<br>and {len(names) - _UNMET} more" if len(names) > _UNMET else ""
    return f"<details><summary>{len(names)}</summary>{listed}{more}</details>"
