"""Figures about the search itself: hypervolume, how well the prior ranked, where the time went."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
from plotly.subplots import make_subplots
from scipy import stats

from objectives.agreement import AGREEMENT
from search_spaces.allocation import Allocation
from search_spaces.sensitivity import SensitivityTable
from tuner.report import theme
from tuner.report.pareto import hover
from tuner.report.theme import plain
from tuner.report.view import Run, scores_of
from tuner.search.records import TrialRecord


def hypervolume_figure(run: Run) -> go.Figure | None:
    """Hypervolume after each complete trial, with the end of the seeds marked."""
    values = run.summary.hypervolume
    if not values:
        return None
    figure = theme.base_figure(320, left=72)
    figure.add_scatter(
        x=list(range(1, len(values) + 1)),
        y=list(values),
        mode="lines+markers" if len(values) < 40 else "lines",
        line={"color": theme.FRONT, "width": 2, "shape": "hv"},
        marker={"size": 5},
        hovertemplate="after %{x} complete trials: %{y:.4g}<extra></extra>",
        showlegend=False,
    )
    seeds = sum(1 for record in run.complete if record.origin != "sampler")
    if 0 < seeds < len(values):
        figure.add_vrect(x0=0, x1=seeds + 0.5, fillcolor="#f1f3f5", line_width=0, layer="below")
        figure.add_annotation(
            x=seeds + 0.5,
            y=0.04,
            yref="paper",
            text="seeds",
            xanchor="right",
            showarrow=False,
            font={"color": theme.MUTED, "size": 12},
        )
    figure.update_xaxes(title_text="complete trials", range=[0, len(values) + 1], rangemode="tozero")
    figure.update_yaxes(title_text="hypervolume")
    return figure


@dataclass(frozen=True)
class Correlation:
    """Rank correlation of the prior with what was observed; NaN where it is undefined."""

    spearman: float
    kendall: float
    trials: int

    def __str__(self) -> str:
        """E.g. ``Spearman 0.85, Kendall 0.67 (58 trials)``."""
        if math.isnan(self.spearman):
            return f"no rank correlation ({self.trials} trials)"
        return f"Spearman {self.spearman:.2f}, Kendall {self.kendall:.2f} ({self.trials} trials)"


def correlate(predicted: Sequence[float], observed: Sequence[float]) -> Correlation:
    """Rank correlation; NaN for fewer than three pairs or a constant side."""
    if len(predicted) < 3 or len(set(predicted)) < 2 or len(set(observed)) < 2:
        return Correlation(math.nan, math.nan, len(predicted))
    spearman = float(stats.spearmanr(predicted, observed).statistic)
    kendall = float(stats.kendalltau(predicted, observed).statistic)
    return Correlation(spearman, kendall, len(predicted))


def predicted_score(table: SensitivityTable, allocation: Allocation) -> float:
    """What the prior expects of a scheme: the sum of its layers' scores."""
    return sum(table.score(layer, fmt) for layer, fmt in allocation.items)


def prior_figure(run: Run, table: SensitivityTable) -> go.Figure | None:
    """Sum of the table's scores against the observed drop of agreement and of the accuracy, where that is another."""
    records = [record for record in run.complete if not record.allocation.unquantized]
    if not records or not table.entries:
        return None
    predicted = [predicted_score(table, record.allocation) for record in records]
    panels = [("1 − agreement with the reference", [1 - scores_of(r).agreement for r in records])]
    if run.reference is not None and run.goal.name != AGREEMENT.name:
        panels.append(
            (f"{run.goal.brief} drop, points", [-100 * (run.search_difference(scores_of(r)) or 0.0) for r in records])
        )
    titles = [str(correlate(predicted, observed)) for _, observed in panels]
    figure = make_subplots(rows=1, cols=len(panels), subplot_titles=titles, horizontal_spacing=0.1)
    figure.update_layout(theme.base_figure(400, left=72, top=76).layout)
    figure.update_xaxes(theme.AXIS)
    figure.update_yaxes(theme.AXIS)
    groups = (("seeds", theme.SEED, False), ("proposed by the sampler", theme.SAMPLER, True))
    for column, (title, observed) in enumerate(panels, 1):
        for name, colour, sampled in groups:
            chosen = [i for i, record in enumerate(records) if (record.origin == "sampler") == sampled]
            _points(figure, run, records, chosen, predicted, observed, column, name, colour)
        figure.update_yaxes(title_text=title, row=1, col=column)
    positive = [value for value in predicted if value > 0]
    wide = len(positive) == len(predicted) and max(positive) > 30 * min(positive)
    title = f"predicted: sum of the scheme's scores ({plain(table.metric)})"
    figure.update_xaxes(title_text=title, type="log" if wide else "linear")
    figure.update_annotations(font={"size": 14, "color": theme.INK})
    figure.update_layout(legend={"y": 1.1})
    return figure


def _points(
    figure: go.Figure,
    run: Run,
    records: Sequence[TrialRecord],
    chosen: Sequence[int],
    predicted: Sequence[float],
    observed: Sequence[float],
    column: int,
    name: str,
    colour: str,
) -> None:
    if not chosen:
        return
    figure.add_scatter(
        x=[predicted[i] for i in chosen],
        y=[observed[i] for i in chosen],
        mode="markers",
        name=name,
        legendgroup=name,
        showlegend=column == 1,
        marker={"size": 8, "color": colour, "opacity": 0.85},
        hovertext=[hover(run, records[i]) for i in chosen],
        hoverinfo="text",
        row=1,
        col=column,
    )


def time_figure(run: Run) -> go.Figure | None:
    """Share of the trials' wall time by step."""
    totals: dict[str, float] = {}
    for record in run.complete:
        for step, seconds in scores_of(record).seconds.items():
            totals[step] = totals.get(step, 0.0) + seconds
    whole = sum(totals.values())
    if whole <= 0:
        return None
    figure = theme.base_figure(130, left=24, top=40, bottom=40)
    for index, (step, seconds) in enumerate(totals.items()):
        share = 100 * seconds / whole
        figure.add_bar(
            x=[share],
            y=[""],
            orientation="h",
            name=f"{plain(step)} {share:.0f} % ({_duration(seconds)})",
            marker={"color": theme.STEPS[index % len(theme.STEPS)]},
            hovertemplate=f"{plain(step)}: {_duration(seconds)}, "
            f"{_duration(seconds / len(run.complete))} a trial<extra></extra>",
        )
    figure.update_layout(barmode="stack", bargap=0.2, legend={"traceorder": "normal", "y": 1.05})
    figure.update_xaxes(range=[0, 100], ticksuffix=" %")
    figure.update_yaxes(showticklabels=False, ticks="")
    return figure


def _duration(seconds: float) -> str:
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
