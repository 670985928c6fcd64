"""Quantizes an ONNX model with NNCF, in an environment that has NNCF and nothing of this project.

python nncf_worker.py request.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import nncf
import numpy as np
import onnx
from numpy.typing import NDArray


def quantize(request: dict[str, Any]) -> None:
    """As NNCF's users do for detectors: asymmetric activations, box decoding left alone."""
    pixels, feed = np.load(request["pixels"], mmap_mode="r"), request["feed"]
    mean, std = (np.array(feed[key], np.float32).reshape(3, 1, 1) for key in ("mean", "std"))

    def fed(image: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        return {request["input"]: (image[None].astype(np.float32) / np.float32(feed["divisor"]) - mean) / std}

    made = nncf.quantize(
        onnx.load(request["model"]),
        nncf.Dataset(list(pixels), fed),
        preset=nncf.QuantizationPreset.MIXED,
        target_device=nncf.TargetDevice.CPU,
        subset_size=len(pixels),
        fast_bias_correction=request["fast"],
        ignored_scope=nncf.IgnoredScope(names=request["ignored"], validate=False),
    )
    onnx.save(made, request["out"])


if __name__ == "__main__":
    quantize(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
