"""Short names for layers: what tells them apart, as they stand on the axes of plots."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import zip_longest

_SEPARATOR = "/"


def short_names(names: Sequence[str]) -> list[str]:
    """Shortens paths of a graph's nodes, each to the shortest form that no other has.

    A step that the next one repeats (``cv3.0/cv3.0.1``) goes, and so do the last step where it names the operator alone
    (``Conv``, ``MatMul_1``) and a ``conv`` before it: ``/model.22/cv3.0/cv3.0.1/conv/Conv`` becomes
    ``model.22.cv3.0.1``.

    Args:
        names: All of them different.

    Returns:
        In the same order, all different.
    """
    forms = [_forms(name) for name in names]
    level = [0] * len(names)
    while True:
        chosen = [form[at] for form, at in zip(forms, level, strict=True)]
        counts = Counter(chosen)
        clashing = [i for i, text in enumerate(chosen) if counts[text] > 1 and level[i] < len(forms[i]) - 1]
        if not clashing:
            return chosen
        for i in clashing:
            level[i] += 1


def _steps(name: str) -> list[str]:
    steps = [step for step in name.split(_SEPARATOR) if step]
    return [step for step, after in zip_longest(steps, steps[1:], fillvalue="") if not after.startswith(f"{step}.")]


def _forms(name: str) -> list[str]:
    """From the shortest to the name itself."""
    path = _steps(name)
    if len(path) < 2:
        return [name]
    inner = path[:-1] if re.fullmatch(r"[A-Z][A-Za-z]*(_\d+)?", path[-1]) else path
    bare = inner[:-1] if len(inner) > 1 and inner[-1] == "conv" else inner
    return [*(".".join(steps) for steps in (bare, inner, path)), name]
