"""Commands that look at a run: status, front, export, refine, report, dashboard."""

from __future__ import annotations

import os
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from search_spaces.durable import write_durably
from search_spaces.errors import InputError
from tuner.cli.commands.refine import refine
from tuner.cli.options import STUDY, Json, Run
from tuner.results.targets.registry import TARGETS
from tuner.terminal.console import say, show, show_table, tell


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    for command in (status, front, export, refine, report, dashboard):
        app.command(rich_help_panel=STUDY)(command)


def status(run: Run, as_json: Json = False) -> None:
    """Shows where a study stands.

    Example: tuner status runs/demo
    """
    from tuner.results.loaded import load_run
    from tuner.results.so_far import failures, not_begun
    from tuner.search.evaluating import seconds_left
    from tuner.search.front import hypervolume
    from tuner.search.screening import summarize
    from tuner.search.trials import counted
    from tuner.terminal.progress import duration

    loaded = load_run(run)
    config, reference = loaded.config, loaded.reference
    done, total = counted(loaded.records), int(loaded.manifest["trials"])
    states = dict(Counter(record.state for record in loaded.records))
    volume = None
    if reference is not None:
        volume = hypervolume(loaded.records, config.objective_set, reference)
    members = len(loaded.front)
    left = seconds_left(loaded.trials.study, total - done)
    screening = summarize(loaded.records)
    data = {
        "study": config.name,
        "states": {name: states.get(name, 0) for name in ("COMPLETE", "PRUNED", "FAIL", "RUNNING", "WAITING")},
        "trials": total,
        "done": done,
        "front": members,
        "hypervolume": volume,
        "eta_seconds": left,
        "linked": loaded.manifest.get("linked"),
        "failures": dict(Counter(record.failure.kind for record in loaded.records if record.failure)),
        "screening": asdict(screening) if screening else None,
        "noisy": sum(record.noisy for record in loaded.records),
        "noisy_reference": bool(reference and reference.latency and reference.latency.noisy),
    }
    if as_json:
        show(data)
        return
    print(f"{config.name}: {done} of {total} trials done, {duration(left)} left")
    if loaded.link:
        tell(f"linked to {loaded.link}")
    print(
        "states: " + ", ".join(f"{'SCREENED' if name == 'PRUNED' else name} {count}" for name, count in states.items())
    )
    for line in failures(loaded.records):
        tell(f"failed: {line}")
    if screening:
        tell(f"screening: {screening}")
    if data["noisy"] or data["noisy_reference"]:
        also = " and the reference" if data["noisy_reference"] else ""
        print(
            f"noisy: {data['noisy']} trials{also} were timed on a disturbed machine; `tuner front --json` has intervals"
        )
    print(f"front: {members} schemes, hypervolume {volume or 0.0:.4f}" if members else "front: empty")
    if note := not_begun(loaded):
        print(note)


