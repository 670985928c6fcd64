"""The Pareto figure: every scheme by its latest figures with their intervals, and what to compare the front with."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from tuner.report import theme
from tuner.report.labels import place
from tuner.report.theme import plain
from tuner.report.view import Run, Standing, scored_on, scores_of, uniform_name
from tuner.search.recommendation import DEFAULT_DROP
from tuner.search.records import FrontMember, TrialRecord, noise_of
from tuner.terminal import units

_BOTTOM = 60
_SMALL = 480  # pixels below which a figure has no room for a heading and a scale
_MANY = 12  # members beyond which a small figure does not number them


@dataclass(frozen=True)
class _Axes:
    """Ranges of the axes; y is the change of accuracy in points. Points below `low` are drawn on it."""

    left: float
    right: float
    low: float
    high: float

    def pixel(self, x: float, y: float, width: float, height: float) -> tuple[float, float]:
        across = (x - self.left) / (self.right - self.left)
        return across * width, (self.high - max(y, self.low)) / (self.high - self.low) * height


def pareto_figure(run: Run, *, width: int = 1130, height: int = 600, compact: bool = False) -> go.Figure:
    """Draws the change of accuracy against cost for all schemes.

    Args:
        run: The run; it has a reference.
        width: Pixels that the figure will about have; labels are placed for it.
        height: Its pixels; a compact one has its own.
        compact: With lines of symbols instead of the legend: for a narrow place.
    """
    axes = _axes(run)
    small = width < _SMALL
    shade = run.objectives.shade
    left, right = (46 if small else 72), (90 if shade and not small else 16 if small else 24)
    title = _compact_title(run, width) if compact else None
    top = 34 + 16 * title["text"].count("<br>") if title else 64
    height = (400 if small else 420) + top if compact else height
    figure = theme.base_figure(height, left=left, right=right, top=top, bottom=_BOTTOM)
    named = {each.record.number for each in (*run.members, *run.uniform)}
    named |= {run.reference.number} if run.reference is not None else set()
    others = [run.member(record) for record in run.complete if record.number not in named]
    low = [each for each in others if _low(run, each, axes)]
    visible = [each for each in others if each not in low]
    kept = [each for each in visible if not run.broken_bounds(each.record)]
    outside = [each for each in visible if run.broken_bounds(each.record)]
    _schemes(figure, run, axes, kept, "other trials", {"size": 6, "color": theme.TRIAL, "opacity": 0.8})
    crossed = {"size": 7, "color": theme.TRIAL, "symbol": "x-thin", "line": {"width": 1.4, "color": theme.TRIAL}}
    _schemes(figure, run, axes, outside, "infeasible: breaks a constraint", crossed)
    if low:
        marker = {"size": 8, "color": theme.TRIAL, "symbol": "triangle-down-open", "line": {"width": 1.3}}
        _schemes(figure, run, axes, low, "broken or below the axis (drawn on its edge)", marker)
    _lines(figure, run, axes)
    folded = [each for each in run.members if each.folded_under is not None and each.record is not run.reference]
    marker = {"size": 7, "color": theme.FRONT, "symbol": "circle-open", "line": {"width": 1.2}}
    _schemes(figure, run, axes, folded, "folded: no advantage beyond noise", marker)
    uniform = [each for each in run.uniform if each.record.number not in {m.record.number for m in run.shown}]
    marker = {"size": 10, "color": theme.UNIFORM, "symbol": "square-open", "line": {"width": 1.6}}
    _schemes(figure, run, axes, uniform, "uniform schemes", marker, bars=True)
    _front(figure, run, axes)
    _baselines(figure, run, axes)
    if run.unquantized is not None:
        _unquantized(figure, run)
    if run.failed:
        _legend_only(figure, f"failed: {len(run.failed)} (no point; listed under Failures)")
    if run.screened:
        _legend_only(figure, f"screened: {len(run.screened)} (no point; not scored in full)")
    _annotate(figure, run, axes, width=width - left - right, height=height - top - _BOTTOM, small=small or compact)
    figure.update_xaxes(title_text=run.cost_title if not small else run.cost_title.split(" (")[0])
    figure.update_xaxes(range=[axes.left, axes.right], nticks=5 if small else None)
    title_text = f"{run.goal.brief} change, points" if compact else f"change of {run.goal.label}, points"
    figure.update_yaxes(title_text=title_text, range=[axes.low, axes.high], zeroline=False)
    if title:
        figure.update_layout(showlegend=False, title=title)
    if shade is not None:
        text = f"{shade.short or shade.label}<br>{shade.unit}"
        bar = {"title": {"text": text, "font": {"size": 12}}, "thickness": 14, "outlinewidth": 0}
        figure.update_layout(coloraxis={"colorscale": theme.SHADES, "colorbar": bar, "showscale": not small})
    return figure


def _compact_title(run: Run, width: int) -> dict[str, Any]:
    symbols = ["★ recommended" if run.recommendation and run.recommendation.kept else "☆ nearest", "● front"]
    colours = [theme.RECOMMENDED, theme.FRONT]
    for there, text, colour in (
        (any(m.folded_under is not None for m in run.members), "○ folded", theme.FRONT),
        (bool(run.uniform), "□ uniform", theme.UNIFORM),
        (bool(run.drawn_baselines), "▲ baseline", theme.BASELINE),
        (True, "◆ unquantized", theme.REFERENCE),
        (any(run.broken_bounds(record) for record in run.complete), "✕ infeasible", theme.TRIAL),
    ):
        if there:
            symbols.append(text)
            colours.append(colour)
    paint = dict(zip([each.replace(" ", "\u00a0") for each in symbols], colours, strict=True))
    lines = textwrap.wrap("  ".join(paint), max(30, width // 7), break_long_words=False)
    for symbol, colour in paint.items():
        lines = [line.replace(symbol, f'<span style="color:{colour}">{symbol}</span>') for line in lines]
    counts = [f"{len(run.complete)} trials"] + [f"{len(run.screened)} screened"] * bool(run.screened)
    counts += [f"{len(run.failed)} failed"] * bool(run.failed)
    heading = [f"<b>Pareto front</b> of {', '.join(counts)}"] if width >= _SMALL else []
    text = "<br>".join([*heading, *(f'<span style="font-size:11px">{line}</span>' for line in lines)])
    return {"text": text, "x": 0.02, "y": 1, "yanchor": "top", "pad": {"t": 10}, "font": {"size": 15}}


def hover(run: Run, record: TrialRecord) -> str:
    """Text shown over a trial's point."""
    member, scores = run.member(record), scores_of(record)
    lines = [f"<b>trial {record.name}</b> · {plain(record.origin)}", plain(record.allocation.summary())]
    if run.unquantized is not None:
        found = run.standing(member)
        lines.append(f"{run.goal.brief} {found.change_text} points {scored_on(member)}")
        if found.speedup is not None:
            lines.append(f"{found.latency_text} ms, {units.speedup(found.speedup)} as fast as unquantized")
    if scores.latency and (noise := noise_of(scores.latency, scores.latency_ms / scores.latency.ratio)):
        lines.append(f"in the search {noise}")
    size = f"{units.mib(scores.size.weight_bytes)} MiB weights, {units.bits(scores.size.average_weight_bits)} bits"
    lines.append(size + (" · broken" if scores.broken else ""))
    lines += [f"{o.label} {o.text(o.value(scores))} {o.unit}" for o in run.objectives.further]
    if broken := run.broken_bounds(record):
        lines.append(f"infeasible: breaks {', '.join(broken)}")
    return "<br>".join(lines)


