"""The files of a front: ``front.json``, ``front.csv`` and ``front.md``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from objectives.objective import Objective, milliseconds
from objectives.objective_set import ObjectiveSet
from objectives.scores import Accuracy, Scores
from search_spaces import spreadsheet
from search_spaces.durable import write_durably
from search_spaces.markdown import plain
from tuner.results.selection import latency_of
from tuner.search.front import drop, recommendation
from tuner.search.recommendation import Recommendation, no_answer
from tuner.search.records import FrontMember, Rescore, TrialRecord, noise_of, scheme_name
from tuner.study.run_folder import RunFolder
from tuner.terminal import units


def row(member: FrontMember, reference: Scores, objectives: ObjectiveSet) -> dict[str, Any]:
    """One member as the command line and ``front.json`` show it.

    Args:
        member: It has scores.
        reference: Scores of the unquantized model.
        objectives: Of the study; those beside latency and size have a key of their own.
    """
    record, rescore, accuracy = member.record, member.rescore, objectives.maximised
    scores = record.scores
    assert scores is not None
    intervals = None
    if rescore is not None:
        full = _interval(accuracy, rescore.full, rescore.difference, rescore.interval)
        unseen = None
        if rescore.unseen is not None and rescore.unseen_interval is not None:
            unseen = _interval(accuracy, rescore.unseen, rescore.unseen_difference, rescore.unseen_interval)
        intervals = {"full": full, "unseen": unseen}
    return {
        "trial": record.number,
        "name": record.name,
        "refined": record.refined,
        "scheme": record.allocation.formats,
        accuracy.name: accuracy.value(scores),
        "latency_ms": scores.latency_ms,
        "latency_ratio": scores.latency_ms / reference.latency_ms if reference.latency_ms else None,
        "latency_ratio_interval": list(scores.latency.interval) if scores.latency and scores.latency.interval else None,
        "noisy": member.noisy,
        "weight_bytes": scores.size.weight_bytes,
        "average_weight_bits": scores.size.average_weight_bits,
        **{objective.name: objective.value(scores) for objective in objectives.further},
        "intervals": intervals,
        "rescored": rescored(record, {record.allocation.digest: rescore} if rescore else {}, reference, accuracy),
        f"{accuracy.name}_onnxruntime": rescore.onnxruntime.figure(accuracy.name)
        if rescore and rescore.onnxruntime
        else None,
        "origin": record.origin,
        "summary": record.allocation.summary(),
        "digest": record.allocation.digest,
        "drop": drop(member, reference, accuracy),
        "recommended": member.recommended,
        "nearest": member.nearest,
        "knee": member.knee,
        "folded_under": member.folded_under,
    }


def rescored(
    record: TrialRecord, rescores: Mapping[str, Rescore], reference: Scores | None, accuracy: Objective
) -> dict[str, float | int | None] | None:
    """What was measured again of a trial, as the files show it; None where nothing was."""
    found = rescores.get(record.allocation.digest)
    if found is None or reference is None:
        return None
    ratio = found.latency_ratio
    return {
        accuracy.name: found.full.figure(accuracy.name),
        "images": found.full.images,
        "latency_ms": None if ratio is None else reference.latency_ms * ratio,
        "latency_ratio": ratio,
        "latency_ratio_low": min(found.ratios, default=None),
        "latency_ratio_high": max(found.ratios, default=None),
        "rounds": len(found.ratios),
        "noisy_rounds": found.noisy_rounds,
    }


def _interval(
    accuracy: Objective, found: Accuracy, difference: float | None, bounds: tuple[float, float]
) -> dict[str, Any]:
    return {
        "images": found.images,
        accuracy.name: found.figure(accuracy.name),
        "difference": difference,
        "low": bounds[0],
        "high": bounds[1],
    }


def write_front(
    run: RunFolder,
    name: str,
    members: Sequence[FrontMember],
    reference: Scores,
    objectives: ObjectiveSet,
) -> None:
    """Writes ``front.json``, ``front.csv`` and ``front.md``.

    Args:
        run: Whose front it is.
        name: Of the study.
        members: Of the front, in order.
        reference: Scores of the unquantized model.
        objectives: Of the study.
    """
    rows = [row(member, reference, objectives) for member in members]
    answer = recommendation(members, reference, objectives)
    data = {"study": name, "recommendation": answer.to_json() if answer else None, "front": rows}
    write_durably(run.path / "front.json", json.dumps(data, indent=1) + "\n")
    columns = [
        "trial",
        objectives.maximised.name,
        "drop",
        "latency_ms",
        "latency_ratio",
        "weight_bytes",
        "average_weight_bits",
        *(objective.name for objective in objectives.further),
    ]
    columns += ["latency_ms_rescored", "recommended", "knee", "origin", "summary", "digest"]
    columns += ["noisy", "latency_ratio_low", "latency_ratio_high", "nearest", "folded_under", "refined"]
    lines = []
    for entry in rows:
        low, high = entry["latency_ratio_interval"] or (None, None)
        again = (entry["rescored"] or {}).get("latency_ms")
        bounds = {"latency_ratio_low": low, "latency_ratio_high": high}
        lines.append({**entry, **bounds, "latency_ms_rescored": again})
    write_durably(run.path / "front.csv", spreadsheet.table(columns, lines))
    write_durably(run.path / "front.md", _markdown(name, rows, reference, objectives, answer))


def _markdown(
    name: str,
    rows: Sequence[Mapping[str, Any]],
    reference: Scores,
    objectives: ObjectiveSet,
    answer: Recommendation | None,
) -> str:
    accuracy, further, timed = objectives.maximised, objectives.further, reference.latency is not None
    noise = noise_of(reference.latency, reference.latency_ms)
    timing = ["latency, ms", "in the search, ms", "speed-up"] if timed else []
    head = [
        "trial",
        f"{accuracy.label} in the search, points",
        "change, points (95 %)",
        *timing,
        "weights, MiB",
        "bits",
        *(o.title for o in further),
        "formats",
    ]
    lines = [
        f"# Front of {name}",
        "",
        answer.sentence(objectives) if answer else no_answer(bool(rows)),
        "",
        f"Reference (unquantized): {accuracy.label} {units.accuracy(accuracy.value(reference))} points on "
        + f"{reference.accuracy.images} search images, "
        + (f"{milliseconds(reference.latency_ms)} ms{f' ({noise})' if noise else ''}, " if timed else "")
        + f"{units.mib(reference.size.weight_bytes)} MiB of weights.",
        "",
        f"| {' | '.join(head)} |",
        f"| {'---: | ' * (len(head) - 1)}--- |",
    ]
    for entry in rows:
        if entry["folded_under"] is not None:
            continue
        loss = units.change(-entry["drop"])
        if entry["intervals"]:
            full = entry["intervals"]["full"]
            loss += f" ({units.interval(full['low'], full['high'])})"
        marks = "".join(f" **{mark}**" for mark in ("recommended", "nearest", "knee", "noisy") if entry[mark])
        marks += f" **{entry['origin']}**" if entry["refined"] else ""
        latency = latency_of(entry)
        speed = units.speedup(reference.latency_ms / latency) if latency else ""
        times = [milliseconds(latency), milliseconds(entry["latency_ms"]), speed] if timed else []
        size = [units.mib(entry["weight_bytes"]), units.bits(entry["average_weight_bits"])]
        more = [objective.text(entry[objective.name]) for objective in further]
        scores = [units.accuracy(entry[accuracy.name]), loss, *times, *size, *more]
        cells = [entry["name"], *scores, f"{plain(entry['summary'])}{marks}"]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *folded_lines(rows)]
    lines += ["Knee: the scheme farthest below the line between the front's ends. The front is chosen on what was"]
    lines += ["measured again where it was: the change on all evaluation images"]
    if timed:
        lines[-1] += ", and the median latency of repeated"
        lines += [f"rounds. {accuracy.label} and the latency `in the search` are the figures that the search saw.", ""]
    else:
        lines[-1] += f". {accuracy.label} is the"
        lines += ["figure that the search saw.", ""]
    if any(entry["noisy"] for entry in rows):
        lines += ["Noisy: another load disturbed the timing of this scheme; front.json has its interval.", ""]
    return "\n".join(lines)


def folded_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is folded under whom, in words; empty where nothing is.

    Args:
        rows: Of `row`.
    """
    over: dict[int, list[int]] = {}
    for entry in rows:
        if entry["folded_under"] is not None:
            over.setdefault(entry["folded_under"], []).append(entry["trial"])
    if not over:
        return []
    parts = (f"under {scheme_name(trial)}: {', '.join(map(scheme_name, under))}" for trial, under in over.items())
    text = "; ".join(parts)
    return [f"Folded, for noise cannot tell that they are better in anything: {text}. front.json has them all.", ""]
