"""Exports a checkpoint to ONNX, once per checkpoint and settings, and verifies the map between the two."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import onnx

from objectives.runtimes.engine_cache import cache_home
from objectives.tasks.detection.heads.registry import HEADS
from objectives.torch_models.checkpoint import Checkpoint, load_checkpoint
from objectives.torch_models.folding import folded_modules
from objectives.torch_models.node_map import NodeMap, map_nodes
from objectives.torch_models.packages import chatter_to_stderr, require
from search_spaces.durable import durable_file, write_durably
from search_spaces.errors import InputError, nearest
from search_spaces.limits import scratch, step
from search_spaces.model_graph import ModelGraph

DEFAULT_OPSET = 17  # of the dialects that want no other
_EXPORT_SECONDS = 900.0
_PACKAGES = ("torch", "ultralytics", "onnx", "onnxslim")


@dataclass(frozen=True)
class ExportSettings:
    """How a checkpoint becomes an ONNX file.

    Attributes:
        head: One that can be exported; None for a one-to-one head where the checkpoint has one.
        opset: Opset of the file.
        image_size: Input height and width, pixels; None for the size it was trained with.
    """

    head: str | None = None
    opset: int = DEFAULT_OPSET
    image_size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.head is not None and self.head not in (known := exported_heads()):
            raise InputError(
                f"head {self.head!r}: a checkpoint is exported as {' or '.join(known)}{nearest(self.head, known)}"
            )
        if not 13 <= self.opset <= 20:
            raise InputError(f"opset {self.opset}: must be from 13, which has Q/DQ per channel, to 20")

    def end_to_end(self, checkpoint: Checkpoint) -> bool:
        """Whether the one-to-one head is exported.

        Raises:
            InputError: It was asked for, and the checkpoint has none.
        """
        wanted = HEADS.get(self.head).one_to_one if self.head is not None else None
        if wanted and not checkpoint.has_one_to_one_head:
            others = " or ".join(name for name in exported_heads() if not HEADS.get(name).one_to_one)
            raise InputError(f"{checkpoint.path}: has no one-to-one head to export end to end; choose head {others}")
        return checkpoint.has_one_to_one_head and wanted is not False


def exported_heads() -> list[str]:
    """Names of the heads that a checkpoint can be exported with."""
    return [name for name in HEADS.names() if HEADS.get(name).exported]


def export(checkpoint: Checkpoint, out: Path, settings: ExportSettings) -> NodeMap:
    """Writes the ONNX file of a checkpoint, whole or not at all.

    The same checkpoint, settings and package versions give the same bytes.

    Args:
        checkpoint: What to export.
        out: File to write.
        settings: How.

    Returns:
        The map of its modules to the file's layers.

    Raises:
        InputError: The settings do not fit the checkpoint, or `out` cannot be written.
    """
    from ultralytics.engine.exporter import Exporter

    end_to_end = settings.end_to_end(checkpoint)
    height, width = settings.image_size or (checkpoint.default_size,) * 2
    options = {
        "format": "onnx",
        "opset": settings.opset,
        "imgsz": [height, width],
        "batch": 1,
        "simplify": True,  # else it computes its own constant shapes, which hides the head and slows runtimes
        "nms": False if end_to_end else None,
        "device": "cpu",
    }
    require("onnxslim", str(checkpoint.path))  # Ultralytics only warns, and exports something else
    with scratch() as folder:
        module = _copy(checkpoint, Path(folder) / checkpoint.path.name)
        try:
            with chatter_to_stderr(), step(checkpoint.path, "its export", _EXPORT_SECONDS):
                found = Exporter(overrides=options)(model=module)
        except Exception as error:  # torch's exporter has classes of its own for what it cannot write
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise InputError(
                f"{checkpoint.path}: Ultralytics cannot export it at {height} x {width} pixels and opset "
                f"{settings.opset}: {lines[0]}; try another --image-size or --opset"
            ) from None
        model = onnx.load(found)
    kept = [entry for entry in model.metadata_props if entry.key != "date"]  # else two exports would differ
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    try:
        with durable_file(out) as draft:
            draft.write_bytes(model.SerializeToString(deterministic=True))
    except OSError as error:
        raise InputError(f"{str(out)!r}: cannot be written ({error.strerror})") from None
    return map_checkpoint(checkpoint, ModelGraph(out), end_to_end)


def map_checkpoint(checkpoint: Checkpoint, graph: ModelGraph, end_to_end: bool | None = None) -> NodeMap:
    """Maps a checkpoint's modules to the layers of any ONNX file, by their weights.

    Args:
        checkpoint: The torch model.
        graph: The ONNX model, exported from it or not.
        end_to_end: Which head to compare; None for the one that matches more layers.
    """
    if end_to_end is not None:
        return map_nodes(graph, folded_modules(checkpoint.fused(end_to_end)))
    heads = (True, False) if checkpoint.has_one_to_one_head else (False,)
    return max((map_checkpoint(checkpoint, graph, head) for head in heads), key=lambda found: len(found.matches))


def exported(path: Path, settings: ExportSettings) -> Path:
    """Returns the ONNX file of a checkpoint from the user's cache, exporting it where that was not done yet.

    Beside it lies ``FILE.map.json``, the verified map.

    Raises:
        InputError: The checkpoint is refused, or its export does not hold its weights.
        RuntimeUnavailable: The `torch` extra is missing.
    """
    checkpoint = load_checkpoint(path)
    facts = [checkpoint.digest, settings.end_to_end(checkpoint), settings.opset, settings.image_size]
    facts += [metadata.version(name) for name in _PACKAGES]
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
    folder = cache_home() / "exports" / key
    target = folder / f"{path.stem}.onnx"
    notes = folder / f"{path.stem}.onnx.map.json"
    if target.is_file() and notes.is_file():
        return target
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = export(checkpoint, target, settings)
    found.require_complete(str(path), str(target))
    write_durably(notes, json.dumps(found.to_json(), indent=1) + "\n")
    return target


def _copy(checkpoint: Checkpoint, path: Path) -> object:
    """A module that Ultralytics' exporter may change; it writes beside `path`."""
    import copy

    module = copy.deepcopy(checkpoint.module)
    module.pt_path = str(path)
    path.touch()  # the exporter tells its size
    return module