def _low(run: Run, member: FrontMember, axes: _Axes) -> bool:
    return scores_of(member.record).broken or 100 * run.standing(member).change < axes.low


def _axes(run: Run) -> _Axes:
    if run.unquantized is None:
        return _Axes(0, 1, -1, 1)
    standings = [run.standing(run.member(record)) for record in run.complete]
    standings += [run.standing(member) for member in run.members if member.record.refined]
    ends = [run.standing(member) for member in run.shown]
    costs = [each.cost for each in standings] + [run.baseline_cost(b) for b in run.drawn_baselines]
    costs += [run.cost(run.unquantized), *(end for each in ends for end in each.cost_interval or ())]
    changes = [100 * each.change for each in standings] + [100 * run.baseline_change(b) for b in run.drawn_baselines]
    best = max([0.0, *changes])
    # The interesting part is the upper end of the front: points far below it are drawn on the edge.
    front = [100 * each.change for each in ends]
    span = max([best - value for value in front if value > best - 4] or [0.0])
    shown = [value for value in changes if value >= best - max(2.2 * span, 3)]
    shown += [100 * end for each in ends for end in each.change_interval or () if 100 * each.change > best - 4]
    shown += [best, -100 * _budget(run)]
    pad = max(0.06 * (max(shown) - min(shown)), 0.2)
    wide = max(max(costs) - min(costs), 0.05 * max(costs), 1e-6)
    right = max(costs) + 0.08 * wide
    return _Axes(max(0.0, min(costs) - 0.08 * wide), right, min(shown) - pad, max(shown) + pad)


