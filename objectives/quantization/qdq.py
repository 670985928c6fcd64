"""Writes Q/DQ pairs and quantized weights into a graph, one tensor at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from objectives.quantization.grid import code_type
from objectives.quantization.weights import QuantizedWeight
from search_spaces.formats import NumberSpec, get_number


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
        return QuantParams(scale, int(np.clip(round(-low / scale), 0, top)), _onnx_type(number.unsigned_onnx))

    @staticmethod
    def symmetric(low: float, high: float, number: NumberSpec) -> QuantParams:
        """Over ``[-m, m]``, m = max(-low, high), with m at the largest code."""
        return QuantParams(max(-low, high, 1e-10) / number.largest, 0, _onnx_type(number.onnx))


class QdqWriter:
    """Collects the nodes and initializers that a placement adds; each tensor gets at most one Q/DQ pair.

    Attributes:
        nodes: Added nodes, each before its first reader.
        initializers: Added initializers.
    """

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._constants: dict[tuple[float, int, int], tuple[str, str]] = {}

    def activation(self, tensor: str, params: QuantParams, label: str = "") -> str:
        """Adds Q and DQ after `tensor` and returns the name that quantized readers read."""
        scale, zero = self._scale_and_zero(params)
        stem = f"{tensor}{label}"
        self.nodes.append(
            helper.make_node("QuantizeLinear", [tensor, scale, zero], [f"{stem}_q"], name=f"{stem}_QuantizeLinear")
        )
        self.nodes.append(
            helper.make_node(
                "DequantizeLinear",
                [f"{stem}_q", scale, zero],
                [f"{stem}_dq"],
                name=f"{stem}_DequantizeLinear",
            )
        )
        return f"{stem}_dq"

    def saturate(self, tensor: str, params: QuantParams, limit: float) -> str:
        """Adds a Min with the largest value of a pair whose largest code is `limit`, and returns its output.

        It changes no value that the pair keeps. Without it ONNX Runtime 1.24 takes ``DQ -> Conv -> Q`` of fp8 for an
        integer Conv and then refuses the model that it made itself; a Clip there makes its loader fail.
        """
        self.array(f"{tensor}_largest", np.asarray(np.float32(params.scale) * np.float32(limit), np.float32))
        inputs = [tensor, f"{tensor}_largest"]
        self.nodes.append(helper.make_node("Min", inputs, [f"{tensor}_saturated"], name=f"{tensor}_Min"))
        return f"{tensor}_saturated"

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
        inputs = [self._codes(name, weight), self._block_scales(name, weight)]
        zero_shape = weight.scale.shape
        zero = helper.make_tensor(
            f"{name}_zero_point",
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
        self.nodes.append(
            helper.make_node(
                "DequantizeLinear",
                [*inputs, zero.name],
                [f"{name}_dequantized"],
                name=f"{name}_DequantizeLinear",
                **extra,
            )
        )
        return f"{name}_dequantized"

    def _block_scales(self, name: str, weight: QuantizedWeight) -> str:
        """Adds the scales of a weight, float32 whatever it stores: the type of a DQ's output is its scale's."""
        if not weight.tensor_scale:
            self.array(f"{name}_scale", weight.scale.astype(np.float32))
            return f"{name}_scale"
        self._scale_codes(name, weight)
        self.array(f"{name}_tensor_scale", np.float32(weight.tensor_scale))
        inputs = [f"{name}_scale", f"{name}_tensor_scale"]
        output = f"{name}_block_scale"
        self.nodes.append(helper.make_node("DequantizeLinear", inputs, [output], name=f"{output}_DequantizeLinear"))
        return output

    def _scale_codes(self, name: str, weight: QuantizedWeight) -> None:
        """Adds the scales of blocks as multiples of the weight's one scale, in their own format."""
        assert weight.scale_number is not None
        codes = (weight.scale / np.float32(weight.tensor_scale)).astype(code_type(weight.scale_number))
        kind = _onnx_type(weight.scale_number.onnx)
        self.initializers.append(helper.make_tensor(f"{name}_scale", kind, codes.shape, codes.tobytes(), raw=True))

    def folded_weight(self, name: str, weight: QuantizedWeight) -> str:
        """Adds a quantized weight for a layer that computes in float, as Cast and Mul (Reshapes around it by block).

        ONNX Runtime never folds a DequantizeLinear and would run it on every inference (yolov10s: 15 to 20 % slower);
        Cast and Mul of constants it folds once, when it loads. Floats of less than a byte it does not know (1.24):
        their bits are the places of their values in a table.
        """
        small = not weight.number.is_integer and weight.number.packing > 1
        codes = self._codes(name, weight, f"UINT{weight.number.bits}" if small else weight.number.onnx)
        target = TensorProto.INT32 if small else TensorProto.FLOAT
        cast, scale = self._cast(codes, f"{name}_cast", target, name), weight.scale
        if small:
            places = np.arange(2**weight.number.bits, dtype=np.uint8)
            self.array(f"{name}_values", places.view(code_type(weight.number)).astype(np.float32))
            inputs, cast = [f"{name}_values", cast], f"{name}_looked_up"
            self.nodes.append(helper.make_node("Gather", inputs, [cast], name=f"{name}_Gather"))
        if weight.block_size:
            assert weight.axis is not None
            axis, shape = weight.axis, list(weight.codes.shape)
            blocked = [*shape[:axis], -1, weight.block_size, *shape[axis + 1 :]]
            cast = self._reshape(cast, blocked, f"{name}_blocks")
            scale = np.expand_dims(scale, axis + 1)
        elif weight.axis is not None:
            scale = scale.reshape([-1 if axis == weight.axis else 1 for axis in range(weight.codes.ndim)])
        factor = f"{name}_scale"
        if weight.tensor_scale:
            self._scale_codes(name, replace(weight, scale=scale))
            self.array(f"{name}_tensor_scale", np.float32(weight.tensor_scale))
            inputs = [self._cast(factor, f"{factor}_cast", TensorProto.FLOAT, f"{factor}_cast"), f"{name}_tensor_scale"]
            factor = f"{name}_block_scale"
            self.nodes.append(helper.make_node("Mul", inputs, [factor], name=f"{factor}_Mul"))
        else:
            self.array(factor, scale)
            if scale.dtype == np.float16:
                factor = self._cast(factor, f"{factor}_cast", TensorProto.FLOAT, f"{factor}_cast")
        self.nodes.append(helper.make_node("Mul", [cast, factor], [f"{name}_scaled"], name=f"{name}_Mul"))
        if weight.block_size:
            return self._reshape(f"{name}_scaled", list(weight.codes.shape), f"{name}_dequantized")
        return f"{name}_scaled"

    def _reshape(self, tensor: str, shape: list[int], output: str) -> str:
        self.array(f"{output}_shape", np.asarray(shape, np.int64))
        inputs = [tensor, f"{output}_shape"]
        self.nodes.append(helper.make_node("Reshape", inputs, [output], name=f"{output}_Reshape"))
        return output

    def _cast(self, tensor: str, output: str, target: int, label: str) -> str:
        self.nodes.append(helper.make_node("Cast", [tensor], [output], name=f"{label}_Cast", to=target))
        return output

    def _codes(self, name: str, weight: QuantizedWeight, kind: str = "") -> str:
        """Adds codes, as ONNX's type `kind` of the same size where one is named."""
        self.initializers.append(_codes_tensor(f"{name}_quantized", weight, kind or weight.number.onnx))
        return f"{name}_quantized"

    def bias(self, name: str, bias: NDArray[np.float32], input_scale: float, weight: QuantizedWeight) -> str:
        """Adds an int32 bias with scale = input scale x weight scale, as integer kernels need it."""
        scale = np.asarray(np.float32(input_scale) * weight.scale, dtype=np.float32)
        codes = np.clip(np.rint(bias.astype(np.float64) / scale), -(2**31) + 1, 2**31 - 1).astype(np.int32)
        self.array(f"{name}_quantized", codes)
        self.array(f"{name}_scale", scale)
        self.array(f"{name}_zero_point", np.zeros(scale.shape, np.int32))
        extra: dict[str, Any] = {"axis": 0} if scale.ndim else {}
        self.nodes.append(
            helper.make_node(
                "DequantizeLinear",
                [f"{name}_quantized", f"{name}_scale", f"{name}_zero_point"],
                [f"{name}_dequantized"],
                name=f"{name}_DequantizeLinear",
                **extra,
            )
        )
        return f"{name}_dequantized"

    def half(self, name: str, weight: NDArray[np.float32]) -> str:
        """Stores an unquantized weight as fp16 with a Cast, which every runtime folds when it loads."""
        self.array(f"{name}_half", weight.astype(np.float16))
        return self._cast(f"{name}_half", f"{name}_float", TensorProto.FLOAT, name)

    def array(self, name: str, values: NDArray[np.generic]) -> None:
        """Adds an initializer."""
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(values).reshape(values.shape), name))

    def take(self) -> Sequence[onnx.NodeProto]:
        """Returns the nodes added since the last call."""
        nodes, self.nodes = self.nodes, []
        return nodes

    def _scale_and_zero(self, params: QuantParams) -> tuple[str, str]:
        key = (params.scale, params.zero_point, params.elem_type)
        if key not in self._constants:
            stem = f"activation_{len(self._constants)}"
            self.array(f"{stem}_scale", np.asarray(params.scale, np.float32))
            kind = params.elem_type
            bits = get_number(TensorProto.DataType.Name(kind)).bits
            value = (params.zero_point & (2**bits - 1)).to_bytes(-(-bits // 8), "little")
            self.initializers.append(helper.make_tensor(f"{stem}_zero_point", kind, (), value, raw=True))
            self._constants[key] = (f"{stem}_scale", f"{stem}_zero_point")
        return self._constants[key]


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
