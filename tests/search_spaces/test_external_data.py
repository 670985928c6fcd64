"""Weights outside the file: what will be read is known before."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from search_spaces.errors import InputError
from search_spaces.external_data import bound_external_data
from search_spaces.model_graph import ModelGraph

_BYTES = 8 * 3 * 3 * 3 * 4


def _model(folder: Path, *, copies: int = 1, dims: tuple[int, ...] = (8, 3, 3, 3), **stated: object) -> Path:
    weights = []
    for index in range(copies):
        weight = TensorProto(name=f"w{index}", data_type=TensorProto.FLOAT, dims=dims, data_location="EXTERNAL")
        for key, value in {"location": "w.bin", **stated}.items():
            weight.external_data.add(key=key, value=str(value))
        weights.append(weight)
    nodes = [helper.make_node("Conv", ["images", "w0"], ["out"])]
    borders = [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 8, 8])]
    outputs = [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "g", borders, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    return folder / "m.onnx"


@pytest.mark.parametrize("stated", [{}, {"length": _BYTES}, {"offset": 0}])
def test_weights_beside_the_file_are_read(tmp_path: Path, stated: dict[str, int]) -> None:
    (tmp_path / "w.bin").write_bytes(np.full(_BYTES // 4, 2.0, np.float32).tobytes())
    graph = ModelGraph(_model(tmp_path, **stated))
    assert graph.initializers["w0"].shape == (8, 3, 3, 3) and (graph.initializers["w0"] == 2).all()


def test_of_a_file_without_end_the_tensor_alone_is_read(tmp_path: Path) -> None:
    with (tmp_path / "w.bin").open("wb") as file:
        file.truncate(200 << 30)
    assert (ModelGraph(_model(tmp_path)).initializers["w0"] == 0).all()


@pytest.mark.parametrize("length", [100 << 30, _BYTES + 1, -5, "much", "9" * 5000])
def test_a_length_that_is_not_the_tensors_is_refused(tmp_path: Path, length: object) -> None:
    with (tmp_path / "w.bin").open("wb") as file:
        file.truncate(200 << 30)
    with pytest.raises(InputError, match=r"m\.onnx: external data of 'w0' has length .* takes 864 bytes; export"):
        ModelGraph(_model(tmp_path, length=length))


def test_all_of_them_must_fit_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(_BYTES))
    monkeypatch.setenv("TUNER_MEMORY_GIB", "0.000003")  # 3 KB
    ModelGraph(_model(tmp_path))
    with pytest.raises(InputError, match=r"comes to 1728 bytes \(at most 1073 bytes here\).*TUNER_MEMORY_GIB"):
        ModelGraph(_model(tmp_path, copies=2))


def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "w.bin")
    with pytest.raises(InputError, match=r"external data"):
        ModelGraph(_model(tmp_path))


def test_a_shape_beyond_all_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(_BYTES))
    with pytest.raises(InputError, match="at most"):
        ModelGraph(_model(tmp_path, dims=(2**40, 2**40)))
    with pytest.raises(InputError, match="export it again"):
        ModelGraph(_model(tmp_path, dims=(-1, 3)))


def test_four_bits_are_packed(tmp_path: Path) -> None:
    tensor = onnx.TensorProto(name="w", data_type=TensorProto.INT4, dims=[3, 5], data_location="EXTERNAL")
    bound_external_data([tensor], tmp_path / "m.onnx")
    assert tensor.external_data[0].value == "8"
