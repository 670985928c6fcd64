"""Ships one scheme: the files of its export, laid out for a target, with a model card."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from objectives.runtimes.engine_builder import EngineBuilder
from objectives.runtimes.loader import Loader
from objectives.runtimes.registry import default_runtime
from objectives.tasks.detection.detector import Detector, recognise
from search_spaces.durable import write_durably
from search_spaces.errors import InputError
from search_spaces.formats import FORMATS
from search_spaces.limits import scratch
from search_spaces.model_graph import ModelGraph
from tuner.results.card import model_card
from tuner.results.export import Exporter
from tuner.results.exported import DESCRIPTION, Exported, check_free, write_folder
from tuner.results.loaded import LoadedRun
from tuner.results.targets.registry import TARGETS
from tuner.results.targets.target import Laid, Shipment
from tuner.search.records import TrialRecord
from tuner.study.config import StudyConfig

#: Name of the model card's file.
CARD = "README.md"
_ONNX = Loader.ONNXRUNTIME.value


@dataclass(frozen=True)
class Shipped:
    """What was written.

    Attributes:
        scheme: The description.
        notes: What differs there from what was measured, or is still to be done.
    """

    scheme: dict[str, Any]
    notes: tuple[str, ...]


def ship(loaded: LoadedRun, record: TrialRecord, folder: Path, target: str | None = None) -> Shipped:
    """Writes a folder.

    Args:
        loaded: The run.
        record: A complete trial.
        folder: Where to; must not exist, or be empty.
        target: In `TARGETS`; None for the plain files.

    Raises:
        InputError: There is no such target, the scheme cannot run there, the folder holds something or cannot be
            written, or the model is not the one that was scored.
    """
    maker = TARGETS.get(target)() if target is not None else None
    check_free(folder)
    exporter = Exporter(loaded)
    exported = exporter.contents(record)
    shipment = _shipment(loaded, record, exporter, exported) if exporter.runtime.artifacts else None
    if maker is None:
        laid = Laid(exported.files, "", _ONNX if shipment is not None else "")
    elif shipment is None:
        raise InputError(f"--for {target}: a run on {exporter.runtime.name} makes no models, there is nothing to ship")
    else:
        laid = maker.lay_out(shipment)
        if not laid.onnx:
            laid = Laid({**laid.files, _ONNX: exported.files[_ONNX]}, laid.usage, _ONNX, laid.notes)
    refused = _refused(shipment, laid) if shipment is not None else ""
    card = model_card(loaded, record, shipment, laid, refused)
    write_folder(folder, {**laid.files, DESCRIPTION: exported.description, CARD: card.encode()})
    return Shipped(exported.scheme, laid.notes)


def _shipment(loaded: LoadedRun, record: TrialRecord, exporter: Exporter, exported: Exported) -> Shipment:
    config, runtime, formats = loaded.config, exporter.runtime, [FORMATS[fmt] for _, fmt in record.allocation.items]
    int8 = any(fmt.quantizes_activation and fmt.activation.is_integer for fmt in formats)
    build = str(exported.scheme.get(runtime.engine_tool, "")) if isinstance(runtime, EngineBuilder) else ""
    return Shipment(
        config.name,
        record.name,
        exported.files,
        _detector(config, exporter, exported),
        runtime,
        config.runtime.batch,
        int8,
        build,
    )


def _detector(config: StudyConfig, exporter: Exporter, exported: Exported) -> Detector:
    """Read from the study's model, or, where that is gone, from the scheme's own."""
    with scratch() as folder:
        try:
            graph = exporter.graph
        except InputError:
            path = Path(folder) / _ONNX
            write_durably(path, exported.files[_ONNX])
            graph = ModelGraph(path, allow_quantized=True, batch=config.runtime.batch)
        model = config.model
        return recognise(graph, head=model.head, image_size=model.size, classes=model.classes)


def _refused(shipment: Shipment, laid: Laid) -> str:
    """Why ONNX Runtime's CPU cannot run the ONNX file; empty where it can."""
    grey = np.full((shipment.batch, 3, *shipment.detector.image_size), 0.5, np.float32)
    try:
        return default_runtime(shipment.batch).try_out(laid.files[laid.onnx], grey)
    except InputError as error:
        return str(error)
