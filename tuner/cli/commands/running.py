"""Commands that start and continue a study: run, init, resume, worker."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from search_spaces.errors import InputError
from tuner.cli.options import (
    ATTACHED,
    STUDY,
    Annotations,
    Calibration,
    Data,
    Images,
    MaxDrop,
    Model,
    OtherRuntime,
    Override,
    Ray,
    RayShare,
    Run,
    Target,
    Trials,
    Workers,
    ray_cluster,
)
from tuner.terminal.console import say


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    for command in (run, init, resume, worker):
        app.command(rich_help_panel=STUDY)(command)


def run(
    target: Target,
    *,
    data: Data = None,
    images: Images = None,
    annotations: Annotations = None,
    calibration: Calibration = None,
    runtime: OtherRuntime = None,
    max_drop: MaxDrop = None,
    trials: Trials = None,
    folder: Annotated[Path | None, typer.Option("--run", metavar="DIR", help="Run folder; default runs/NAME.")] = None,
    override: Override = None,
    workers: Workers = 1,
    new_device: Annotated[
        Path | None,
        typer.Option("--new-device", metavar="RUN", help="The same study, run elsewhere: reuses its accuracy scores."),
    ] = None,
    ray: Ray = None,
    ray_share: RayShare = 1.0,
) -> None:
    """Searches a model's front, and works until that is done.

    A model needs no study file: it is composed of the data, and kept as study.yaml in the run.

    Example: tuner run best.pt --data data.yaml --max-drop 1.0

    Example: tuner run studies/demo.yaml --trials 40
    """
    from tuner.launch import launch
    from tuner.study.composed import Given, open_study
    from tuner.terminal.progress import bar

    given = Given(data, images, annotations, calibration, runtime, max_drop, trials)
    config, notes = open_study(target, given, override or ())
    for note in notes:
        say(f"note: {note}")
    path = folder or Path("runs") / config.name
    cluster = ray_cluster(ray, ray_share)
    _hint(launch(config, path, trials=trials, workers=workers, steps=bar, linked=new_device, ray=cluster).path)


def init(
    model: Model,
    *,
    data: Data = None,
    images: Images = None,
    annotations: Annotations = None,
    calibration: Calibration = None,
    runtime: OtherRuntime = None,
    max_drop: MaxDrop = None,
    trials: Trials = None,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Study file to write.")] = Path("study.yaml"),
) -> None:
    """Writes the study file of a model and data, to edit.

    Example: tuner init best.pt --data data.yaml --out study.yaml
    """
    from search_spaces.durable import write_durably
    from tuner.study.composed import Given, compose
    from tuner.study.study_file import read_study

    if out.exists():
        raise InputError(f"--out {str(out)!r}: exists; choose another file")
    if not out.parent.is_dir():
        raise InputError(f"--out {str(out)!r}: its folder does not exist; make it first")
    given = Given(data, images, annotations, calibration, runtime, max_drop, trials)
    found = compose(model, given, out.parent.resolve())
    try:
        write_durably(out, found.text)
    except OSError as error:
        raise InputError(f"--out {str(out)!r}: cannot be written ({error.strerror})") from None
    read_study(out)
    for note in found.notes:
        say(f"note: {note}")
    say(f"study: {out}; start it: tuner run {out}")


def resume(
    run: Run,
    trials: Trials = None,
    override: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Changes a key that no figure depends on, e.g. search.hours."),
    ] = None,
    workers: Workers = 1,
    ray: Ray = None,
    ray_share: RayShare = 1.0,
) -> None:
    """Continues a run that was interrupted, or adds trials to it.

    Example: tuner resume runs/demo --trials 80
    """
    from tuner.launch import resume as resume_study
    from tuner.terminal.progress import bar

    cluster = ray_cluster(ray, ray_share)
    done = resume_study(run, trials=trials, workers=workers, steps=bar, ray=cluster, overrides=override or ())
    _hint(done.path)


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
    attached: Annotated[bool, typer.Option(ATTACHED, hidden=True)] = False,
) -> None:
    """Joins the workers of a run, on this host or another.

    The run was prepared by `tuner run`; the worker ends when the study is done.

    Example: tuner worker runs/demo
    """
    from tuner.launch import work
    from tuner.study.storage import run_of
    from tuner.terminal.signals import end_with_parent

    if attached:
        end_with_parent()
    work(run_of(run, study) if "://" in run else Path(run), device)


def _hint(path: Path) -> None:
    from tuner.results.loaded import load_run
    from tuner.results.so_far import not_begun

    say(f"front: {path / 'front.md'}")
    say(f"report: {path / 'report.html'}")
    say(f"dashboard: tuner dashboard {path}")
    if note := not_begun(load_run(path)):
        say(f"note: {note}")
