"""Ultralytics' own quantized ONNX of a checkpoint, by its own command line in a process of its own."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import onnx
import yaml

from objectives.tasks.detection.data.image_files import ImageRecord, read_image
from objectives.torch_models.checkpoint import Checkpoint
from objectives.torch_models.packages import SAFE_SETTINGS, require
from search_spaces.errors import InputError
from search_spaces.limits import scratch
from search_spaces.tools import run_tool

CHECKPOINT, CALIBRATION, COMMAND, MODEL, LOG = "checkpoint.pt", "calibration", "command.txt", "model.onnx", "log.txt"
LEAST_PIXELS = 10  # a side of fewer is left out of a data set by Ultralytics
_RUN = "from ultralytics.cfg import entrypoint; entrypoint()"  # what the script `yolo` does
_TAIL = 3


@dataclass(frozen=True)
class YoloExport:
    """One export.

    Attributes:
        model: The file.
        command: What was run, as a shell takes it; kept in ``command.txt`` beside it.
        seconds: Wall time.
    """

    model: Path
    command: str
    seconds: float


def yolo_export(
    checkpoint: Checkpoint,
    folder: Path,
    image_size: tuple[int, int],
    end_to_end: bool,
    calibration: Sequence[ImageRecord] = (),
) -> YoloExport:
    """Exports a checkpoint with ``quantize=8``; all else is as Ultralytics chooses it.

    Args:
        checkpoint: Trained with quantizers in it, or not.
        folder: New files go there: a copy of the checkpoint (an export lands beside it), the images, the model, the
            command, its log.
        image_size: Height and width, pixels.
        end_to_end: Whether the one-to-one head is exported, where the checkpoint has one.
        calibration: What ranges are taken from; empty where the checkpoint brings its ranges.

    Raises:
        InputError: An image cannot be read, or Ultralytics refuses the checkpoint; names its last lines.
        RuntimeUnavailable: A package that the export needs is missing.
    """
    require("onnxslim", str(checkpoint.path))  # Ultralytics only warns, and exports something else
    folder.mkdir(parents=True)
    shutil.copyfile(checkpoint.path, folder / CHECKPOINT)
    height, width = image_size
    options = {
        "model": CHECKPOINT,
        "format": "onnx",
        "quantize": "8",
        "imgsz": str(height) if height == width else f"[{height},{width}]",
        "device": "cpu",
    }
    if end_to_end and checkpoint.has_one_to_one_head:
        options["nms"] = "False"  # its word for the head that needs none
    if calibration:
        data = write_data_yaml(calibration, checkpoint.classes, folder / CALIBRATION)
        options["data"] = data.relative_to(folder).as_posix()
    words = ["export", *(f"{key}={value}" for key, value in options.items())]
    command = shlex.join(["yolo", *words])
    (folder / COMMAND).write_text(f"{command}\n", encoding="utf-8")
    started = time.perf_counter()
    with scratch() as settings, (folder / LOG).open("w", encoding="utf-8") as log:
        # Its settings file is the user's own: neither read nor written.
        environment = {**os.environ, **SAFE_SETTINGS, "YOLO_VERBOSE": "true", "YOLO_CONFIG_DIR": settings}
        code = run_tool(
            [sys.executable, "-c", _RUN, *words],
            f"{checkpoint.path}: Ultralytics' export",
            folder,
            log,
            env=environment,
        )
    seconds = time.perf_counter() - started
    made = list(folder.glob("*.onnx"))  # the name tells the number format, or does not
    if code != 0 or len(made) != 1:
        lines = (folder / LOG).read_text(encoding="utf-8", errors="replace").strip().splitlines()[-_TAIL:]
        raise InputError(f"{checkpoint.path}: Ultralytics cannot export it with quantize=8: {' | '.join(lines)}")
    if not any(node.op_type == "QuantizeLinear" for node in onnx.load(made[0]).graph.node):
        raise InputError(f"{checkpoint.path}: Ultralytics quantized nothing; see {folder / LOG}")
    made[0].replace(folder / MODEL)
    return YoloExport(folder / MODEL, command, seconds)


def write_data_yaml(images: Sequence[ImageRecord], classes: Sequence[str], folder: Path) -> Path:
    """Writes images as a data set of Ultralytics' without labels, in their order.

    The pixels are written again, without loss: whatever Ultralytics would have skipped is an error here.

    Args:
        images: The records.
        classes: Class names by index.
        folder: New; holds ``data.yaml`` and ``images/``.

    Returns:
        The ``data.yaml``; its paths are relative to it.

    Raises:
        InputError: A file is no picture, or one that is too small for Ultralytics.
    """
    (folder / "images").mkdir(parents=True)
    for place, record in enumerate(images):
        pixels = read_image(record.path)
        if pixels is None:
            raise InputError(f"{record.path}: cannot be read as an image; restore it, or remove it from the list")
        if min(pixels.shape[:2]) < LEAST_PIXELS:
            size = "x".join(map(str, pixels.shape[1::-1]))
            raise InputError(f"{record.path}: {size} pixels; Ultralytics takes none below {LEAST_PIXELS}; remove it")
        (folder / "images" / f"{place:06}.png").write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    content = {"train": "images", "val": "images", "names": dict(enumerate(classes))}
    path = folder / "data.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return path
