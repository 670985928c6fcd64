"""Commands of a study: run, resume, worker, status, front, export, baseline, rivals, report, dashboard."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from tuner.cli.commands.rivals import rivals
from tuner.cli.options import Json, Model, Ray, RayShare, Run, Study, Trials, Workers, ray_cluster
from tuner.results.targets.registry import TARGETS
from tuner.terminal.console import say, show, show_table


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    for command in (run, resume, worker, status, front, export, baseline, rivals, report, dashboard):
        app.command()(command)


def run(
    study: Study,
    trials: Trials = None,
    folder: Annotated[Path | None, typer.Option("--run", metavar="DIR", help="Run folder; default runs/NAME.")] = None,
    override: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Overrides a key, e.g. --set search.seed=1."),
    ] = None,
    workers: Workers = 1,
    new_device: Annotated[
        Path | None,
        typer.Option("--new-device", metavar="RUN", help="The same study, run elsewhere: reuses its accuracy scores."),
    ] = None,
    ray: Ray = None,
    ray_share: RayShare = 1.0,
) -> None:
    """Starts a study and works until it is done.

    Example: tuner run studies/demo.yaml --trials 40
    """
    from tuner.launch import launch
    from tuner.study.study_file import read_study
    from tuner.terminal.progress import bar

    config = read_study(study, override or ())
    path = folder or Path("runs") / config.name
    cluster = ray_cluster(ray, ray_share)
    _hint(launch(config, path, trials=trials, workers=workers, steps=bar, linked=new_device, ray=cluster).path)


def resume(run: Run, trials: Trials = None, workers: Workers = 1, ray: Ray = None, ray_share: RayShare = 1.0) -> None:
    """Continues a study that was interrupted, or adds trials to one that ended.

    Example: tuner resume runs/demo --trials 80
    """
    from tuner.launch import resume as resume_study
    from tuner.terminal.progress import bar

    cluster = ray_cluster(ray, ray_share)
    _hint(resume_study(run, trials=trials, workers=workers, steps=bar, ray=cluster).path)


def worker(
    run: Annotated[
        str, typer.Argument(metavar="RUN|STORAGE", help="Run folder, or the URL of its storage.", show_default=False)
    ],
    study: Annotated[
        str | None, typer.Option("--study", metavar="NAME", help="Which study of the storage, if it holds several.")
    ] = None,
    device: Annotated[
        int | None, typer.Option("--device", metavar="N", min=0, help="GPU, in place of the study's runtime.device.")
    ] = None,
    attached: Annotated[bool, typer.Option("--attached", hidden=True)] = False,
) -> None:
    """Joins the workers of a run that `tuner run` prepared, on this host or another, until the study is done.

    Example: tuner worker runs/demo
    """
    from tuner.launch import work
    from tuner.study.storage import run_of
    from tuner.terminal.signals import end_with_parent

    if attached:
        end_with_parent()
    work(run_of(run, study) if "://" in run else Path(run), device)


def status(run: Run, as_json: Json = False) -> None:
    """Shows where a study stands.

    Example: tuner status runs/demo
    """
    from tuner.results.loaded import load_run
    from tuner.search.front import hypervolume
    from tuner.search.loop import seconds_left
    from tuner.search.progress_view import duration
    from tuner.search.screening import summarize
    from tuner.search.trials import counted

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
    if screening:
        print(f"screening: {screening}")
    if data["noisy"] or data["noisy_reference"]:
        also = " and the reference" if data["noisy_reference"] else ""
        print(
            f"noisy: {data['noisy']} trials{also} were timed on a disturbed machine; `tuner front --json` has intervals"
        )
    print(f"front: {len(loaded.front)} schemes, hypervolume {volume:.4f}" if volume else "front: empty")


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
    """Lists the Pareto front, fastest first, and names the best member for a budget.

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
    target: Annotated[
        str | None,
        typer.Option("--for", metavar="TARGET", help=f"Laid out to run there: {', '.join(TARGETS.names())}."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Exports one scheme: model.onnx, scheme.json and a model card, or a folder that runs on a server.

    Example: tuner export runs/demo --trial 12 --for triton --out best
    """
    from tuner.results.loaded import load_run
    from tuner.results.ship import ship

    loaded = load_run(run)
    shipped = ship(loaded, loaded.record(trial), out, target)
    for note in shipped.notes:
        say(f"note: {note}")
    if as_json:
        show({"out": str(out), "trial": trial, "sha256": shipped.scheme["sha256"]["model.onnx"]})
    else:
        say(f"trial {trial} is in {out}")


def baseline(
    run: Run,
    model: Model,
    name: Annotated[str, typer.Option("--name", help="Shown in figures.", show_default=False)],
) -> None:
    """Scores and times a model of another tool as the trials are, and shows it in the report and the dashboard.

    Example: tuner baseline runs/demo static_int8.onnx --name "ONNX Runtime static"
    """
    from tuner.compare.baselines import add_baseline
    from tuner.terminal.progress import bar

    found = add_baseline(run, model, name, bar)
    say(str(found))


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
    """Serves optuna-dashboard on this machine, with the Pareto figure, the note and the artifacts.

    Example: tuner dashboard runs/demo --port 8080
    """
    from tuner.report.dashboard import serve
    from tuner.results.loaded import load_run
    from tuner.study.storage import open_storage

    loaded = load_run(run)
    serve(open_storage(loaded.run.database, loaded.config.storage, create=False), loaded.artifacts(), port)


def _hint(path: Path) -> None:
    say(f"front: {path / 'front.md'}")
    say(f"report: {path / 'report.html'}")
    say(f"dashboard: tuner dashboard {path}")
