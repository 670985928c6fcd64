"""A sweep of AutoQuantize runs: one report per format, granularity and method, one index, and the table of a prior."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from objectives.sensitivity.modelopt_scores import METRICS, score_format
from objectives.sensitivity.reports import STEM, write_reports
from objectives.tasks.detection.data.preprocessed import PreprocessedImages
from objectives.torch_models.detector import ImageLabels, TorchDetector
from objectives.torch_models.node_map import NodeMap
from objectives.torch_models.quantizers import config_name
from search_spaces import spreadsheet
from search_spaces.durable import write_durably
from search_spaces.errors import InputError
from search_spaces.formats import FORMATS
from search_spaces.model_graph import ModelGraph
from search_spaces.sensitivity import SensitivityEntry, SensitivityTable

INDEX = "sweep_index.csv"
_COLUMNS = (
    "run", "config", "format", "weights", "activations", "granularity", "method", "images", "layers", "device",
    "seconds", "peak_mib", "most_sensitive", "report",
)  # fmt: skip


@dataclass(frozen=True)
class SweepRun:
    """One run of AutoQuantize.

    Attributes:
        format: The one format it may choose.
        granularity: ``per_layer`` or ``per_channel``.
        method: ``gradient`` or ``kl``.
    """

    format: str
    granularity: str
    method: str

    @property
    def name(self) -> str:
        """Its folder."""
        return f"{self.format}-{self.granularity}-{self.method}"


@dataclass(frozen=True)
class SweepInputs:
    """What every run of a sweep works on.

    Attributes:
        graph: The ONNX model that the table is for.
        nodes: Which torch module is which of its layers; complete.
        detector: The torch model.
        images: Calibration images; all of them calibrate and score.
        labels: One per image.
        settings: Provenance: checkpoint, labels, calibration images.
    """

    graph: ModelGraph
    nodes: NodeMap
    detector: TorchDetector
    images: PreprocessedImages
    labels: Sequence[ImageLabels]
    settings: Mapping[str, str]


def modelopt_sweep(
    inputs: SweepInputs, runs: Sequence[SweepRun], folder: Path, progress: Callable[[int], None] | None = None
) -> dict[SweepRun, SensitivityTable]:
    """Makes every run that `folder` does not hold yet, and its report, then the index of all.

    Args:
        inputs: What to work on.
        runs: In order.
        folder: Holds ``RUN/layer-sensitivity-report.{md,json,csv}`` and ``sweep_index.csv``.
        progress: Called with the number of runs done.

    Returns:
        A table per run, its scores by ONNX layer.

    Raises:
        RuntimeUnavailable: ModelOpt is missing.
    """
    found: dict[SweepRun, SensitivityTable] = {}
    for count, run in enumerate(runs, 1):
        kept = _kept(folder / run.name / f"{STEM}.json", run, inputs)
        found[run] = kept if kept is not None else _measure(inputs, run, folder / run.name)
        _write_index(found, folder)
        if progress is not None:
            progress(count)
    return found


def merged(tables: Sequence[SensitivityTable]) -> SensitivityTable:
    """One table of several formats, all scored in one way.

    Raises:
        InputError: Their scores are not of one unit.
    """
    first = tables[0]
    if len({table.metric for table in tables}) > 1:
        raise InputError("sensitivity: scores of different methods are not of one unit; merge runs of one method")
    entries = tuple(entry for table in tables for entry in table.entries)
    own = ("format", "config", "weights", "activations", "peak_mib")
    settings = {key: value for key, value in first.settings.items() if key not in own}
    return replace(first, entries=entries, settings=settings)


def _settings(inputs: SweepInputs, run: SweepRun) -> dict[str, str]:
    fmt = FORMATS[run.format]
    return {
        **inputs.settings,
        "format": run.format,
        "config": config_name(run.format),
        "weights": fmt.weight.name,
        "activations": fmt.activation.name,
        "granularity": run.granularity,
        "method": run.method,
        "device": inputs.detector.device,
    }


def _measure(inputs: SweepInputs, run: SweepRun, folder: Path) -> SensitivityTable:
    pixels = [inputs.images.batch(index, index + 1) for index in range(len(inputs.images))]
    found = score_format(inputs.detector, run.format, run.granularity, run.method, pixels, inputs.labels)
    module_of, count = inputs.nodes.module_of, len(pixels)
    share = found.seconds / len(module_of)
    entries = tuple(
        SensitivityEntry(layer.name, run.format, found.scores[module_of[layer.name]] / count, share)
        for layer in inputs.graph.quantizable
    )
    settings = {**_settings(inputs, run), "peak_mib": f"{found.peak_mib:.0f}"}
    table = SensitivityTable("modelopt", METRICS[run.method], inputs.graph.digest, count, entries, settings)
    write_reports(table, folder)
    return table


def _kept(path: Path, run: SweepRun, inputs: SweepInputs) -> SensitivityTable | None:
    """The report of a run of the same settings, if there is one."""
    if not path.is_file():
        return None
    table = SensitivityTable.from_json(path.read_text(encoding="utf-8"))
    known = {key: value for key, value in table.settings.items() if key != "peak_mib"}
    facts = (known, table.metric, table.model, table.images)
    wanted = (_settings(inputs, run), METRICS[run.method], inputs.graph.digest, len(inputs.images))
    return table if facts == wanted else None


def _write_index(tables: Mapping[SweepRun, SensitivityTable], folder: Path) -> None:
    rows = [
        {
            **table.settings,
            "run": run.name,
            "images": table.images,
            "layers": len(table.entries),
            "seconds": f"{sum(entry.seconds for entry in table.entries):.1f}",
            "most_sensitive": table.ranking()[0].layer,
            "report": f"{run.name}/{STEM}.md",
        }
        for run, table in tables.items()
    ]
    write_durably(folder / INDEX, spreadsheet.table(_COLUMNS, rows))
