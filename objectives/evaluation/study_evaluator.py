"""What a study asks of its evaluator, real or replayed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from objectives.scores import Outcome, Scores
from search_spaces.allocation import Allocation


class StudyEvaluator(Protocol):
    """Scores what the search proposes."""

    def evaluate(self, allocation: Allocation, front: Mapping[str, Scores] | None = None) -> Outcome:
        """Scores one allocation, in full unless the front so far clearly dominates it."""

    def reference(self) -> Scores:
        """Scores the unquantized model."""
