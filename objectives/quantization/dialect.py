"""Dialects: what a runtime's reader wants of an ONNX graph, as data. Each lies in its runtime's folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import onnx

from objectives.quantization.calibration import CalibrationTable
from objectives.quantization.placement import PlacementRules
from search_spaces.formats import Format
from search_spaces.layers import Layer
from search_spaces.model_graph import ModelGraph


def _never(layer: Layer, fmt: Format) -> bool:
    return False


def _nothing(fmt: Format) -> str:
    return ""


def _as_it_is(model: onnx.ModelProto, shapes: Mapping[str, Sequence[int]]) -> None:
    pass


@dataclass(frozen=True)
class Dialect:
    """One way to write a quantized graph.

    Attributes:
        name: For messages.
        placement: The rules of its Q/DQ pairs, for a model and the ranges of its activations.
        rewrite: Changes a model in place, at the opset that it is given, before pairs are placed: exact rearrangements.
        finish: Changes a finished model in place, given the static shapes of the unquantized one's activations: exact
            rearrangements of its codes.
        half_graph: The graph's own types are fp16, pixel coordinates aside, and decide what the engine computes in.
        half_weights: Unquantized weights are stored as fp16 and cast when the model loads.
        unpacked_at_load: Quantized weights that no integer kernel reads are written so that they are unpacked once.
        saturates: Values beyond an fp8 grid must be clipped by the graph.
        scale_bytes: Bytes of a stored weight scale; None: as its own type has.
        least_opset: The graph's opset is at least this.
        highest_opset: A model above it is brought down to it; None: none is.
        export_opset: What a checkpoint is exported with.
        flat_blocks: A weight whose scales are shared by blocks is stored with its kernel taps on one axis, so that the
            blocked axis is the second-last, and reshaped behind its DequantizeLinear.
        unpacks: Whether the engine builder must be given a layer's quantized weights unpacked.
        refuses: Why the reader cannot have a format; empty where it can.
    """

    name: str
    placement: Callable[[ModelGraph, CalibrationTable], PlacementRules]
    rewrite: Callable[[onnx.ModelProto, int], None]
    finish: Callable[[onnx.ModelProto, Mapping[str, Sequence[int]]], None] = _as_it_is
    half_graph: bool = False
    half_weights: bool = False
    unpacked_at_load: bool = False
    saturates: bool = False
    flat_blocks: bool = False
    scale_bytes: int | None = None
    least_opset: int = 0
    highest_opset: int | None = None
    export_opset: int = 17
    unpacks: Callable[[Layer, Format], bool] = _never
    refuses: Callable[[Format], str] = _nothing
