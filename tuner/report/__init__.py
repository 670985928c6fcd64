"""The report of a run: one self-contained HTML page, and the same inside optuna-dashboard."""

from tuner.report.html import write_report

__all__ = ["write_report"]
