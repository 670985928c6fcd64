"""Exact rearrangements of a finished file's codes that ONNX Runtime's CPU kernels run faster.

They work on what stands between QuantizeLinear and DequantizeLinear, so no value changes. OpenVINO gains from neither
(yolov8n: 1 % and 35 % slower), so they are this runtime's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from search_spaces.model_graph import attribute
from search_spaces.names import FreshNames, names_in
from search_spaces.subgraphs import reads

_BYTES = (TensorProto.UINT8, TensorProto.INT8)
# Ways to say that every pixel is repeated, where the factors are whole: (coordinates, rounding).
_REPEATS = (
    (b"asymmetric", b"floor"),
    (b"half_pixel", b"round_prefer_floor"),
    (b"half_pixel", b"round_prefer_ceil"),
    (b"pytorch_half_pixel", b"round_prefer_floor"),
    (b"pytorch_half_pixel", b"round_prefer_ceil"),
)


def rearrange_codes(model: onnx.ModelProto, shapes: Mapping[str, Sequence[int]]) -> None:
    """All rearrangements, in place.

    Args:
        model: A Q/DQ model.
        shapes: Of the unquantized model's activations, as far as they are static.
    """
    codes = _Codes(model.graph, shapes)
    codes.widen_images()
    codes.repeat_pixels()
    codes.write()


class _Codes:
    """The Q/DQ pairs of a graph, between which operators are added.

    Args:
        graph: Changed in place.
        shapes: As `rearrange_codes` has them.
    """

    def __init__(self, graph: onnx.GraphProto, shapes: Mapping[str, Sequence[int]]) -> None:
        self._graph = graph
        self._shapes = shapes
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._outputs = {value.name for value in graph.output}
        self._tensor, self._node = map(FreshNames, names_in(graph))
        self._producer = {name: node for node in graph.node for name in node.output}
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in reads(node):
                self._readers.setdefault(name, []).append(node)
        self._before: dict[str, list[onnx.NodeProto]] = {}  # by the first output of the node that they stand before
        self._gone: set[str] = set()  # first outputs of nodes that are dropped

    def widen_images(self) -> None:
        """Gives every integer Conv of an image's three channels a fourth, with weights of 0.

        The convolution that copies no window takes channels by four (yolov8n, int8, 640 px, one thread of an AMD EPYC
        with AVX-512 VNNI: the stem takes 2.0 ms of 21, with four channels and their Pad 1.1). The weight is padded when
        the model loads; the file keeps it as it is.
        """
        for conv in [node for node in self._graph.node if node.op_type == "Conv"]:
            image, weight = (self._dequantized(name) for name in conv.input[:2])
            codes = self._constants.get(weight.input[0]) if weight is not None else None
            if (
                image is None
                or weight is None
                or codes is None
                or len(codes.dims) != 4
                or codes.dims[1] != 3
                or attribute(conv, "group", 1) != 1
                or not (self._bytes(image) and self._bytes(weight) and self._symmetric(weight))
            ):
                continue
            for place, pair in enumerate((image, weight)):
                wide = onnx.NodeProto()
                wide.CopyFrom(pair)
                wide.name, wide.output[0] = self._node(f"{pair.name}/wide"), self._tensor(f"{pair.output[0]}/wide")
                wide.input[0] = self._padded(pair.input[0], conv)
                self._stand_before(conv, wide)
                conv.input[place] = wide.output[0]

    def repeat_pixels(self) -> None:
        """Has every nearest Resize by whole factors between equal pairs repeat codes by two copies.

        They copy pixels and rows where Resize computes where each byte comes from (yolov8n as above: 1.2 ms of 21 with
        ONNX Runtime 1.24, 0.7 with 1.32, the copies 0.1). Integer convolutions keep channels last, so the
        transpositions meet theirs and vanish.
        """
        for resize in [node for node in self._graph.node if node.op_type == "Resize"]:
            before, after = self._dequantized(resize.input[0]), self._only_reader(resize.output[0])
            if (
                before is None
                or after is None
                or after.op_type != "QuantizeLinear"
                or before.input[1:] != after.input[1:]
                or not self._bytes(before)
            ):
                continue
            made = self._producer.get(before.input[0])
            shape = self._shapes.get(made.input[0], ()) if made is not None and made.op_type == "QuantizeLinear" else ()
            factors = self._factors(resize, shape)
            if factors is not None:
                self._repeat(before.input[0], shape, factors, after, resize.name)
                self._gone.update((resize.output[0], after.output[0]))

    def write(self) -> None:
        """Puts what was added into the graph, and drops the pairs that nothing reads any more."""
        if not self._before:
            return
        nodes: list[onnx.NodeProto] = []
        for node in self._graph.node:
            nodes += self._before.get(node.output[0], ())
            if node.output[0] not in self._gone:
                nodes.append(node)
        wanted = self._outputs.union(*map(reads, nodes))
        kept = [node for node in nodes if node.op_type != "DequantizeLinear" or node.output[0] in wanted]
        del self._graph.node[:]
        self._graph.node.extend(kept)

    def _repeat(
        self, codes: str, shape: Sequence[int], factors: tuple[int, int], after: onnx.NodeProto, stem: str
    ) -> None:
        """Makes what `after` makes of codes ``(N, C, H, W)``, each pixel as often as the factors say."""
        _, channels, height, width = shape
        high, wide = factors

        def add(op: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
            name = self._node(f"{stem}/{op}")
            node = helper.make_node(op, inputs, [output or self._tensor(name)], name=name, **attributes)
            self._stand_before(after, node)
            return str(node.output[0])

        def shaped(tensor: str, *sizes: int) -> str:
            return add("Reshape", [tensor, self._sizes(stem, sizes)])

        pixels = add("Transpose", [codes], perm=[0, 2, 3, 1])
        rows = shaped(add("Concat", [pixels] * wide, axis=3), 0, height, 1, width * wide * channels)
        image = shaped(add("Concat", [rows] * high, axis=2), 0, height * high, width * wide, channels)
        add("Transpose", [image], after.output[0], perm=[0, 3, 1, 2])

    def _factors(self, resize: onnx.NodeProto, shape: Sequence[int]) -> tuple[int, int] | None:
        """By how much a Resize of a shape repeats rows and columns; None where it does something else."""
        said = {entry.name: helper.get_attribute_value(entry) for entry in resize.attribute}
        how = (
            said.get("coordinate_transformation_mode", b"half_pixel"),
            said.get("nearest_mode", b"round_prefer_floor"),
        )
        stretched = said.get("keep_aspect_ratio_policy", b"stretch") == b"stretch"
        if said.get("mode", b"nearest") != b"nearest" or how not in _REPEATS or "axes" in said or not stretched:
            return None
        old, new = tuple(shape), tuple(self._shapes.get(resize.output[0], ()))
        if len(old) != 4 or len(new) != 4 or min(old[1:]) < 1:
            return None
        factors = new[2] // old[2], new[3] // old[3]
        if new != (*old[:2], old[2] * factors[0], old[3] * factors[1]) or 0 in factors:
            return None
        scales = resize.input[2] if len(resize.input) > 2 else ""
        # A scale of 2.4 makes 4 rows of 2, but other ones.
        exact = not scales or (
            scales in self._constants
            and numpy_helper.to_array(self._constants[scales]).tolist() in ([], [1, 1, *factors])
        )
        return factors if exact else None

    def _padded(self, codes: str, conv: onnx.NodeProto) -> str:
        """Codes ``(N, C, H, W)`` with one more channel, of the code 0."""
        name = self._node(f"{codes}/Pad")
        sizes = self._sizes(name, (0, 0, 0, 0, 0, 1, 0, 0))
        node = helper.make_node("Pad", [codes, sizes], [self._tensor(f"{codes}/padded")], name=name)
        self._stand_before(conv, node)
        return str(node.output[0])

    def _sizes(self, stem: str, sizes: Sequence[int]) -> str:
        held = numpy_helper.from_array(np.array(sizes, np.int64), self._tensor(f"{stem}/sizes"))
        self._graph.initializer.append(held)
        return held.name

    def _stand_before(self, node: onnx.NodeProto, new: onnx.NodeProto) -> None:
        self._before.setdefault(node.output[0], []).append(new)

    def _bytes(self, pair: onnx.NodeProto) -> bool:
        """Whether codes are integers of 8 bits: others have no such operators, or no integer kernel."""
        zero = self._constants.get(pair.input[2]) if len(pair.input) > 2 else None
        return zero is not None and zero.data_type in _BYTES

    def _symmetric(self, weight: onnx.NodeProto) -> bool:
        """Whether a weight's code 0 stands for 0, with one scale or one per output channel."""
        zero = self._constants[weight.input[2]]
        return not numpy_helper.to_array(zero).any() and (not zero.dims or attribute(weight, "axis", 1) == 0)

    def _dequantized(self, tensor: str) -> onnx.NodeProto | None:
        made = self._producer.get(tensor)
        return made if made is not None and made.op_type == "DequantizeLinear" else None

    def _only_reader(self, tensor: str) -> onnx.NodeProto | None:
        found = self._readers.get(tensor, [])
        return found[0] if len(found) == 1 and tensor not in self._outputs else None
