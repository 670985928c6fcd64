"""Gathers what the report shows of a run: facts, previews, baselines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from objectives.objective import milliseconds
from objectives.runtimes.engine_report import EngineReport
from objectives.runtimes.registry import open_runtime
from objectives.tasks.detection.drawing import draw
from search_spaces.comparison import Comparison
from search_spaces.durable import write_durably
from search_spaces.errors import InputError
from search_spaces.layers import Layer
from search_spaces.regular import read_regular
from search_spaces.sensitivity import SensitivityTable
from tuner.prepare.images import data_of
from tuner.prepare.prepared import ArtifactParts
from tuner.report.dashboard import attach
from tuner.report.html import page
from tuner.results.detector import Detector
from tuner.results.loaded import LoadedRun
from tuner.search.front import hypervolume_history
from tuner.search.learned import Learned
from tuner.search.records import NOISY_MARK, BaselineOutcome, FrontMember, Preview, RunSummary, noise_of
from tuner.search.screening import summarize
from tuner.search.trials import counted
from tuner.study.inputs import Inputs, read_model
from tuner.study.run_folder import RunFolder, read_json, read_text
from tuner.study.storage import damage_named
from tuner.terminal import units
from tuner.terminal.progress import Steps, duration, silent

_PREVIEWS = 4
_QUALITY = 85


@dataclass(frozen=True)
class _Previews:
    """What `draw_previews` notes: the scheme that it drew, and the pictures' names."""

    digest: str
    images: list[str]


def write_report_of(loaded: LoadedRun, layers: Sequence[Layer] | None = None) -> Path:
    """Writes ``report.html`` and puts figure, note and artifacts into the study's storage.

    Args:
        loaded: The run.
        layers: Of its model; read from the model file where not given.

    Returns:
        The page.
    """
    run = loaded.run
    write_durably(run.report, report_page(loaded, layers))
    with damage_named(run.database, loaded.config.storage):  # what the dashboard keeps beside the trials
        attach(
            loaded.trials.study,
            summary=run_summary(loaded),
            records=loaded.records,
            front=loaded.front,
            baselines=read_baselines(run),
            artifacts=loaded.artifacts(),
            rescores=loaded.rescores,
            report=run.report,
        )
    return run.report


def report_page(loaded: LoadedRun, layers: Sequence[Layer] | None = None) -> str:
    """The report of a run, as HTML; nothing is written.

    Args:
        loaded: The run.
        layers: Of its model; read from the model file where not given.
    """
    run = loaded.run
    table = None
    if run.sensitivity.exists():
        table = SensitivityTable.from_json(read_text(run.sensitivity))
    compared = None
    if run.comparison.exists():
        compared = Comparison.from_json(read_text(run.comparison))
    if layers is None:
        layers = read_model(loaded.config.model, open_runtime(loaded.config.runtime)).layers
    return page(
        summary=run_summary(loaded),
        records=loaded.records,
        front=loaded.front,
        baselines=read_baselines(run),
        layers=layers,
        table=table,
        previews=read_previews(run),
        folder=run.path,
        engines=read_engines(run),
        comparison=compared,
        learned=read_json(run.learned, Learned) if run.learned.exists() else None,
        rescores=loaded.rescores,
    )


def run_summary(loaded: LoadedRun) -> RunSummary:
    """Facts of a run for the head of its report."""
    config, recorded = loaded.config, loaded.manifest["identity"]
    history: tuple[float, ...] = ()
    facts = {"started": str(loaded.manifest["started"])}
    if loaded.reference is not None:
        reference, accuracy = loaded.reference, config.objective_set.maximised
        history = hypervolume_history(loaded.records, config.objective_set, reference)
        facts["reference"] = (
            f"{accuracy.label} {units.accuracy(accuracy.value(reference))} points on {reference.accuracy.images} "
            + "search images"
            + (f", {milliseconds(reference.latency_ms)} ms" if reference.latency else "")
        )
        if noise := noise_of(reference.latency, reference.latency_ms):
            facts["reference"] += f" ({noise})"
    noisy = [sum(record.noisy for record in loaded.records), sum(r.noisy_rounds for r in loaded.rescores.values())]
    if any(noisy):
        facts["noise"] = f"{noisy[0]} trials and {noisy[1]} repeated timings on a noisy machine, marked {NOISY_MARK}"
    states = [record.state.replace("PRUNED", "SCREENED") for record in loaded.records]
    spent = [t.duration.total_seconds() for t in loaded.trials.study.get_trials(deepcopy=False) if t.duration]
    facts["trials"] = ", ".join(f"{states.count(s)} {s.lower()}" for s in dict.fromkeys(states))
    facts["time in trials"] = duration(sum(spent))
    if screening := summarize(loaded.records):
        facts["screening"] = str(screening)
    machine = {key: value for key, value in recorded.items() if key.startswith("device.")}
    facts["machine"] = ", ".join(f"{value}{' cores' * (key == 'device.cores')}" for key, value in machine.items())
    if loaded.link:
        facts["linked run"] = loaded.link
    facts["runtime"] = f"{config.runtime.name}, {config.runtime.threads} thread(s), batch {config.runtime.batch}"
    if capability := recorded.get("runtime.compute_capability"):
        facts["runtime"] += f", engines for compute capability {capability}"
    if recorded.get("runtime.emulated"):
        facts["accuracy"] = "of the same graphs in ONNX Runtime: no engine ran on this machine"
    facts["sampler"] = f"{config.search.sampler}, seed {config.search.seed}"
    facts["calibration"] = f"{config.calibration.images or 'all'} images, {config.calibration.method}"
    facts["weights"] = f"{config.weights.method}, granularity {config.weights.granularity}"
    marks = [(key.removeprefix("versions."), v) for key, v in recorded.items() if key.startswith("versions.")]
    facts["versions"] = ", ".join(f"{name} {value}" for name, value in marks)
    model = f"{Path(config.model.path).name}, sha256 {recorded['digest.model'][:16]}"
    kept = {key: value for key, value in config.constraints.model_dump().items() if value is not None}
    if kept:
        facts["constraints"] = ", ".join(f"{key} {value:g}" for key, value in kept.items())
    return RunSummary(
        config.name,
        model,
        facts,
        tuple(config.objectives),
        history,
        config.constraints,
        loaded.reference,
        _state(loaded),
    )


