"""The table of seeds."""

from __future__ import annotations

from typing import get_args

from tuner.search.seeds import SEEDS
from tuner.study.config import SearchSection


def test_a_study_file_may_name_every_kind_of_seeds_and_no_other() -> None:
    (named,) = get_args(SearchSection.model_fields["seeds"].annotation)
    assert get_args(named) == tuple(SEEDS)
