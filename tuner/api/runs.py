"""Studies and runs, as a Python program asks for them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from objectives.scores import Scores
from tuner.launch import launch
from tuner.launch import resume as resume_study
from tuner.results.export import Exporter
from tuner.results.front_files import row
from tuner.results.loaded import LoadedRun
from tuner.results.loaded import load_run as read_run
from tuner.results.selection import latency_of
from tuner.search.callbacks import Callback
from tuner.study.composed import Given, open_study
from tuner.terminal.console import say
from tuner.terminal.progress import Steps, bar

if TYPE_CHECKING:
    import optuna
    import pandas
    import plotly.graph_objects as go


@dataclass(frozen=True)
class Scheme:
    """One member of a front.

    Attributes:
        trial: Its number; ``~12`` of what was refined from trial 12.
        formats: ``{layer: format}``.
        accuracy: Of the study's accuracy, e.g. mAP50-95, in [0, 1], as the search measured it.
        drop: Points of the accuracy lost against the unquantized model, on all images where it was measured again;
            negative is a gain.
        drop_interval: Its 95 % interval; None before the front was measured again.
        latency_ms: Milliseconds of one batch, of the repeated timing where there was one; 0 where nothing is timed.
        speedup: How many times faster than the unquantized model; None where nothing is timed.
        weight_bytes: Bytes of all layer weights.
        average_weight_bits: Bits of a weight on average.
        recommended: Whether it is the one to start from.
        summary: Its formats in words.
        nearest: Whether no scheme surely keeps the budget, and this one comes nearest.
        folded_under: Trial of the member beside which noise leaves this one no advantage; None of those that the report
            shows.
    """

    trial: int
    formats: Mapping[str, str] = field(repr=False)
    accuracy: float
    drop: float
    drop_interval: tuple[float, float] | None
    latency_ms: float
    speedup: float | None
    weight_bytes: int
    average_weight_bits: float
    recommended: bool
    summary: str
    nearest: bool = False
    folded_under: int | None = None


@dataclass(frozen=True)
class Run:
    """A run: what its folder held when it was loaded.

    Attributes:
        path: The folder.
        loaded: All that it holds, in the tuner's own terms.
    """

    path: Path
    loaded: LoadedRun = field(repr=False)

    @property
    def study(self) -> optuna.Study:
        """Its Optuna study, for Optuna's own plots and tables."""
        return self.loaded.trials.study

    @property
    def reference(self) -> Scores | None:
        """Scores of the unquantized model; None before they are known."""
        return self.loaded.reference

    @property
    def front(self) -> list[Scheme]:
        """The Pareto front, fastest (or smallest) first; empty before anything is scored.

        Members that noise cannot tell from another one are marked by `Scheme.folded_under`; the report leaves them out.
        """
        reference, wanted = self.loaded.reference, self.loaded.config.objective_set
        if reference is None:
            return []
        rows = [row(member, reference, wanted) for member in self.loaded.front]
        return [_scheme(entry, wanted.maximised.name, reference.latency_ms) for entry in rows]

    @property
    def recommended(self) -> Scheme | None:
        """The member to start from; None where none surely keeps the budget."""
        return next((scheme for scheme in self.front if scheme.recommended), None)

    def front_frame(self) -> pandas.DataFrame:
        """The front as a table, a row a scheme; needs pandas (`pip install tuner[notebook]`)."""
        import pandas

        rows = [{**vars(scheme), "formats": dict(scheme.formats)} for scheme in self.front]
        return pandas.DataFrame(rows, columns=list(Scheme.__dataclass_fields__)).set_index("trial")

    def plot(self) -> go.Figure:
        """The Pareto figure of the report; a notebook draws it by itself."""
        from tuner.report.pareto import pareto_figure
        from tuner.report.view import Run as View
        from tuner.results.reporting import read_baselines, run_summary

        loaded = self.loaded
        view = View.of(run_summary(loaded), loaded.records, loaded.front, read_baselines(loaded.run), loaded.rescores)
        return pareto_figure(view)

    def export(self, trial: int, out: str | Path) -> dict[str, Any]:
        """Writes ``model.onnx`` and ``scheme.json`` of a trial into a new folder, and returns the latter's content.

        Raises:
            InputError: No such trial, it has no scores, or the folder exists.
        """
        return Exporter(self.loaded).export(self.loaded.record(trial), Path(out))


