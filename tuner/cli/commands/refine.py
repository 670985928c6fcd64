"""The command that refines the numbers of one trial."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuner.cli.options import Json, Run
from tuner.terminal.console import say, show, show_table

if TYPE_CHECKING:
    from objectives.objective_set import ObjectiveSet
    from tuner.compare.refining import Refining


def refine(
    run: Run,
    trial: Annotated[int, typer.Option("--trial", metavar="N", help="A complete trial, see `tuner front`.")],
    images: Annotated[
        Path | None,
        typer.Option("--images", metavar="LIST", help="Unlabelled: list, folder or data yaml; else the calibration's."),
    ] = None,
    minutes: Annotated[
        float, typer.Option("--minutes", metavar="M", min=0.1, max=1440, help="Of learning, at most.")
    ] = 30.0,
    device: Annotated[
        str | None, typer.Option("--device", help="cpu or cuda; else a GPU where PyTorch sees one.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Also exports it there; new folder.")] = None,
    as_json: Json = False,
) -> None:
    """Learns better numbers of one scheme, without labels.

    They are learned against the unquantized model. Formats, size and graph stay. What gains on held-back images is
    measured as the trials are and stands beside them as N-refined; what does not is dropped. Needs PyTorch.

    Example: tuner refine runs/demo --trial 12 --minutes 20
    """
    from tuner.compare.refining import refine_trial
    from tuner.results.export import Exporter
    from tuner.results.exported import check_free
    from tuner.results.loaded import load_run
    from tuner.terminal.progress import bar

    if out is not None:
        check_free(out)
    found = refine_trial(run, trial, minutes, images, device, bar)
    if found.kept is None:
        if as_json:
            show({"trial": trial, "kept": None, "divergence": found.divergence, "best": found.best})
        said = " and exports nothing" if out is not None else ""
        say(
            f"trial {trial} keeps its numbers{said}: nothing learnt came nearer to the unquantized model on the "
            f"{found.judged_on} held-back images (divergence {found.divergence:.4f}, at best {found.best:.4f})"
        )
        return
    loaded, name = load_run(run), f"{trial}-refined"
    if out is not None:
        Exporter(loaded).export(loaded.named(name), out)
    if as_json:
        show({"trial": trial, "kept": asdict(found.kept), "on_front": found.on_front, "rows": found.rows})
        return
    say(
        f"{name}: divergence from the unquantized model {found.divergence:.4f} -> {found.best:.4f} on "
        f"{found.judged_on} held-back images, after {found.kept.stage}"
    )
    _table(found, loaded.config.objective_set)
    print("it joins the front" if found.on_front else "it does not join the front: another scheme dominates it")
    say(f"trial {name} is in {out}" if out is not None else f"export it: tuner export {run} --trial {name} --out DIR")


def _table(found: Refining, objectives: ObjectiveSet) -> None:
    """The trial and what was refined from it, side by side."""
    from objectives.objective import milliseconds
    from tuner.results.selection import latency_of
    from tuner.terminal import units

    accuracy = objectives.maximised
    head = [
        "trial",
        f"{accuracy.label}, points",
        "change, points (95 %)",
        *(["ms"] if objectives.timed else []),
        "MiB",
        "bits",
    ]
    lines = []
    for entry in found.rows:
        full = entry["intervals"]["full"]
        change = f"{units.change(-entry['drop'])} ({units.interval(full['low'], full['high'])})"
        cells = [entry["name"], units.accuracy(full[accuracy.name]), change]
        cells += [milliseconds(latency_of(entry))] if objectives.timed else []
        lines.append([*cells, units.mib(entry["weight_bytes"]), units.bits(entry["average_weight_bits"])])
    show_table([*head], lines, left=set())