def front(
    run: Run,
    max_drop: Annotated[
        float | None,
        typer.Option("--max-drop", metavar="P", help="Only members that lose at most P points of the accuracy."),
    ] = None,
    max_latency: Annotated[
        float | None, typer.Option("--max-latency", metavar="MS", help="Only members of at most MS milliseconds.")
    ] = None,
    max_weight: Annotated[
        float | None, typer.Option("--max-weight", metavar="MIB", help="Only members of at most MIB MiB of weights.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Lists the Pareto front, and says which member to ship.

    That is the fastest that surely loses no more than the budget; for a latency or a size, the most accurate.
    Members beside which noise leaves another no advantage are listed in its place; --json lists all.

    Example: tuner front runs/demo --max-drop 1.0
    """
    from objectives.objective import milliseconds
    from tuner.results.front_files import folded_lines, row
    from tuner.results.loaded import load_run
    from tuner.results.selection import Budget, latency_of
    from tuner.search.front import recommendation
    from tuner.search.recommendation import no_answer
    from tuner.search.records import NOISY_MARK, scheme_name
    from tuner.terminal import units

    loaded = load_run(run)
    reference = loaded.reference
    budget = Budget(max_drop, max_latency, max_weight)
    objectives = budget.objectives(loaded.config.objective_set)
    accuracy, further = objectives.maximised, objectives.further
    members = loaded.front_by(objectives)
    answer = recommendation(members, reference, objectives) if reference else None
    rows = budget.within([row(member, reference, objectives) for member in members] if reference else [])
    best = budget.best(members, reference, objectives) if reference else None
    if as_json:
        data = {"study": loaded.config.name, "recommendation": answer.to_json() if answer else None, "front": rows}
        show(data | ({"best": best} if budget.stated else {}))
        return
    whole = reference.latency_ms if reference else 0.0
    listed = {entry["trial"] for entry in rows}
    shown = [entry for entry in rows if entry["folded_under"] not in listed]
    head = [
        "trial",
        f"{accuracy.label}, points",
        "change, points",
        *(["ms", "speed-up"] if whole else []),
        "MiB",
        "bits",
    ]
    head += [*(objective.title for objective in further), "formats"]
    table = [
        [
            entry["name"] + ("*" if entry["recommended"] else "") + ("^" if entry["knee"] else ""),
            units.accuracy(entry[accuracy.name]),
            units.change(-entry["drop"]),
            *(
                [
                    milliseconds(latency_of(entry)) + NOISY_MARK * entry["noisy"],
                    units.speedup(whole / latency_of(entry)),
                ]
                if whole
                else []
            ),
            units.mib(entry["weight_bytes"]),
            units.bits(entry["average_weight_bits"]),
            *(objective.text(entry[objective.name]) for objective in further),
            entry["summary"],
        ]
        for entry in shown
    ]
    show_table(head, table, left={"formats"})
    print(answer.sentence(objectives) if answer else no_answer(bool(members)))
    print("* recommended; ^ knee: where the front bends most")
    for line in folded_lines([entry for entry in rows if entry not in shown]):
        print(line) if line else None
    if any(entry["noisy"] for entry in rows):
        print(f"{NOISY_MARK} timed on a noisy machine; --json has the interval")
    if budget.stated:
        print("no member keeps this budget" if best is None else f"best for this budget: trial {scheme_name(best)}")


def export(
    run: Run,
    trial: Annotated[
        str, typer.Option("--trial", metavar="N", help="Trial as `tuner front` names it: 12, 12-refined.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="New folder.")],
    target: Annotated[
        str | None,
        typer.Option("--for", metavar="TARGET", help=f"Laid out to run there: {', '.join(TARGETS.names())}."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Exports one scheme with a model card, or laid out for a server.

    Example: tuner export runs/demo --trial 12 --for triton --out best
    """
    from tuner.results.loaded import load_run
    from tuner.results.ship import ship

    loaded = load_run(run)
    record = loaded.named(trial)
    shipped = ship(loaded, record, out, target)
    for note in shipped.notes:
        say(f"note: {note}")
    if as_json:
        name = record.name if record.refined else record.number
        show({"out": str(out), "trial": name, "sha256": shipped.scheme["sha256"]["model.onnx"]})
    else:
        say(f"trial {trial} is in {out}")


def report(
    run: Run,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Where to, in place of the run; - is stdout.")
    ] = None,
) -> None:
    """Writes report.html again, and what the dashboard shows of it.

    Of a run that this user may not write, the page goes to stdout, or to --out alone.

    Example: tuner report runs/demo
    """
    from tuner.results.loaded import load_run
    from tuner.results.reporting import report_page, write_report_of

    if out is not None and out != Path("-"):
        if out.is_dir():
            raise InputError(f"--out {str(out)!r}: is a folder; name the file of the page")
        if not out.parent.is_dir():
            raise InputError(f"--out {str(out)!r}: its folder does not exist; make it first")
    loaded = load_run(run)
    if out is None and not os.access(run, os.W_OK):
        if sys.stdout.isatty():
            raise InputError(f"run {str(run)!r}: this user may not write it; give --out FILE")
        say(f"note: run {str(run)!r} is read-only to this user: the page goes to stdout; --out FILE writes it")
        out = Path("-")
    if out is None:
        say(f"report: {write_report_of(loaded)}")
    elif out == Path("-"):
        sys.stdout.buffer.write(report_page(loaded).encode())
    else:
        write_durably(out, report_page(loaded))
        say(f"report: {out}")


def dashboard(
    run: Run,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port on loopback; 0 takes a free one.")] = 8080,
) -> None:
    """Serves a run's dashboard on this machine.

    It is optuna-dashboard, with the Pareto figure, the note and the artifacts.

    Example: tuner dashboard runs/demo --port 8080
    """
    from tuner.report.dashboard import serve
    from tuner.results.loaded import load_run
    from tuner.study.storage import open_storage

    loaded = load_run(run)
    storage = open_storage(loaded.run.database, loaded.config.storage, create=False)
    serve(storage, loaded.artifacts(), port, ready=lambda url: say(f"dashboard: {url} (Ctrl-C ends it)"))