def _state(loaded: LoadedRun) -> str:
    """What the answer must not leave out of how the run went: no engine ran here, or the study is not over."""
    emulated = "Accuracy is that of the same graphs in ONNX Runtime: no engine ran on this machine."
    told = [emulated] if loaded.manifest["identity"].get("runtime.emulated") else []
    return " ".join([*told, *_unfinished(loaded)])


def _unfinished(loaded: LoadedRun) -> list[str]:
    done, total = counted(loaded.records), int(loaded.manifest["trials"])
    seeds = all(record.origin != "sampler" for record in loaded.records if record.scores or record.screened)
    if done >= total:
        return []
    text = f"{done} of {total} trials are done; `tuner resume {loaded.run.path}` goes on."
    return [text, "Only seeds ran so far: the sampler has not begun."] if seeds else [text]


def read_baselines(run: RunFolder) -> list[BaselineOutcome]:
    """Reads ``baselines.json``: a list of `Baseline` and `FailedBaseline` objects.

    Raises:
        InputError: It is not such a list.
    """
    return read_json(run.baselines, list[BaselineOutcome]) if run.baselines.exists() else []


def read_engines(run: RunFolder) -> dict[str, EngineReport]:
    """Returns ``{allocation digest: what its engine became}``; empty where the runtime has no engines."""
    return {path.stem: read_json(path, EngineReport) for path in sorted(run.engines.glob("*.json"))}


def draw_previews(
    inputs: Inputs, run: RunFolder, parts: ArtifactParts, member: FrontMember, steps: Steps = silent
) -> None:
    """Draws a few images with the reference's and a member's detections into ``artifacts/previews``.

    Args:
        inputs: The study.
        run: Its folder.
        parts: Of its artifacts.
        member: Of its front.
        steps: Shows progress.
    """
    folder = run.artifacts / "previews"
    digest = member.record.allocation.digest
    index = folder / "previews.json"
    if index.exists() and read_json(index, _Previews).digest == digest:
        return
    data = data_of(inputs)
    counts: dict[int, int] = {}
    for annotation in data.search.annotations:
        counts[annotation.image_id] = counts.get(annotation.image_id, 0) + 1
    ranked = sorted(data.search.images, key=lambda image: abs(counts.get(image.id, 0) - 8))
    chosen = ranked[:_PREVIEWS]
    detector = Detector(inputs, run, parts, chosen, steps)
    reference = detector.predict(None, "previews of the reference")
    scheme = detector.predict(member.record.allocation, "previews of the scheme")
    names = []
    for place, record in enumerate(chosen):
        image = np.asarray(cv2.imread(str(record.path)), dtype=np.uint8)
        for kind, found in (("reference", reference), ("scheme", scheme)):
            picture = draw(image, found.detections[place], found.classes)
            _, jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
            write_durably(folder / f"{place}-{kind}.jpg", jpeg.tobytes())
        names.append(Path(record.path).name)
    write_durably(index, json.dumps({"digest": digest, "images": names}))


def read_previews(run: RunFolder) -> list[Preview]:
    """Reads what `draw_previews` wrote; empty where it did not run."""
    folder = run.artifacts / "previews"
    if not (folder / "previews.json").is_file():
        return []
    try:
        return [
            Preview(name, *(read_regular(folder / f"{place}-{kind}.jpg") for kind in ("reference", "scheme")))
            for place, name in enumerate(read_json(folder / "previews.json", _Previews).images)
        ]
    except OSError as error:
        raise InputError(f"{folder}: a preview cannot be read ({error.strerror}); delete the folder") from None
