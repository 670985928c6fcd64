"""Commands that look at a run: status, front, export, report, dashboard."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from tuner.cli.options import STUDY, Json, Run
from tuner.terminal.console import say, show, show_table


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    for command in (status, front, export, report, dashboard):
        app.command(rich_help_panel=STUDY)(command)


def status(run: Run, as_json: Json = False) -> None:
    """Shows where a study stands.

    Example: tuner status runs/demo
    """
    from tuner.results.loaded import load_run
    from tuner.results.so_far import failures, not_begun
    from tuner.search.front import hypervolume
    from tuner.search.loop import seconds_left
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
    left = seconds_left(loaded.trials.study, total - done)
    screening = summarize(loaded.records)
    data = {
        "study": config.name,
        "states": {name: states.get(name, 0) for name in ("COMPLETE", "PRUNED", "FAIL", "RUNNING", "WAITING")},
        "trials": total,
        "done": done,
        "front": len(loaded.front),
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
        print(f"linked to {loaded.link}")
    print(
        "states: " + ", ".join(f"{'SCREENED' if name == 'PRUNED' else name} {count}" for name, count in states.items())
    )
    for line in failures(loaded.records):
        print(f"failed: {line}")
    if screening:
        print(f"screening: {screening}")
    if data["noisy"] or data["noisy_reference"]:
        also = " and the reference" if data["noisy_reference"] else ""
        print(
            f"noisy: {data['noisy']} trials{also} were timed on a disturbed machine; `tuner front --json` has intervals"
        )
    print(f"front: {len(loaded.front)} schemes, hypervolume {volume:.4f}" if volume else "front: empty")
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
    """Lists the Pareto front, and names the best for a budget.

    Of a loss alone that is the fastest member, of a latency or a size the most accurate.

    Example: tuner front runs/demo --max-drop 1.0
    """
    from objectives.objective import milliseconds
    from tuner.results.front_files import row
    from tuner.results.loaded import load_run
    from tuner.results.selection import Budget, latency_of
    from tuner.search.records import NOISY_MARK

    loaded = load_run(run)
    reference = loaded.reference
    objectives = loaded.config.objective_set
    accuracy, further = objectives.maximised, objectives.further
    rows = [row(member, reference, objectives) for member in loaded.front] if reference else []
    budget = Budget(max_drop, max_latency, max_weight)
    rows, best = budget.within(rows), budget.best(rows)
    if as_json:
        show({"study": loaded.config.name, "front": rows} | ({"best": best} if budget.stated else {}))
        return
    whole = reference.latency_ms if reference else 0.0
    head = ["trial", accuracy.label, "loss, points", *(["ms", "ratio"] if whole else []), "MiB", "bits"]
    head += [*(objective.title for objective in further), "formats"]
    table = [
        [
            str(entry["trial"]) + ("*" if entry["recommended"] else "") + ("^" if entry["knee"] else ""),
            accuracy.text(entry[accuracy.name]),
            f"{100 * entry['drop']:.2f}",
            *(
                [milliseconds(latency_of(entry)) + NOISY_MARK * entry["noisy"], f"{latency_of(entry) / whole:.3f}"]
                if whole
                else []
            ),
            f"{entry['weight_bytes'] / 2**20:.2f}",
            f"{entry['average_weight_bits']:.2f}",
            *(objective.text(entry[objective.name]) for objective in further),
            entry["summary"],
        ]
        for entry in rows
    ]
    show_table(head, table, left={"formats"})
    best_of = "fastest" if whole else "smallest"
    print(f"* recommended: the {best_of} that loses at most 1.0 point; ^ knee: where the front bends most")
    if any(entry["noisy"] for entry in rows):
        print(f"{NOISY_MARK} timed on a noisy machine; --json has the interval")
    if budget.stated:
        print("no member keeps this budget" if best is None else f"best for this budget: trial {best}")


def export(
    run: Run,
    trial: Annotated[int, typer.Option("--trial", metavar="N", help="Trial number, see `tuner front`.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="New folder.")],
    as_json: Json = False,
) -> None:
    """Exports one scheme: model.onnx and scheme.json.

    Example: tuner export runs/demo --trial 12 --out best
    """
    from tuner.results.export import Exporter
    from tuner.results.loaded import load_run

    loaded = load_run(run)
    scheme = Exporter(loaded).export(loaded.record(trial), out)
    if as_json:
        show({"out": str(out), "trial": trial, "sha256": scheme["sha256"]["model.onnx"]})
    else:
        say(f"trial {trial} is in {out}")


def report(run: Run) -> None:
    """Writes report.html again.

    Example: tuner report runs/demo
    """
    from tuner.results.loaded import load_run
    from tuner.results.reporting import write_report_of

    say(f"report: {write_report_of(load_run(run))}")


def dashboard(
    run: Run, port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port on loopback.")] = 8080
) -> None:
    """Serves a run's dashboard on this machine.

    It is optuna-dashboard, with the Pareto figure, the note and the artifacts.

    Example: tuner dashboard runs/demo --port 8080
    """
    from tuner.report.dashboard import serve
    from tuner.results.loaded import load_run
    from tuner.study.storage import open_storage

    loaded = load_run(run)
    serve(open_storage(loaded.run.database, loaded.config.storage, create=False), loaded.artifacts(), port)
