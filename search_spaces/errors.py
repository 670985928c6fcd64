"""The one error that a user's input can cause, anywhere in the project."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Bad input: one line that names the thing, its value and the remedy.

    The command line prints it without a traceback and exits with 2. It must be raised before anything is
    overwritten.
    """


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns a hint such as ``"; did you mean 'int8'?"``, or an empty string.

    Args:
        name: What the user wrote.
        known: The valid names.
    """
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {match[0]!r}?" if match else ""
