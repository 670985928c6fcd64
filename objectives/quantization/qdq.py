"""Writes Q/DQ pairs and quantized weights into a graph, one tensor at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from objectives.quantization.grid import code_type
from objectives.quantization.weights import QuantizedWeight
from search_spaces.formats import NumberSpec, get_number
from search_spaces.names import FreshNames, names_in


@dataclass(frozen=True)
class QuantParams:
    """Scale and zero point of one activation tensor.

    Attributes:
        scale: Positive step.
        zero_point: In the range of `elem_type`.
        elem_type: Of ``TensorProto``, e.g. ``UINT8``, ``INT8`` or ``FLOAT8E4M3FN``.
    """

    scale: float
    zero_point: int
    elem_type: int

    @staticmethod
    def unsigned(low: float, high: float, number: NumberSpec) -> QuantParams:
        """Affine unsigned integers over ``[low, high]``, which contains 0."""
        top = 2**number.bits - 1
        scale = max((high - low) / top, 1e-12)
        return QuantParams(scale, int(min(max(round(-low / scale), 0), top)), _onnx_type(number.unsigned_onnx))

    @staticmethod
    def symmetric(low: float, high: float, number: NumberSpec) -> QuantParams:
        """Over ``[-m, m]``, m = max(-low, high), with m at the largest code."""
        return QuantParams(max(-low, high, 1e-10) / number.largest, 0, _onnx_type(number.onnx))


class QdqWriter:
    """Collects the nodes and initializers that a placement adds; each tensor gets at most one Q/DQ pair.

    What is added is named after what it belongs to; where the model has that name already, a number follows it.

    Args:
        graph: What the nodes are added to.
        initializers: Names of initializers that it does not hold yet.

    Attributes:
        nodes: Added nodes, each before its first reader.
        initializers: Added initializers.
    """

    def __init__(self, graph: onnx.GraphProto, initializers: Iterable[str] = ()) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._constants: dict[tuple[float, int, int], tuple[str, str]] = {}
        tensors, nodes = names_in(graph)
        self._tensor, self._node = FreshNames(tensors.union(initializers)), FreshNames(nodes)

    def activation(self, tensor: str, params: QuantParams, label: str = "") -> str:
        """Adds Q and DQ after `tensor` and returns the name that quantized readers read."""
        scale, zero = self._scale_and_zero(params)
        stem = f"{tensor}{label}"
        codes = self._add("QuantizeLinear", [tensor, scale, zero], f"{stem}_q", f"{stem}_QuantizeLinear")
        return self._add("DequantizeLinear", [codes, scale, zero], f"{stem}_dq", f"{stem}_DequantizeLinear")

    def saturate(self, tensor: str, params: QuantParams, limit: float) -> str:
        """Adds a Min with the largest value of a pair whose largest code is `limit`, and returns its output.

        It changes no value that the pair keeps. Without it ONNX Runtime 1.24 takes ``DQ -> Conv -> Q`` of fp8 for an
        integer Conv and then refuses the model that it made itself; a Clip there makes its loader fail.
        """
        top = np.asarray(np.float32(params.scale) * np.float32(limit), np.float32)
        largest = self.array(f"{tensor}_largest", top)
        return self._add("Min", [tensor, largest], f"{tensor}_saturated", f"{tensor}_Min")

    def weight(self, name: str, weight: QuantizedWeight, flat: bool = False) -> str:
        """Adds a quantized weight with its DQ and returns the float name that the layer reads.

        Args:
            name: Of the unquantized weight.
            weight: Its codes and scales.
            flat: Whether all axes behind a blocked one become one, which a Reshape behind the DQ takes back.
        """
        shape = list(weight.codes.shape)
        if flat and weight.block_size and weight.axis is not None and len(shape) > weight.axis + 2:
            weight = weight.flattened()
            return self._reshape(self.weight(name, weight), shape, f"{name}_shaped")
        codes, scale = self._codes(name, weight), self._block_scales(name, weight)
        zero_shape = weight.scale.shape
        zero = helper.make_tensor(
            self._tensor(f"{name}_zero_point"),
            _onnx_type(weight.number.onnx),
            zero_shape,
            b"\0" * _packed_bytes(int(np.prod(zero_shape)), weight.number),
            raw=True,
        )
        self.initializers.append(zero)
        extra: dict[str, Any] = {}
        if weight.block_size:
            assert weight.axis is not None
            extra = {"axis": weight.axis, "block_size": weight.block_size}
        elif weight.axis is not None:
            extra = {"axis": weight.axis}
        return self._add(
            "DequantizeLinear",
            [codes, scale, zero.name],
            f"{name}_dequantized",
            f"{name}_DequantizeLinear",
            **extra,
        )

    def _block_scales(self, name: str, weight: QuantizedWeight) -> str:
        """Adds the scales of a weight, float32 whatever it stores: the type of a DQ's output is its scale's."""
        if not weight.tensor_scale:
            return self.array(f"{name}_scale", weight.scale.astype(np.float32))
        codes = self._scale_codes(name, weight)
        common = self.array(f"{name}_tensor_scale", np.float32(weight.tensor_scale))
        output = f"{name}_block_scale"
        return self._add("DequantizeLinear", [codes, common], output, f"{output}_DequantizeLinear")

    def _scale_codes(self, name: str, weight: QuantizedWeight) -> str:
        """Adds the scales of blocks as multiples of the weight's one scale, in their own format."""
        assert weight.scale_number is not None
        codes = (weight.scale / np.float32(weight.tensor_scale)).astype(code_type(weight.scale_number))
        kind, stored = _onnx_type(weight.scale_number.onnx), self._tensor(f"{name}_scale")
        self.initializers.append(helper.make_tensor(stored, kind, codes.shape, codes.tobytes(), raw=True))
        return stored

    def folded_weight(self, name: str, weight: QuantizedWeight) -> str:
        """Adds a quantized weight for a layer that computes in float, as Cast and Mul (Reshapes around it by block).

        ONNX Runtime never folds a DequantizeLinear and would run it on every inference (yolov10s: 15 to 20 % slower);
        Cast and Mul of constants it folds once, when it loads. Floats of less than a byte it does not know (1.24):
        their bits are the places of their values in a table.
        """
        number = unpacked_from(weight.number)
        small = number != weight.number
        codes = self._codes(name, weight, number.unsigned_onnx if small else number.onnx)
        target = TensorProto.INT32 if small else TensorProto.FLOAT
        cast, scale = self._cast(codes, f"{name}_cast", target, name), weight.scale
        if small:
            places = np.arange(2**weight.number.bits, dtype=np.uint8)
            values = self.array(f"{name}_values", places.view(code_type(weight.number)).astype(np.float32))
            cast = self._add("Gather", [values, cast], f"{name}_looked_up", f"{name}_Gather")
        if weight.block_size:
            assert weight.axis is not None
            axis, shape = weight.axis, list(weight.codes.shape)
            blocked = [*shape[:axis], -1, weight.block_size, *shape[axis + 1 :]]
            cast = self._reshape(cast, blocked, f"{name}_blocks")
            scale = np.expand_dims(scale, axis + 1)
        elif weight.axis is not None:
            scale = scale.reshape([-1 if axis == weight.axis else 1 for axis in range(weight.codes.ndim)])
        wide = f"{name}_scale_cast"
        if weight.tensor_scale:
            factor = self._scale_codes(name, replace(weight, scale=scale))
            common = self.array(f"{name}_tensor_scale", np.float32(weight.tensor_scale))
            inputs, output = [self._cast(factor, wide, TensorProto.FLOAT, wide), common], f"{name}_block_scale"
            factor = self._add("Mul", inputs, output, f"{output}_Mul")
        else:
            factor = self.array(f"{name}_scale", scale)
            if scale.dtype == np.float16:
                factor = self._cast(factor, wide, TensorProto.FLOAT, wide)
        scaled = self._add("Mul", [cast, factor], f"{name}_scaled", f"{name}_Mul")
        if weight.block_size:
            return self._reshape(scaled, list(weight.codes.shape), f"{name}_dequantized")
        return scaled

    def _reshape(self, tensor: str, shape: list[int], output: str) -> str:
        target = self.array(f"{output}_shape", np.asarray(shape, np.int64))
        return self._add("Reshape", [tensor, target], output, f"{output}_Reshape")

    def _cast(self, tensor: str, output: str, target: int, label: str) -> str:
        return self._add("Cast", [tensor], output, f"{label}_Cast", to=target)

    def _codes(self, name: str, weight: QuantizedWeight, kind: str = "") -> str:
        """Adds codes, as ONNX's type `kind` of the same size where one is named."""
        tensor = _codes_tensor(self._tensor(f"{name}_quantized"), weight, kind or weight.number.onnx)
        self.initializers.append(tensor)
        return tensor.name

    def bias(self, name: str, bias: NDArray[np.float32], scale: NDArray[np.float32]) -> str:
        """Adds an int32 bias, as integer kernels need it.

        Args:
            name: What its tensors are called by.
            bias: Float; its codes must fit (`biases.with_room`).
            scale: Input scale x weight scale, `biases.bias_scale`.
        """
        codes = self.array(f"{name}_quantized", np.rint(bias.astype(np.float64) / scale).astype(np.int32))
        step = self.array(f"{name}_scale", scale)
        zero = self.array(f"{name}_zero_point", np.zeros(scale.shape, np.int32))
        extra: dict[str, Any] = {"axis": 0} if scale.ndim else {}
        return self._add(
            "DequantizeLinear", [codes, step, zero], f"{name}_dequantized", f"{name}_DequantizeLinear", **extra
        )

    def half(self, name: str, weight: NDArray[np.float32]) -> str:
        """Stores an unquantized weight as fp16 with a Cast, which every runtime folds when it loads."""
        half = self.array(f"{name}_half", weight.astype(np.float16))
        return self._cast(half, f"{name}_float", TensorProto.FLOAT, name)

    def array(self, name: str, values: NDArray[np.generic]) -> str:
        """Adds an initializer, and returns the name that it got."""
        name = self._tensor(name)
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(values).reshape(values.shape), name))
        return name

    def _add(self, op: str, inputs: list[str], output: str, name: str, **attributes: Any) -> str:
        """Adds a node, and returns the name that its output got."""
        output = self._tensor(output)
        self.nodes.append(helper.make_node(op, inputs, [output], name=self._node(name), **attributes))
        return output

    def take(self) -> Sequence[onnx.NodeProto]:
        """Returns the nodes added since the last call."""
        nodes, self.nodes = self.nodes, []
        return nodes

    def _scale_and_zero(self, params: QuantParams) -> tuple[str, str]:
        key = (params.scale, params.zero_point, params.elem_type)
        if key not in self._constants:
            stem = f"activation_{len(self._constants)}"
            scale = self.array(f"{stem}_scale", np.asarray(params.scale, np.float32))
            zero = self._tensor(f"{stem}_zero_point")
            kind = params.elem_type
            bits = get_number(TensorProto.DataType.Name(kind)).bits
            value = (params.zero_point & (2**bits - 1)).to_bytes(-(-bits // 8), "little")
            self.initializers.append(helper.make_tensor(zero, kind, (), value, raw=True))
            self._constants[key] = (scale, zero)
        return self._constants[key]


def unpacked_from(number: NumberSpec) -> NumberSpec:
    """The number format whose type holds the codes of a `QdqWriter.folded_weight`: of a small float, its bits."""
    return get_number(f"UINT{number.bits}") if not number.is_integer and number.packing > 1 else number


@cache
def _onnx_type(name: str) -> int:
    return int(TensorProto.DataType.Value(name))


def _packed_bytes(elements: int, number: NumberSpec) -> int:
    return -(-elements * number.bits // 8)


def _codes_tensor(name: str, weight: QuantizedWeight, kind: str) -> onnx.TensorProto:
    codes = np.ascontiguousarray(weight.codes)
    number, each = weight.number, weight.number.packing
    if each > 1:  # the first element in the lowest bits
        whole = codes.astype(np.uint8) if number.is_integer else codes.view(np.uint8)
        flat = whole.ravel() & np.uint8(2**number.bits - 1)
        flat = np.append(flat, np.zeros(-flat.size % each, np.uint8))
        packed = flat[::each]
        for place in range(1, each):  # a loop: NumPy reduces along a short axis three times slower
            packed = packed | (flat[place::each] << np.uint8(number.bits * place))
        raw = packed.tobytes()
    else:
        raw = codes.tobytes()
    return helper.make_tensor(name, _onnx_type(kind), codes.shape, raw, raw=True)
