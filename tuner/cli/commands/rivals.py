"""Commands that set other tools' answers beside a run's: baseline, rivals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tuner.cli.options import COMPARE, Model, Run
from tuner.terminal.console import say, show_table

if TYPE_CHECKING:
    from tuner.results.loaded import LoadedRun
    from tuner.search.records import BaselineOutcome


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command(rich_help_panel=COMPARE)(baseline)
    app.command(rich_help_panel=COMPARE)(rivals)


def baseline(
    run: Run,
    model: Model,
    name: Annotated[str, typer.Option("--name", help="Shown in figures.", show_default=False)],
) -> None:
    """Scores and times another tool's model as the trials are.

    It is shown in the report and the dashboard.

    Example: tuner baseline runs/demo static_int8.onnx --name "ONNX Runtime static"
    """
    from tuner.compare.baselines import add_baseline
    from tuner.terminal.progress import bar

    found = add_baseline(run, model, name, bar)
    say(str(found))


def rivals(
    run: Run,
    asked: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RIVAL]...",
            help="modelopt:MODE:METHOD, autoquantize:BITS, inc, nncf:fast|full|accuracy-control[:POINTS], "
            "ultralytics-int8[:FILE.pt], ultralytics-qat:FILE.pt.",
            show_default=False,
        ),
    ] = None,
    images: Annotated[int, typer.Option("--calibration-images", min=1, help="The first N of the run's.")] = 32,
) -> None:
    """Has other tools quantize the run's model, to compare.

    Report and dashboard show their answers. Their models, commands and schemes lie in RUN/baselines. What a tool or
    the runtime refuses is told in the table.

    Example: tuner rivals runs/demo modelopt:int8:max ultralytics-int8 autoquantize:8 inc
    """
    from search_spaces.errors import InputError
    from tuner.compare.rivals.asking import ask_rivals
    from tuner.results.loaded import load_run
    from tuner.search.records import Baseline, FailedBaseline
    from tuner.terminal.progress import bar

    found = ask_rivals(run, asked or [], images, bar)
    _show(load_run(run), found)
    if not any(isinstance(one, Baseline) for one in found):
        raise InputError("; ".join(str(one) for one in found if isinstance(one, FailedBaseline)))


def _show(loaded: LoadedRun, found: list[BaselineOutcome]) -> None:
    """The reference, the run's uniform schemes and the rivals, side by side."""
    from objectives.objective import milliseconds
    from objectives.scores import Scores
    from tuner.search.records import NOISY_MARK, Baseline, FailedBaseline
    from tuner.terminal import units

    reference = loaded.reference
    if reference is None:
        return
    whole, accuracy = reference.latency_ms, loaded.config.objective_set.maximised

    def row(name: str, one: Scores | Baseline, noisy: bool, weight_bytes: int) -> list[str]:
        value = one.accuracy if isinstance(one, Baseline) else accuracy.value(one)
        cells = [name, units.accuracy(value), units.change(value - accuracy.value(reference))]
        if whole:
            speed = units.speedup(whole / one.latency_ms) if one.latency_ms else units.NONE
            cells += [milliseconds(one.latency_ms) + NOISY_MARK * noisy, speed]
        return [*cells, units.mib(weight_bytes) if weight_bytes else units.NONE]

    head = ["model", f"{accuracy.label}, points", "change, points", *(["ms", "speed-up"] if whole else []), "MiB"]
    rows = [row("reference", reference, False, reference.size.weight_bytes)]
    for record in loaded.records:
        if record.scores is not None and record.origin.startswith("uniform:"):
            name = f"all {record.origin.removeprefix('uniform:')}"
            rows.append(row(name, record.scores, record.noisy, record.scores.size.weight_bytes))
    rows += [row(one.name, one, one.noisy, one.weight_bytes) for one in found if isinstance(one, Baseline)]
    show_table(head, rows, left={"model"})
    for one in found:
        if isinstance(one, FailedBaseline):
            print(one)