def _scheme(entry: Mapping[str, Any], accuracy: str, reference_ms: float) -> Scheme:
    latency = latency_of(entry)
    full = entry["intervals"]["full"] if entry["intervals"] else None
    return Scheme(
        trial=entry["trial"],
        formats=entry["scheme"],
        accuracy=entry[accuracy],
        drop=100 * entry["drop"],
        drop_interval=None if full is None else (-100 * full["high"], -100 * full["low"]),
        latency_ms=latency,
        speedup=reference_ms / latency if reference_ms and latency else None,
        weight_bytes=entry["weight_bytes"],
        average_weight_bits=entry["average_weight_bits"],
        recommended=entry["recommended"],
        summary=entry["summary"],
        nearest=entry["nearest"],
        folded_under=entry["folded_under"],
    )


def load_run(path: str | Path) -> Run:
    """Reads a run from its folder; neither its model nor its images are needed.

    Raises:
        InputError: It is no run, holds no trial yet, or is damaged.
    """
    return Run(Path(path), read_run(Path(path)))


def run(
    target: str | Path,
    *,
    data: str | Path | None = None,
    images: str | Path | None = None,
    annotations: str | Path | None = None,
    calibration: str | Path | None = None,
    runtime: str | None = None,
    max_drop: float | None = None,
    trials: int | None = None,
    folder: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    workers: int = 1,
    callbacks: Sequence[Callback] = (),
    steps: Steps = bar,
) -> Run:
    """Searches the front of a model, and returns the run once that is done.

    Args:
        target: Study file, ONNX file, or Ultralytics checkpoint (``.pt``).
        data: Of a model: data yaml as Ultralytics and Roboflow write it. Its ``val`` split is scored, images of its
            ``train`` split calibrate.
        images: Of a model: folder of evaluation images, in place of `data`.
        annotations: Their COCO json; without labels the search goes by agreement with the unquantized model.
        calibration: Of a model: list or folder of calibration images.
        runtime: Where the model is to run, e.g. ``openvino``.
        max_drop: Points of mAP that a scheme may lose; the search stays within them.
        trials: How many schemes are tried.
        folder: The run's folder; by default ``runs/NAME``.
        settings: Keys of the study file in place of what it says: ``{"search.seed": 1}``.
        workers: Processes that evaluate schemes.
        callbacks: Called with the Optuna study and every trial that ends, as `optuna.study.Study.optimize` does it:
            those of `optuna_integration` reach MLflow and Weights & Biases.
        steps: Shows progress on stderr; `tuner.silent` does not.

    Raises:
        InputError: Something that was named is missing, broken or contradictory; or the folder holds a run.
        RuntimeUnavailable: The machine lacks what the runtime needs.
        Interrupted: By Ctrl-C or SIGTERM; `tuner.resume` goes on.
    """
    given = Given(_path(data), _path(images), _path(annotations), _path(calibration), runtime, max_drop, trials)
    config, notes = open_study(Path(target), given, _overrides(settings))
    for note in notes:
        say(f"note: {note}")
    path = Path(folder) if folder is not None else Path("runs") / config.name
    return load_run(launch(config, path, workers=workers, steps=steps, callbacks=callbacks).path)


def resume(
    folder: str | Path,
    *,
    trials: int | None = None,
    settings: Mapping[str, Any] | None = None,
    workers: int = 1,
    callbacks: Sequence[Callback] = (),
    steps: Steps = bar,
) -> Run:
    """Continues a run, up to `trials` trials in all; arguments and errors are those of `run`.

    Of `settings` only keys that no figure depends on may change, ``search.hours`` among them.
    """
    overrides = _overrides(settings)
    done = resume_study(
        Path(folder), trials=trials, workers=workers, steps=steps, overrides=overrides, callbacks=callbacks
    )
    return load_run(done.path)


def _path(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)


def _overrides(settings: Mapping[str, Any] | None) -> list[str]:
    return [f"{key}={json.dumps(value, ensure_ascii=False, default=str)}" for key, value in (settings or {}).items()]