def _budget(run: Run) -> float:
    """The budget of the recommendation, in [0, 1]."""
    drop = run.summary.objective_set.max_drop
    return (DEFAULT_DROP if drop is None else drop) / 100


def _bars(found: Sequence[Standing], axes: _Axes) -> dict[str, Any]:
    """Error bars of schemes, in the figure's units; none of what is exact or not known."""
    bars: dict[str, Any] = {}
    style = {"type": "data", "symmetric": False, "thickness": 1, "width": 2, "color": theme.MUTED}
    costs = [each.cost_interval or (each.cost, each.cost) for each in found]
    changes = [each.change_interval or (each.change, each.change) for each in found]
    if any(each.cost_interval for each in found):
        up = [high - each.cost for each, (_, high) in zip(found, costs, strict=True)]
        down = [each.cost - low for each, (low, _) in zip(found, costs, strict=True)]
        bars["error_x"] = {**style, "array": up, "arrayminus": down}
    if any(each.change_interval for each in found):
        middle = [max(100 * each.change, axes.low) for each in found]
        up = [max(0.0, 100 * high - y) for y, (_, high) in zip(middle, changes, strict=True)]
        down = [max(0.0, y - max(100 * low, axes.low)) for y, (low, _) in zip(middle, changes, strict=True)]
        bars["error_y"] = {**style, "array": up, "arrayminus": down}
    return bars


def _schemes(
    figure: go.Figure,
    run: Run,
    axes: _Axes,
    members: Sequence[FrontMember],
    name: str,
    marker: dict[str, Any],
    *,
    bars: bool = False,
) -> None:
    if not members or run.unquantized is None:
        return
    if bars and (shade := run.objectives.shade) is not None and marker.get("symbol") is None:
        values = [shade.value(run.scores(member)) for member in members]
        _legend_only(figure, name, {key: marker[key] for key in ("size", "color")})
        marker = {**marker, "color": values, "coloraxis": "coloraxis"}
    found = [run.standing(member) for member in members]
    figure.add_scatter(
        x=[each.cost for each in found],
        y=[max(100 * each.change, axes.low) for each in found],
        mode="markers",
        name=name,
        showlegend="coloraxis" not in marker,
        marker=marker,
        hovertext=[hover(run, member.record) for member in members],
        hoverinfo="text",
        cliponaxis=False,
        **(_bars(found, axes) if bars else {}),
    )


