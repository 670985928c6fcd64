"""A model of layers that do nothing but be there, for tests of the search with replayed scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def chain(path: Path, layers: int = 12) -> Path:
    """Writes a model of Conv layers in a row, each with its own weight."""
    draw = np.random.default_rng(0)
    nodes, weights, tensor = [], [], "images"
    for index in range(layers):
        channels = 3 if index == 0 else 4
        weight = draw.normal(size=(4, channels, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"model.{index}.conv.weight"))
        nodes.append(
            helper.make_node(
                "Conv",
                [tensor, weights[-1].name],
                [f"x{index}"],
                f"/model.{index}/conv/Conv",
                pads=[1, 1, 1, 1],
            )
        )
        tensor = f"x{index}"
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 16, 16])],
        [helper.make_tensor_value_info(tensor, TensorProto.FLOAT, None)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path
