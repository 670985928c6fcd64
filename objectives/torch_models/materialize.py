"""Materializes a scheme in torch: ModelOpt's quantizers per layer, exported to ONNX with Q/DQ."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from objectives.torch_models.checkpoint import Checkpoint
from objectives.torch_models.node_map import NodeMap
from objectives.torch_models.packages import require_modelopt, silence
from objectives.torch_models.quantizers import PER_CHANNEL, scheme_config
from search_spaces.allocation import Allocation
from search_spaces.durable import durable_file
from search_spaces.errors import InputError
from search_spaces.formats import FORMATS
from search_spaces.limits import scratch

OPSET = 17


def materialize_torch(
    checkpoint: Checkpoint,
    nodes: NodeMap,
    allocation: Allocation,
    images: Sequence[NDArray[np.float32]],
    out: Path,
    *,
    end_to_end: bool,
    metadata: Mapping[str, str],
    granularity: str = PER_CHANNEL,
) -> None:
    """Writes the Q/DQ model of a scheme, quantized and exported by torch.

    Args:
        checkpoint: The torch model.
        nodes: Its modules by ONNX layer; complete.
        allocation: A format per layer.
        images: Calibration batches, (1, 3, H, W), float32 in [0, 1]; ModelOpt takes the largest magnitude.
        out: File to write, whole or not at all.
        end_to_end: Which head to export.
        metadata: Class names and image size, as the unquantized export has them.
        granularity: Of the weight scales, ``per_channel`` or ``per_layer``.

    Raises:
        InputError: A format of the scheme has no Q/DQ form in torch's exporter (only int8 has one everywhere).
        RuntimeUnavailable: ModelOpt is missing.
    """
    formats = {nodes.module_of[layer]: name for layer, name in allocation.items}
    for layer, name in allocation.items:
        fmt = FORMATS[name]
        if max(fmt.weight.opset, fmt.activation.opset) > OPSET:
            raise InputError(
                f"scheme: {name} of layer {layer!r} cannot be exported from torch to ONNX Q/DQ; torch materializes "
                "fp16, int8 and w8a16"
            )
    require_modelopt("materialize by torch")
    import modelopt.torch.quantization as mtq
    import torch

    module = _exportable(checkpoint.fused(end_to_end))
    batches = [torch.from_numpy(np.ascontiguousarray(image)) for image in images]

    def calibrate(model: Any) -> None:
        for batch in batches:
            model(batch)

    with silence(), warnings.catch_warnings(), torch.no_grad(), scratch() as folder:
        warnings.simplefilter("ignore")
        mtq.quantize(module, scheme_config(formats, granularity), calibrate)
        draft = Path(folder) / "model.onnx"
        torch.onnx.export(
            module,
            (batches[0],),
            str(draft),
            opset_version=OPSET,
            input_names=["images"],
            output_names=["output0"],
            dynamo=False,
        )
        model = onnx.load(draft)
    onnx.helper.set_model_props(model, dict(metadata))
    with durable_file(out) as draft:
        draft.write_bytes(model.SerializeToString(deterministic=True))


def _exportable(module: Any) -> Any:
    """Sets the modules as Ultralytics' exporter does: the decoded output alone, splits instead of chunks."""
    from ultralytics.nn.modules import C2f, Detect

    for part in module.modules():
        if isinstance(part, Detect):
            part.export, part.format, part.dynamic = True, "onnx", False
        elif isinstance(part, C2f):
            part.forward = part.forward_split
    return module
