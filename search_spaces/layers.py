"""A layer: one node of the model that carries a weight, and whether its bit-width may be chosen."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

from search_spaces.formats import Format


@dataclass(frozen=True)
class Layer:
    """One Conv, ConvTranspose, Gemm or MatMul node.

    Attributes:
        name: The node's name, unique in its model.
        op: ONNX operator type.
        module: Dotted module path, e.g. ``model.2.m.0.cv1.conv``.
        weight: Name of the weight initializer; empty where there is none.
        weight_shape: Shape of the weight; Conv ``(out, in / groups, *kernel)``, ConvTranspose
            ``(in, out / groups, *kernel)``, Gemm ``(out, in)`` with transB else ``(in, out)``, MatMul ``(in, out)``.
        groups: Convolution groups; 1 elsewhere.
        channel_axis: Axis of `weight_shape` that holds the output channels.
        input: Name of the data input tensor.
        output: Name of the output tensor.
        input_shape: Shape of the data input for batch 1.
        output_shape: Shape of the output for batch 1.
        parameters: Elements of the weight (the bias is not counted: it is never quantized below 32 bits).
        macs: Multiply-accumulates for one image.
        reason: Why the layer is not quantizable; None if it is.
    """

    name: str
    op: str
    module: str
    weight: str
    weight_shape: tuple[int, ...]
    groups: int
    channel_axis: int
    input: str
    output: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    parameters: int
    macs: int
    reason: str | None = None

    @property
    def quantizable(self) -> bool:
        """Whether the search may choose this layer's format."""
        return self.reason is None

    @property
    def output_channels(self) -> int:
        """Channels of the output; the groups of a ConvTranspose share an axis of the weight."""
        return self.weight_shape[self.channel_axis] * (self.groups if self.op == "ConvTranspose" else 1)

    @property
    def depthwise(self) -> bool:
        """Whether every group has one input channel."""
        return self.op == "Conv" and self.groups > 1 and self.weight_shape[1] == 1

    @property
    def block_axis(self) -> int | None:
        """Axis of the weight that holds input channels, or None where blocks of them make no sense."""
        return None if self.op == "ConvTranspose" else 1 - self.channel_axis

    def lacks(self, fmt: Format) -> str:
        """Why the layer cannot have a format whose weights come in blocks of one size; empty where it can."""
        size, axis = fmt.weight.block_size, self.block_axis
        if not size:
            return ""
        if axis is None:
            return (
                f"a {self.op} has no blocks of {size} input channels, as {fmt.name} needs them; choose another format"
            )
        channels = self.weight_shape[axis]
        if channels % size:
            return f"{fmt.name} needs whole blocks of {size} input channels, not {channels}; choose another format"
        return ""

    @property
    def block(self) -> str:
        """The module that contains this layer's Conv module, e.g. ``model.2.m.0`` for ``model.2.m.0.cv1.conv``."""
        path = self.module.split(".")
        path = path[:-1] if path[-1] == "conv" and len(path) > 1 else path
        return ".".join(path[:-1]) or path[0]

    @property
    def stage(self) -> str:
        """The top-level stage: the path up to its first number, e.g. ``model.2``; else the first component."""
        match = re.match(r"^(.*?\.\d+)(?:\.|$)", self.module)
        return match.group(1) if match else self.module.split(".")[0]

    def to_json(self) -> dict[str, Any]:
        """Returns a JSON object of the attributes, plus ``quantizable``."""
        return {**asdict(self), "quantizable": self.quantizable}
