"""The report's section about what the models learned."""

from __future__ import annotations

import html
import statistics

from objectives.objective import milliseconds
from tuner.report.tables import table_html
from tuner.search.learned import Learned, Ranks

_SHOWN = 25


def learned_html(found: Learned | None) -> str:
    """Prose and tables; empty where the run holds none."""
    if found is None:
        return ""
    if found.reason:
        return f'<p class="muted">Not shown: {html.escape(found.reason)}.</p>'
    rows = [
        (
            "",
            [
                f"<code>{html.escape(e.group)}</code>",
                html.escape(e.format),
                f"{e.prior:.2f}",
                f"{e.posterior:.2f} ± {e.deviation:.2f}",
                "–" if e.latency_ms is None else f"{e.latency_ms:+.3f}".replace("-", "−"),
            ],
        )
        for e in found.effects
    ]
    head = ["layer", "format", "prior, points", "posterior, points", "latency, ms"]
    text = _prose(found) + table_html(head, rows[:_SHOWN], "scores")
    if len(rows) > _SHOWN:
        text += f"<details><summary>All {len(rows)} effects</summary>{table_html(head, rows, 'scores')}</details>"
    if found.reformats:
        edges = [
            ("", [f"<code>{html.escape(r.source)}</code>", f"<code>{html.escape(r.target)}</code>", milliseconds(r.ms)])
            for r in found.reformats
        ]
        table = table_html(["from", "to", "reformat, ms"], edges, "scores")
        text += f"<details><summary>Reformat costs of all {len(edges)} edges</summary>{table}</details>"
    return text


def _prose(found: Learned) -> str:
    lines = [
        f"Fitted on {found.trials} trials. Prior against observed losses of schemes (in-sample): "
        f"{_ranks(found.observed)}. Prior against posterior effects: {_ranks(found.believed)}."
    ]
    if found.settings is not None:
        shrink = found.settings["shrink"]
        lines.append(
            f"The prior's ranking of layers has a weight of {100 * (1 - shrink):.0f} % (shrink {shrink:g}), the mean "
            f"of each format {100 * shrink:.0f} %."
        )
    if found.reformats:
        costs = [each.ms for each in found.reformats]
        middle, most = milliseconds(statistics.median(costs)), milliseconds(max(costs))
        lines.append(f"A reformat costs {middle} ms (median edge), at most {most} ms.")
    return "".join(f"<p>{html.escape(line)}</p>" for line in lines)


def _ranks(found: Ranks | None) -> str:
    if found is None or found.spearman is None or found.kendall is None:
        return "no rank correlation"
    return f"Spearman {found.spearman:.2f}, Kendall {found.kendall:.2f} (n = {found.count})"