def _staircase(run: Run) -> list[tuple[float, float]]:
    """The shown members on the front of the two drawn axes alone, from the cheapest; (cost, change in points)."""
    line: list[tuple[float, float]] = []
    for found in map(run.standing, run.shown):
        if not line or 100 * found.change > line[-1][1]:
            line.append((found.cost, 100 * found.change))
    return line


def _sampled(
    axes: _Axes, line: Sequence[tuple[float, float]], width: float, height: float
) -> list[tuple[float, float]]:
    """Pixels along the front's staircase, for labels to avoid."""
    corners: list[tuple[float, float]] = []
    for x, y in line:
        if corners:
            corners.append((x, corners[-1][1]))
        corners.append((x, y))
    pixels = [axes.pixel(x, y, width, height) for x, y in corners]
    out = []
    for (x0, y0), (x1, y1) in itertools.pairwise(pixels):
        count = int(max(abs(x1 - x0), abs(y1 - y0)) // 9) + 1
        out += [(x0 + (x1 - x0) * k / count, y0 + (y1 - y0) * k / count) for k in range(count)]
    return out


def _front(figure: go.Figure, run: Run, axes: _Axes) -> None:
    if not run.members or run.unquantized is None:
        return
    line = _staircase(run)
    figure.add_scatter(
        x=[x for x, _ in line],
        y=[max(y, axes.low) for _, y in line],
        mode="lines",
        line={"color": theme.FRONT, "width": 1.4, "shape": "hv"},
        hoverinfo="skip",
        showlegend=False,
    )
    members = [m for m in run.shown if m is not run.named and m.record is not run.reference]
    outline = {"width": 1.2, "color": theme.INK}
    _schemes(figure, run, axes, members, "front", {"size": 11, "color": theme.FRONT, "line": outline}, bars=True)
    if run.named is not None:
        kept = run.recommendation is not None and run.recommendation.kept
        symbol, name = ("star", "recommended") if kept else ("star-open", "nearest to the budget")
        marker = {"size": 17, "color": theme.RECOMMENDED, "symbol": symbol, "line": {"width": 1.2}}
        _schemes(figure, run, axes, [run.named], name, marker, bars=True)


def _unquantized(figure: go.Figure, run: Run) -> None:
    assert run.unquantized is not None
    figure.add_scatter(
        x=[run.cost(run.unquantized)],
        y=[0.0],
        mode="markers",
        name="unquantized",
        marker={"size": 12, "color": theme.REFERENCE, "symbol": "diamond"},
        hovertext=[f"<b>unquantized</b><br>{run.goal.brief} {units.accuracy(run.goal.value(run.unquantized))}"],
        hoverinfo="text",
        cliponaxis=False,
    )


def _lines(figure: go.Figure, run: Run, axes: _Axes) -> None:
    """The budget, and the constraints that lie on the drawn axes."""
    line: dict[str, Any] = {"line": {"color": theme.TRIAL, "width": 1.2, "dash": "dash"}, "layer": "below"}
    dots = {"layer": "above", "line": {**line["line"], "color": theme.RECOMMENDED, "dash": "dot"}}
    figure.add_hline(y=-100 * _budget(run), **dots)
    figure.add_annotation(
        xref="paper",
        x=1,
        y=-100 * _budget(run),
        text=f"budget {units.lost(_budget(run))}",
        showarrow=False,
        xanchor="right",
        yanchor="bottom",
        font={"size": 11, "color": theme.RECOMMENDED},
    )
    bounds = run.objectives.bounds
    if run.goal in bounds and run.unquantized is not None:
        figure.add_hline(y=100 * (bounds[run.goal] - run.goal.value(run.unquantized)), **line)
    if run.objectives.axis in bounds:
        figure.add_vline(x=bounds[run.objectives.axis], **line)


def _baselines(figure: go.Figure, run: Run, axes: _Axes) -> None:
    if not run.drawn_baselines:
        return
    axis = run.objectives.axis
    texts = [
        f"<b>{plain(b.name)}</b><br>{run.goal.brief} {units.change(run.baseline_change(b))} points on the search images"
        f"<br>{axis.text(run.baseline_cost(b))} {axis.unit}"
        for b in run.drawn_baselines
    ]
    figure.add_scatter(
        x=[run.baseline_cost(b) for b in run.drawn_baselines],
        y=[max(100 * run.baseline_change(b), axes.low) for b in run.drawn_baselines],
        mode="markers",
        name="baselines",
        marker={"size": 11, "color": theme.BASELINE, "symbol": "triangle-up"},
        hovertext=texts,
        hoverinfo="text",
        cliponaxis=False,
    )


def _legend_only(figure: go.Figure, name: str, marker: dict[str, Any] | None = None) -> None:
    crossed = {"symbol": "x-thin", "size": 8, "line": {"width": 2, "color": theme.MUTED}}
    figure.add_scatter(x=[None], y=[None], mode="markers", name=name, marker=marker or crossed)


def _annotate(figure: go.Figure, run: Run, axes: _Axes, *, width: float, height: float, small: bool) -> None:
    if run.unquantized is None:
        return
    labels: list[tuple[float, float, str, str]] = []

    def add(x: float, change: float, text: str, colour: str) -> None:
        below = f" ({units.change(change / 100)}, below the axis)" if change < axes.low else ""
        labels.append((x, max(change, axes.low), theme.shorten(text, 24 if small else 56) + below, colour))

    def add_member(member: FrontMember, text: str, colour: str) -> None:
        found = run.standing(member)
        add(found.cost, 100 * found.change, text, colour)

    if run.named is not None:
        mark = "recommended" if run.recommendation is not None and run.recommendation.kept else "nearest"
        add_member(run.named, f"trial {run.named.record.name}, {mark}", theme.RECOMMENDED)
    add(run.cost(run.unquantized), 0.0, "unquantized", theme.REFERENCE)
    for baseline in run.drawn_baselines:
        add(run.baseline_cost(baseline), 100 * run.baseline_change(baseline), baseline.name, theme.BASELINE)
    for member in run.uniform:
        if member.record.number != (run.named.record.number if run.named else None):
            add_member(member, uniform_name(member.record), theme.UNIFORM)
    shown = [m for m in run.shown if m is not run.named and m.record is not run.reference]
    plain_ones = [m for m in shown if not m.record.origin.startswith("uniform:")]
    for member in plain_ones if not (small and len(plain_ones) > _MANY) else []:
        add_member(member, member.record.name, theme.FRONT)
    standings = [run.standing(run.member(record)) for record in run.complete]
    standings += [run.standing(member) for member in run.members if member.record.refined]
    obstacles = [axes.pixel(each.cost, 100 * each.change, width, height) for each in standings]
    obstacles += _sampled(axes, _staircase(run), width, height)
    for found in (run.standing(member) for member in run.shown):
        for x in found.cost_interval or ():
            obstacles += _sampled(axes, [(found.cost, 100 * found.change), (x, 100 * found.change)], width, height)
        for y in found.change_interval or ():
            obstacles += _sampled(axes, [(found.cost, 100 * found.change), (found.cost, 100 * y)], width, height)
    anchors = [axes.pixel(x, y, width, height) for x, y, _, _ in labels]
    offsets = place(anchors, [text for _, _, text, _ in labels], obstacles, (width, height))
    for (x, y, text, colour), (dx, dy) in zip(labels, offsets, strict=True):
        figure.add_annotation(
            x=x,
            y=y,
            ax=dx,
            ay=dy,
            text=plain(text),
            font={"size": 12, "color": colour},
            showarrow=True,
            arrowhead=0,
            arrowwidth=0.8,
            arrowcolor=colour,
            standoff=7,
            borderpad=1,
        )
