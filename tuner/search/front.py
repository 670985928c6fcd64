"""The Pareto front of a run: members, hypervolume, the recommended scheme, and its files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from objectives.scores import Accuracy, Scores
from search_spaces.durable import write_durably
from tuner.results.selection import knee, latency_of
from tuner.samplers.acquisition import nondominated
from tuner.search.records import FrontMember, Rescore, TrialRecord, milliseconds
from tuner.search.trials import objective_values, violations
from tuner.study.config import ConstraintsSection
from tuner.study.run_folder import RunFolder

#: The recommended scheme is the fastest that loses at most this much mAP50-95.
RECOMMENDED_DROP = 0.01
#: The reference point of the hypervolume, as shares of the reference's mAP and of its latency and weight size: who
#: loses half of the accuracy, or gains nothing, adds nothing.
WORST_MAP, WORST_COST = 0.5, 1.1
_UNBOUNDED = ConstraintsSection()


def losses(scores: Scores, objectives: Sequence[str], reference: Scores) -> list[float]:
    """Objectives to be minimised: ``-mAP``, and latency and size as shares of the reference's."""
    values = objective_values(scores, objectives)
    base = objective_values(reference, objectives)
    return [
        -value if name == "map_50_95" else value / unit
        for name, value, unit in zip(objectives, values, base, strict=True)
    ]


def reference_point(objectives: Sequence[str]) -> list[float]:
    """The hypervolume's reference point, as shares of the reference's mAP and costs."""
    return [WORST_MAP if name == "map_50_95" else WORST_COST for name in objectives]


def worst_point(objectives: Sequence[str], reference: Scores) -> NDArray[np.float64]:
    """The same in the coordinates of `losses`, shape ``(objectives,)``."""
    worst = np.array(reference_point(objectives))
    worst[list(objectives).index("map_50_95")] *= -reference.accuracy.map_50_95
    return worst


def feasible(records: Sequence[TrialRecord], bounds: ConstraintsSection | None = None) -> list[TrialRecord]:
    """Complete trials that keep the constraints and are not broken, each scheme once."""
    bounds = bounds or _UNBOUNDED
    kept: dict[str, TrialRecord] = {}
    for record in records:
        if record.scores is not None and all(v <= 0 for v in violations(record.scores, bounds).values()):
            kept.setdefault(record.allocation.digest, record)
    return list(kept.values())


