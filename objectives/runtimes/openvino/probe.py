"""What a device makes of a number format: a model of one layer is compiled, run, and compared with the unquantized one.

Element types that a device lists say nothing of what it computes in; the graph that it executes does.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import onnx

from objectives.quantization.calibration import CalibrationTable
from objectives.quantization.materialize import Materializer
from objectives.quantization.weights import WeightSettings
from objectives.runtimes.engine_builder import BuildError
from objectives.runtimes.openvino.compiling import compiled_of
from objectives.runtimes.openvino.dialect import OPENVINO
from objectives.runtimes.openvino.report import layer_times, read_layers
from objectives.runtimes.openvino.runner import OpenVinoRunner
from objectives.runtimes.openvino.settings import OpenVinoSettings
from objectives.runtimes.support import COMPUTES, Support, SupportKind
from search_spaces.allocation import Allocation
from search_spaces.errors import InputError
from search_spaces.formats import FORMATS, UNQUANTIZED
from search_spaces.limits import scratch
from search_spaces.model_graph import ModelGraph

_LAYER = "layer"
_CHANNELS = 64  # whole blocks of any format
_WRONG = 0.5  # of the mean magnitude: four bits leave about a tenth


@cache
def probed(fmt: str, settings: OpenVinoSettings) -> Support:
    """What the device does with a Conv in a format.

    Raises:
        RuntimeUnavailable: OpenVINO or the device is not there.
    """
    if fmt == UNQUANTIZED:
        return COMPUTES
    with scratch() as folder:
        graph = _one_layer(Path(folder) / "layer.onnx")
    table = CalibrationTable(graph.digest, "max", 0, {"max": {"images": (0.0, 1.0), "result": (-8.0, 8.0)}})
    made = Materializer(graph, table, OPENVINO, WeightSettings("rtn"))
    image = np.random.default_rng(0).random(graph.input_shape, dtype=np.float32)
    plain, model = (made.materialize(Allocation.of({_LAYER: name})).engine_model for name in (UNQUANTIZED, fmt))
    try:
        compiled = compiled_of(model, settings, {"PERF_COUNT": True})
        found, expected = (OpenVinoRunner(each).infer(image)[0] for each in (compiled, compiled_of(plain, settings)))
    except (BuildError, InputError) as error:
        return Support(SupportKind.IMPOSSIBLE, f"{settings.device_name} cannot run it: {error}")
    if np.abs(found - expected).mean() > _WRONG * np.abs(expected).mean():
        return Support(SupportKind.IMPOSSIBLE, f"{settings.device_name} computes wrong values with it")
    ran = read_layers(compiled.get_runtime_model(), layer_times(compiled), graph)[1].get(_LAYER, "")
    if FORMATS[fmt].quantizes_activation and ran == FORMATS[fmt].activation.name:
        return COMPUTES
    return Support(SupportKind.STORES, f"{settings.device_name} computes in {ran or 'floats'}: size only")


def _one_layer(path: Path) -> ModelGraph:
    """A Conv of random weights."""
    shape = [1, _CHANNELS, 16, 16]
    values = np.random.default_rng(0).normal(size=(_CHANNELS, _CHANNELS, 1, 1)).astype(np.float32) / _CHANNELS
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("images", "result")]
    node = onnx.helper.make_node("Conv", ["images", "weight"], ["result"], name=_LAYER)
    body = onnx.helper.make_graph([node], "layer", ends[:1], ends[1:], [onnx.numpy_helper.from_array(values, "weight")])
    onnx.save(onnx.helper.make_model(body, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), path)
    return ModelGraph(path)
