"""A problem from a plain table, for a search over anything that has layers and choices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from optuna.study import Study, StudyDirection

from search_spaces.errors import InputError
from tuner.samplers.problem import Floats, Problem, Target, format_names

#: What is known of a choice: its sensitivity and its cost, or its costs; None where it is not known.
Prior: TypeAlias = "tuple[float | None, float | Sequence[float] | None]"
#: ``{layer: {choice: (sensitivity, cost)}}``, or ``{layer: [choice, ...]}`` where nothing is known.
Table: TypeAlias = "Mapping[str, Mapping[Any, Prior] | Sequence[Any]]"

_ACCURACY_SHARE, _COST_SHARE = 0.5, 1.1  # of the reference: what is worse adds nothing


def table_problem(
    table: Table | Any,
    *,
    accuracy: int = 0,
    reference: Sequence[float] | None = None,
    worst: Sequence[float] | None = None,
    bounds: Sequence[float | None] | None = None,
    neighbours: Iterable[tuple[str, str]] = (),
    reformat: float = 0.0,
) -> Problem:
    """Builds the problem of `ModelGuidedSampler.from_table`, whose arguments these are.

    Raises:
        InputError: The table or an argument contradicts itself.
    """
    rows = _rows(table)
    parameters = {layer: tuple(choices) for layer, choices in rows.items()}
    names = format_names(parameters)
    costs = _cost_count(rows)
    count = costs + 1
    if not 0 <= accuracy < count:
        raise InputError(f"accuracy {accuracy}: the study has values 0 to {count - 1}; name the maximised one")
    for label, given in (("reference", reference), ("worst", worst), ("bounds", bounds)):
        if given is not None and len(given) != count:
            raise InputError(f"{label}: {len(given)} values; the study has {count}, an accuracy and {costs} costs")
    if reference is not None and not all(np.isfinite(value) and value > 0 for value in reference):
        raise InputError(f"reference {tuple(reference)}: must be positive values of the study, of the best scheme")
    whole = tuple(reference) if reference is not None else (1.0,) * count
    targets, cost = [], 0
    for index in range(count):
        share = _ACCURACY_SHARE if index == accuracy else _COST_SHARE
        least = worst[index] if worst is not None else whole[index] * share
        bound = bounds[index] if bounds is not None else None
        if index == accuracy:
            targets.append(Target("accuracy", whole[index], least, bound=bound))
            continue
        prior = _costs(rows, names, cost)
        targets.append(Target(f"cost {cost}", whole[index], least, prior, reformat=reformat, bound=bound))
        cost += 1
    number = {layer: index for index, layer in enumerate(parameters)}
    edges = [(number[a], number[b]) for a, b in neighbours if _known(a, number) and _known(b, number)]
    return Problem(
        parameters,
        tuple(targets),
        _harm(rows, names),
        np.array(edges, dtype=np.int64).reshape(-1, 2),
        np.ones(len(edges)),
        np.arange(len(names), dtype=np.int64),
        np.arange(len(parameters), dtype=np.int64),
    )


def anchored(problem: Problem, values: Floats, *, fixed_worst: bool) -> Problem:
    """The problem with the best accuracy and the highest costs that were seen as those of its reference.

    Args:
        problem: Of a table.
        values: What was seen, shape ``(n, objectives)``, n >= 1.
        fixed_worst: Whether the user named the reference point.
    """
    targets = []
    for target, seen in zip(problem.objectives, values.max(axis=0), strict=True):
        share = _ACCURACY_SHARE if target.accuracy else _COST_SHARE
        whole = max(float(seen), 1e-12)
        targets.append(replace(target, reference=whole, worst=target.worst if fixed_worst else whole * share))
    return replace(problem, objectives=tuple(targets))


def check_directions(study: Study, problem: Problem) -> None:
    """Refuses a study that does not maximise the accuracy and minimise the costs, in the problem's order.

    Raises:
        InputError: It does not.
    """
    wanted = [
        StudyDirection.MAXIMIZE if target.accuracy else StudyDirection.MINIMIZE
        for target in problem.objectives
        if target.optimised
    ]
    if list(study.directions) != wanted:
        raise InputError(
            f"study {study.study_name!r}: its directions are {[way.name.lower() for way in study.directions]}; this "
            f"sampler needs {[way.name.lower() for way in wanted]}, the accuracy maximised and costs minimised"
        )


def _rows(table: Any) -> dict[str, dict[Any, Prior]]:
    """The table in its full form; a data frame has columns ``layer``, ``choice``, ``sensitivity`` and ``cost``."""
    if hasattr(table, "to_dict") and not isinstance(table, Mapping):
        found: dict[str, dict[Any, Prior]] = {}
        for row in table.to_dict("records"):
            if not {"layer", "choice"} <= row.keys():
                raise InputError(f"table: its columns are {', '.join(map(str, row))}; layer and choice are needed")
            given = [_number(row.get(name)) for name in ("sensitivity", "cost")]
            found.setdefault(row["layer"], {})[row["choice"]] = (given[0], given[1])
        table = found
    rows: dict[str, dict[Any, Prior]] = {}
    for layer, choices in table.items():
        rows[layer] = dict(choices) if isinstance(choices, Mapping) else dict.fromkeys(choices, (None, None))
        if not rows[layer]:
            raise InputError(f"table: layer {layer!r} has no choice; give each at least one")
        for choice, prior in rows[layer].items():
            if not _usable(prior):
                raise InputError(
                    f"table: {layer!r}, {choice!r}: {prior!r}; give (sensitivity, cost): numbers from 0 on, or None"
                )
    if not rows:
        raise InputError("table: is empty; give layers with their choices")
    return rows


def _usable(prior: Any) -> bool:
    try:
        sensitivity, cost = prior
        known = [] if sensitivity is None else [float(sensitivity)]
        known += [] if cost is None else np.ravel(np.asarray(cost, np.float64)).tolist()
    except (TypeError, ValueError):
        return False
    return all(np.isfinite(value) and value >= 0 for value in known)


def _number(value: Any) -> Any:
    """A cell of a data frame, whose empty ones are NaN."""
    return None if isinstance(value, float) and np.isnan(value) else value


def _cost_count(rows: Mapping[str, Mapping[Any, Prior]]) -> int:
    counts = {int(np.size(cost)) for choices in rows.values() for _, cost in choices.values() if cost is not None}
    if len(counts) > 1:
        raise InputError(
            f"table: choices have {' and '.join(map(str, sorted(counts)))} costs; give all the same number"
        )
    return counts.pop() if counts else 1


def _harm(rows: Mapping[str, Mapping[Any, Prior]], names: Sequence[Any]) -> Floats:
    """Sensitivities; an unknown one counts as the mean, and is 0 for the first choice of a layer without any."""
    known = [value for choices in rows.values() for value, _ in choices.values() if value]
    usual = float(np.mean(known)) if known else 1.0
    found = np.zeros((len(rows), len(names)))
    for index, choices in enumerate(rows.values()):
        blind = all(value is None for value, _ in choices.values())
        for place, (choice, (value, _)) in enumerate(choices.items()):
            unknown = 0.0 if blind and place == 0 else usual
            found[index, names.index(choice)] = unknown if value is None else float(value)
    return found


def _costs(rows: Mapping[str, Mapping[Any, Prior]], names: Sequence[Any], number: int) -> Floats:
    """Costs as shares of the dearest scheme; an unknown one counts as its layer's mean, or as any layer's."""
    known = [
        {choice: float(np.ravel(cost)[number]) for choice, (_, cost) in choices.items() if cost is not None}
        for choices in rows.values()
    ]
    everywhere = [value for costs in known for value in costs.values()]
    usual = float(np.mean(everywhere)) if everywhere else 1.0
    found = np.full((len(rows), len(names)), usual)
    for index, (choices, costs) in enumerate(zip(rows.values(), known, strict=True)):
        mean = float(np.mean(list(costs.values()))) if costs else usual
        for choice in choices:
            found[index, names.index(choice)] = costs.get(choice, mean)
    dearest = sum(max(found[index, names.index(c)] for c in choices) for index, choices in enumerate(rows.values()))
    return np.asarray(found / max(dearest, 1e-12))


def _known(layer: str, number: Mapping[str, int]) -> bool:
    if layer not in number:
        raise InputError(f"neighbours: {layer!r} is no layer of the table")
    return True
