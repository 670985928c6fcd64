"""What may change of a study between two sittings of one run."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from search_spaces.errors import InputError
from search_spaces.reading import parse_yaml

#: Keys that no measured figure depends on: when the search ends, where things are computed, and where files lie, whose
#: contents the run's identity still holds to be the same.
CHANGEABLE = (
    "search.trials",
    "search.hours",
    "search.patience",
    "search.screening",
    "runtime.limit_s",
    "runtime.device",
    "weights.device",
    "sensitivity.device",
    "model.path",
    "data.images",
    "data.annotations",
    "data.calibration",
)
_PATHS = CHANGEABLE[CHANGEABLE.index("model.path") :]


def checked_changes(overrides: Sequence[str]) -> list[str]:
    """Overrides of a run's study; paths are made absolute, for they are relative to where the user is.

    Raises:
        InputError: One names a key that is fixed for a run.
    """
    found = []
    for override in overrides:
        key, equals, text = override.partition("=")
        if not any(key == name or key.startswith(f"{name}.") for name in CHANGEABLE):
            meant = get_close_matches(key, CHANGEABLE, n=1, cutoff=0.85)  # a slip, not another key of the same section
            hint = f"; did you mean {meant[0]!r}?" if meant else ""
            raise InputError(
                f"--set {override}: {key} is fixed once a run has begun, for its trials would not compare{hint}; "
                f"these may change: {', '.join(CHANGEABLE)}"
            )
        if equals and key in _PATHS and isinstance(value := parse_yaml(text, f"--set {key}"), str):
            override = f"{key}={Path(value).expanduser().absolute()}"  # noqa: PLW2901
        found.append(override)
    return found
