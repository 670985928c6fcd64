"""The report's section about schemes that were not scored in full."""

from __future__ import annotations

import html

from tuner.report.tables import table_html
from tuner.report.view import Run
from tuner.search.screening import summarize
from tuner.terminal import units


def screened_html(run: Run) -> str:
    """What screening saved and risked, and every screened scheme; empty where there is none."""
    found = summarize(run.records)
    if found is None:
        return ""
    number = {record.allocation.digest: record.number for record in run.complete}
    rows = []
    for record in run.screened:
        assert record.screened is not None
        look = record.screened.look
        cells = [
            str(record.number),
            str(number.get(look.leader, "–")),
            units.change(look.difference),
            units.change(look.upper),
            units.accuracy(look.expected),
            html.escape(record.allocation.summary()),
        ]
        rows.append(("", cells))
    head = ["trial", "dominated by", "difference", "at most", f"{run.goal.brief} expected", "formats by layer"]
    table = table_html(head, rows, "scores")
    return f"<p>{html.escape(str(found))}.</p><details><summary>All {len(rows)} schemes</summary>{table}</details>"
