"""ModelOpt's post-training quantization of an ONNX file, by its own command line."""

from __future__ import annotations

import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from objectives.tasks.detection.data.preprocessed import PreprocessedImages
from objectives.torch_models.packages import require
from search_spaces.errors import InputError, nearest
from search_spaces.tools import run_tool

MODES = ("int8", "fp8")
METHODS = ("max", "entropy")
CALIBRATION, COMMAND, MODEL, LOG = "calibration.npy", "command.txt", "model.onnx", "log.txt"
_TAIL = 3


@dataclass(frozen=True)
class OnnxPtq:
    """One answer of ModelOpt.

    Attributes:
        model: The file.
        command: What was run, as a shell takes it; kept in ``command.txt`` beside it.
        seconds: Wall time.
    """

    model: Path
    command: str
    seconds: float


def check_choice(mode: str, method: str) -> None:
    """Refuses what the command line does not know.

    Raises:
        InputError: The mode is not of `MODES`, or the method not of `METHODS`.
    """
    for value, known in ((mode, MODES), (method, METHODS)):
        if value not in known:
            raise InputError(f"ModelOpt ONNX {value!r}: is not one of {', '.join(known)}{nearest(value, known)}")


def quantize_onnx(model: Path, images: PreprocessedImages, mode: str, method: str, folder: Path) -> OnnxPtq:
    """Writes the calibration tensor that the command line wants, and runs it.

    Args:
        model: The unquantized ONNX file.
        images: Calibration images; ``calibration.npy`` holds them as (n, 3, H, W), float32 in [0, 1].
        mode: ``int8`` or ``fp8``.
        method: ``max`` or ``entropy``.
        folder: New files go there: the tensor, the model, the command, its log.

    Raises:
        InputError: Mode or method is unknown, or ModelOpt refuses the model; names its last lines.
        RuntimeUnavailable: ModelOpt is missing.
    """
    check_choice(mode, method)
    require("modelopt.onnx", "ModelOpt's ONNX quantization")
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / CALIBRATION, images.batch(0, len(images)))
    # --dq_only: weights are stored in 8 bits, else its file is as large as the unquantized one.
    words = [
        sys.executable, "-m", "modelopt.onnx.quantization", f"--onnx_path={model.resolve()}",
        f"--quantize_mode={mode}", f"--calibration_method={method}", f"--calibration_data_path={CALIBRATION}",
        "--calibration_eps", "cpu", "--dq_only", f"--output_path={MODEL}", "--high_precision_dtype=fp32",
    ]  # fmt: skip
    command = shlex.join(["python", *words[1:]])
    (folder / COMMAND).write_text(f"{command}\n", encoding="utf-8")
    started = time.perf_counter()
    with (folder / LOG).open("w", encoding="utf-8") as log:
        code = run_tool(words, f"{model}: ModelOpt", folder, log)
    seconds = time.perf_counter() - started
    if code != 0 or not (folder / MODEL).is_file():
        lines = (folder / LOG).read_text(encoding="utf-8", errors="replace").strip().splitlines()[-_TAIL:]
        raise InputError(f"{model}: ModelOpt cannot quantize it to {mode} ({method}): {' | '.join(lines)}")
    return OnnxPtq(folder / MODEL, command, seconds)