def pareto(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Marks the non-dominated rows; of equal rows, all.

    Args:
        points: Shape ``(n, objectives)``, all minimised.

    Returns:
        Shape ``(n,)``.
    """
    kept = np.zeros(len(points), dtype=np.bool_)
    kept[nondominated(points)] = True
    return kept


def front_of(
    records: Sequence[TrialRecord],
    objectives: Sequence[str],
    reference: Scores,
    *,
    bounds: ConstraintsSection | None = None,
    rescores: Mapping[str, Rescore] | None = None,
) -> list[FrontMember]:
    """Returns the front, fastest (or smallest) first, with one member recommended.

    Args:
        records: All trials.
        objectives: Their names.
        reference: Scores of the unquantized model.
        bounds: Constraints; a scheme that breaks one is left out.
        rescores: ``{allocation digest: rescore}``, as far as there are any: these figures then decide, among the
            schemes that have them and those of the measured front that do not yet.
    """
    candidates = feasible(records, bounds)
    if not candidates:
        return []
    rescores = rescores or {}
    measured = _points([r.scores for r in candidates if r.scores], objectives, reference)
    # A scheme that only its luck keeps apart from the front must not take the place of one that was measured again.
    eligible = [
        FrontMember(record, rescores.get(record.allocation.digest))
        for record, shown in zip(candidates, pareto(measured), strict=True)
        if shown or record.allocation.digest in rescores
    ]
    latest = [settled(member, reference) for member in eligible]
    kept = [i for i, s in enumerate(latest) if all(v <= 0 for v in violations(s, bounds or _UNBOUNDED).values())]
    if not kept:
        return []
    points = _points([latest[i] for i in kept], objectives, reference)
    accuracy = list(objectives).index("map_50_95")
    cost = next(index for index, name in enumerate(objectives) if name != "map_50_95")
    order = [row for row in np.argsort(points[:, cost], kind="stable") if pareto(points)[row]]
    members = [eligible[kept[row]] for row in order]
    good = [index for index, member in enumerate(members) if drop(member, reference) <= RECOMMENDED_DROP]
    best = good[0] if good else int(np.argmin([drop(member, reference) for member in members]))
    members[best] = replace(members[best], recommended=True)
    bend = knee(points[order][:, [cost, accuracy]])
    if bend is not None:
        members[bend] = replace(members[bend], knee=True)
    return members


def _points(scores: Sequence[Scores], objectives: Sequence[str], reference: Scores) -> NDArray[np.float64]:
    return np.array([losses(entry, objectives, reference) for entry in scores], dtype=np.float64)


def settled(member: FrontMember, reference: Scores) -> Scores:
    """A member's scores by what was measured last, on the scales of the search.

    The mAP is the reference's on the search images plus the difference on all images, so that it compares with schemes
    that were not measured again and with the constraints; the latency is that of the repeated rounds.
    """
    scores, again = member.record.scores, member.rescore
    assert scores is not None
    if again is None:
        return scores
    shifted = reference.accuracy.map_50_95 + again.difference
    ratio = again.latency_ratio
    return replace(
        scores,
        accuracy=replace(scores.accuracy, map_50_95=shifted),
        latency_ms=scores.latency_ms if ratio is None else reference.latency_ms * ratio,
    )


def drop(member: FrontMember, reference: Scores) -> float:
    """Loss of mAP50-95 against the reference, on all images where re-scored; negative is a gain."""
    if member.rescore is not None:
        return -member.rescore.difference
    assert member.record.scores is not None
    return reference.accuracy.map_50_95 - member.record.scores.accuracy.map_50_95


def hypervolume(
    records: Sequence[TrialRecord],
    objectives: Sequence[str],
    reference: Scores,
    bounds: ConstraintsSection | None = None,
) -> float:
    """Volume that the front dominates beyond `reference_point`, in mAP x shares of the reference's costs."""
    from optuna._hypervolume import compute_hypervolume

    worst = worst_point(objectives, reference)
    points = [losses(r.scores, objectives, reference) for r in feasible(records, bounds) if r.scores]
    inside = np.array([point for point in points if (np.array(point) <= worst).all()], dtype=np.float64)
    return float(compute_hypervolume(inside, worst)) if len(inside) else 0.0


def hypervolume_history(
    records: Sequence[TrialRecord],
    objectives: Sequence[str],
    reference: Scores,
    bounds: ConstraintsSection | None = None,
) -> tuple[float, ...]:
    """Hypervolume after each complete trial."""
    complete = [record for record in records if record.scores is not None]
    return tuple(hypervolume(complete[: count + 1], objectives, reference, bounds) for count in range(len(complete)))


def row(member: FrontMember, reference: Scores) -> dict[str, Any]:
    """One member as the command line and ``front.json`` show it."""
    record, rescore = member.record, member.rescore
    scores = record.scores
    assert scores is not None
    intervals = None
    if rescore is not None:
        full = _interval(rescore.full, rescore.difference, rescore.interval)
        unseen = None
        if rescore.unseen is not None and rescore.unseen_interval is not None:
            unseen = _interval(rescore.unseen, rescore.unseen_difference, rescore.unseen_interval)
        intervals = {"full": full, "unseen": unseen}
    return {
        "trial": record.number,
        "scheme": record.allocation.formats,
        "map_50_95": scores.accuracy.map_50_95,
        "latency_ms": scores.latency_ms,
        "latency_ratio": scores.latency_ms / reference.latency_ms if reference.latency_ms else None,
        "weight_bytes": scores.size.weight_bytes,
        "average_weight_bits": scores.size.average_weight_bits,
        "intervals": intervals,
        "rescored": rescored(record, {record.allocation.digest: rescore} if rescore else {}, reference),
        "map_50_95_onnxruntime": rescore.onnxruntime.map_50_95 if rescore and rescore.onnxruntime else None,
        "origin": record.origin,
        "summary": record.allocation.summary(),
        "digest": record.allocation.digest,
        "drop": drop(member, reference),
        "recommended": member.recommended,
        "knee": member.knee,
    }


def rescored(
    record: TrialRecord, rescores: Mapping[str, Rescore], reference: Scores | None
) -> dict[str, float | int | None] | None:
    """What was measured again of a trial, as the files show it; None where nothing was."""
    found = rescores.get(record.allocation.digest)
    if found is None or reference is None:
        return None
    ratio = found.latency_ratio
    return {
        "map_50_95": found.full.map_50_95,
        "images": found.full.images,
        "latency_ms": None if ratio is None else reference.latency_ms * ratio,
        "latency_ratio": ratio,
        "latency_ratio_low": min(found.ratios, default=None),
        "latency_ratio_high": max(found.ratios, default=None),
        "rounds": len(found.ratios),
    }


def _interval(accuracy: Accuracy, difference: float | None, bounds: tuple[float, float]) -> dict[str, Any]:
    return {
        "images": accuracy.images,
        "map_50_95": accuracy.map_50_95,
        "difference": difference,
        "low": bounds[0],
        "high": bounds[1],
    }


def write_front(run: RunFolder, name: str, members: Sequence[FrontMember], reference: Scores) -> None:
    """Writes ``front.json``, ``front.csv`` and ``front.md``."""
    rows = [row(member, reference) for member in members]
    write_durably(run.path / "front.json", json.dumps({"study": name, "front": rows}, indent=1) + "\n")
    columns = [
        "trial",
        "map_50_95",
        "drop",
        "latency_ms",
        "latency_ratio",
        "weight_bytes",
        "average_weight_bits",
    ]
    columns += ["latency_ms_rescored", "recommended", "knee", "origin", "summary", "digest"]
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({**entry, "latency_ms_rescored": (entry["rescored"] or {}).get("latency_ms")} for entry in rows)
    write_durably(run.path / "front.csv", out.getvalue())
    write_durably(run.path / "front.md", _markdown(name, rows, reference))


def _markdown(name: str, rows: Sequence[Mapping[str, Any]], reference: Scores) -> str:
    base, timed = reference.accuracy, reference.latency is not None
    timing = ["latency ms", "in the search", "speed-up"] if timed else []
    head = ["trial", "mAP50-95", "loss, points (95 %)", *timing, "weights MiB", "bits", "formats"]
    lines = [
        f"# Front of {name}",
        "",
        f"Reference (unquantized): mAP50-95 {base.map_50_95:.4f} on {base.images} search images, "
        + (f"{milliseconds(reference.latency_ms)} ms, " if timed else "")
        + f"{reference.size.weight_bytes / 2**20:.2f} MiB of weights.",
        "",
        f"| {' | '.join(head)} |",
        f"| {'---: | ' * (len(head) - 1)}--- |",
    ]
    for entry in rows:
        loss = f"{100 * entry['drop']:.2f}"
        if entry["intervals"]:
            full = entry["intervals"]["full"]
            loss += f" ({-100 * full['high']:.2f} to {-100 * full['low']:.2f})"
        mark = (" **recommended**" if entry["recommended"] else "") + (" **knee**" if entry["knee"] else "")
        latency = latency_of(entry)
        speed = f"{reference.latency_ms / latency:.2f}" if latency else ""
        times = [milliseconds(latency), milliseconds(entry["latency_ms"]), speed] if timed else []
        size = [f"{entry['weight_bytes'] / 2**20:.2f}", f"{entry['average_weight_bits']:.2f}"]
        cells = [str(entry["trial"]), f"{entry['map_50_95']:.4f}", loss, *times, *size, f"{entry['summary']}{mark}"]
        lines.append(f"| {' | '.join(cells)} |")
    best = "fastest" if timed else "smallest"
    lines += [
        "",
        f"Recommended: the {best} scheme that loses at most 1.0 mAP point. Knee: the scheme farthest below the",
    ]
    lines += ["line between the front's ends. The front is chosen on what was measured again where it was: the loss"]
    if timed:
        lines += ["on all evaluation images, and the median latency of repeated rounds over all members. mAP50-95 and"]
        lines += ["`in the search` are the figures that the search saw.", ""]
    else:
        lines += ["on all evaluation images. mAP50-95 is the figure that the search saw.", ""]
    return "\n".join(lines)
