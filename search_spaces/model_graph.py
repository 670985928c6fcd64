"""An ONNX detector: its nodes, tensors, shapes and layers, and the edges between quantizable layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from search_spaces.errors import InputError
from search_spaces.layers import Layer
from search_spaces.limits import step
from search_spaces.normalisations.folding import LAYER_OPS, fold_shapes, fold_sizes
from search_spaces.onnx_file import dims, read_model
from search_spaces.reading import literal
from search_spaces.shapes import with_shapes
from search_spaces.subgraphs import inner_graphs, reads


class ModelGraph:
    """One ONNX model with a fixed batch, named nodes and inferred shapes.

    Attributes:
        path: Where the model was read.
        digest: SHA-256 of the file (and of its external data), hex; another one for every batch above 1, and for an
            image size that only the caller says.
        sized: Height and width, pixels, that the file leaves open and the model here has; None where it fixes them, or
            nothing says them.
        model: The normalised model: nodes have unique names, constants are initializers, the batch is fixed.
        narrow: Whether the file is in half precision; `model` is in float32 all the same.
        shapes: ``{tensor: shape}`` for every activation whose shape is static.
        initializers: ``{name: array}``.
        producer: ``{tensor: node}``.
        consumers: ``{tensor: nodes that read it}``.
        holders: Names of the nodes that hold graphs, which few do: what they read takes a look into each.
        layers: All nodes that could carry a weight, in model order, each with the reason if it is not quantizable.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        allow_quantized: bool = False,
        batch: int = 1,
        image_size: tuple[int, int] | None = None,
    ) -> None:
        """Reads and checks a model.

        Args:
            path: The ONNX file.
            allow_quantized: Accept a model that holds Q/DQ nodes, to score or time it.
            batch: Images of one inference.
            image_size: Height and width, pixels, of a model that leaves them open; None for what its metadata states.

        Raises:
            InputError: The file is missing, truncated, not an ONNX model, already quantized, not float32, its graph
                holds one image only, or takes no images of that size.
        """
        self.path = Path(path)
        try:
            with step(self.path, "reading its graph"):
                self._read(allow_quantized, batch, image_size)
        except InputError:
            raise
        except Exception as error:  # a model may contradict itself wherever it is looked at
            reason = " ".join(str(error).split()) or type(error).__name__
            raise InputError(f"{self.path}: not a valid ONNX model: {reason[:300]}; export it again") from None

    def _read(self, allow_quantized: bool, batch: int, image_size: tuple[int, int] | None) -> None:
        self._batch = batch
        read = read_model(self.path, allow_quantized, batch, image_size)
        self.model, self.digest, self.narrow, self.sized = read.model, read.digest, read.narrow, read.sized
        try:
            self.model = with_shapes(self.model)
            while self._folded():  # more shapes may be known then
                self.model = with_shapes(self.model)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            line = str(error).strip().splitlines()[0]
            if batch > 1:
                advice = "export it with a dynamic batch (dynamic=True)"
                raise InputError(f"{self.path}: its graph cannot take {batch} images: {line}; {advice}") from None
            if self.sized is not None:
                height, width = self.sized
                raise InputError(
                    f"{self.path}: takes no images of {height} x {width}: {line}; give another --image-size "
                    "(model.image_size), a multiple of its largest stride, e.g. 640"
                ) from None
            raise InputError(f"{self.path}: not a valid ONNX model: {line}; export it again") from None
        graph = self.model.graph
        self.initializers: dict[str, NDArray[np.generic]] = {
            tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer
        }
        self.shapes = _static_shapes(graph)
        if batch > 1 and any(shape[:1] != (batch,) for shape in self.outputs.values()):
            raise InputError(
                f"{self.path}: its graph does not carry {batch} images to its outputs; "
                "export it with a dynamic batch (dynamic=True)"
            )
        self.producer = {name: node for node in graph.node for name in node.output if name}
        self.consumers: dict[str, list[onnx.NodeProto]] = {}
        self.holders = frozenset(node.name for node in graph.node if any(inner_graphs(node)))
        for node in graph.node:
            for name in dict.fromkeys(reads(node)):
                self.consumers.setdefault(name, []).append(node)
        self.layers = tuple(layer for node in graph.node for layer in self._layers_of(node))

    def _folded(self) -> bool:
        """Folds what follows from the shapes that are known, and what decides those that are not."""
        shapes = _static_shapes(self.model.graph)
        return any([fold_shapes(self.model, shapes), fold_sizes(self.model, shapes)])

    @property
    def input(self) -> str:
        """Name of the image input, shape ``(batch, channels, height, width)``."""
        return self._image_input.name

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the image input; height and width are 0 where the model leaves them open.

        An input without a batch, (3, H, W), has the batch 1 here; runners take that one off.
        """
        shape = dims(self._image_input)
        return shape if len(shape) == 4 else (1, *shape)

    @property
    def _image_input(self) -> onnx.ValueInfoProto:
        image: onnx.ValueInfoProto = self.model.graph.input[0]
        return image

    @property
    def outputs(self) -> dict[str, tuple[int, ...]]:
        """``{output name: shape}``; open dimensions are 0."""
        return {value.name: dims(value) for value in self.model.graph.output}

    @property
    def opset(self) -> int:
        """Opset of the default domain."""
        versions = (entry.version for entry in self.model.opset_import if entry.domain in ("", "ai.onnx"))
        return int(next(versions))

    def in_own_types(self) -> onnx.ModelProto:
        """The model as its file computes: in half precision where `narrow`, with float32 inputs and outputs."""
        if not self.narrow:
            return self.model
        return read_model(self.path, True, self._batch, self.sized, own_types=True).model

    def with_known_shapes(self, values: Sequence[onnx.ValueInfoProto]) -> ModelGraph:
        """The same graph, to look at and not to run: without weights in `model`, and with more shapes.

        Args:
            values: Tensors with their types and shapes, in the place of what inference left open.
        """
        seen, known = copy(self), {value.name: value for value in values}
        own, graph = self.model, onnx.GraphProto()
        graph.node.extend(own.graph.node)
        graph.input.extend(own.graph.input)
        graph.output.extend(known.pop(value.name, value) for value in own.graph.output)
        graph.value_info.extend(known.pop(value.name, value) for value in own.graph.value_info)
        graph.value_info.extend(known.values())
        seen.model = onnx.ModelProto(graph=graph, opset_import=own.opset_import, metadata_props=own.metadata_props)
        seen.shapes = {**self.shapes, **{value.name: dims(value) for value in values}}
        return seen

    @property
    def note(self) -> str:
        """A line on how the file was read, where that is not as it is; else empty."""
        return f"{self.path}: is in half precision; read as float32, without its Casts" if self.narrow else ""

    @cached_property
    def metadata(self) -> dict[str, str]:
        """The model's metadata properties (Ultralytics writes names, stride, imgsz, end2end there)."""
        return {entry.key: entry.value for entry in self.model.metadata_props}

    @cached_property
    def class_names(self) -> dict[int, str]:
        """Class names from the metadata; empty where there are none."""
        names = literal(self.metadata.get("names", "{}"))
        if isinstance(names, (list, tuple)):
            names = dict(enumerate(names))
        if not isinstance(names, dict) or not all(str(key).isdecimal() and len(str(key)) < 9 for key in names):
            return {}
        return {int(key): str(name) for key, name in names.items()}

    @cached_property
    def quantizable(self) -> tuple[Layer, ...]:
        """The quantizable layers, in model order."""
        return tuple(layer for layer in self.layers if layer.quantizable)

    @cached_property
    def edges(self) -> tuple[tuple[str, str], ...]:
        """Pairs ``(a, b)``: quantizable layer b reads the output of a, directly or through other operators."""
        names = {layer.name for layer in self.quantizable}
        readers = [node for node in self.nodes() if node.name in names]
        return tuple(
            (layer.name, node.name)
            for node, above in zip(readers, map(self.layers_above, readers), strict=True)
            for layer in self.quantizable
            if layer.name in above
        )

    def layers_above(self, node: onnx.NodeProto) -> frozenset[str]:
        """Names of the quantizable layers whose outputs a node reads, directly or through other operators."""
        return frozenset().union(*(self._sources.get(name, frozenset()) for name in reads(node)))

    @cached_property
    def _sources(self) -> dict[str, frozenset[str]]:
        """``{tensor: names of the quantizable layers that it comes from, directly or through other operators}``."""
        names = {layer.name for layer in self.quantizable}
        sources: dict[str, frozenset[str]] = {}
        for node in self.nodes():
            above = frozenset().union(*(sources.get(name, frozenset()) for name in reads(node)))
            sources.update(dict.fromkeys(node.output, frozenset([node.name]) if node.name in names else above))
        return sources

    def nodes(self) -> Iterator[onnx.NodeProto]:
        """Nodes in topological order."""
        return iter(self.model.graph.node)

    def _layers_of(self, node: onnx.NodeProto) -> Iterator[Layer]:
        """The layer that a node is, and those in its inner graphs, which nothing quantizes."""
        if node.op_type in LAYER_OPS:
            yield self._layer(node)
        for graph in inner_graphs(node):
            for inner in graph.node:
                for layer in self._layers_of(inner):
                    name = f"{node.name}/{graph.name}/{layer.name}"
                    yield replace(layer, name=name, reason=f"inside a branch or body of {node.op_type} {node.name!r}")

    def _layer(self, node: onnx.NodeProto) -> Layer:
        constant = [index for index, name in enumerate(node.input[:2]) if name in self.initializers]
        weight_index = 1 if 1 in constant or node.op_type != "MatMul" else (constant[0] if constant else 1)
        weight = node.input[weight_index] if constant else ""
        data = node.input[1 - weight_index] if node.op_type == "MatMul" else node.input[0]
        shape: tuple[int, ...] = self.initializers[weight].shape if weight in self.initializers else ()
        if not constant and node.input[1] not in self._images:
            shape = self.shapes.get(node.input[1], ())  # computed by what is never folded
        groups = int(attribute(node, "group", 1))
        inputs, output = self.shapes.get(data, ()), self.shapes.get(node.output[0], ())
        parameters = int(np.prod(shape)) if shape else 0
        axis = _channel_axis(node, len(shape))
        return Layer(
            name=node.name,
            op=node.op_type,
            module=_module(node),
            weight=weight,
            weight_shape=tuple(int(d) for d in shape),
            groups=groups,
            channel_axis=axis,
            input=data,
            output=node.output[0],
            input_shape=inputs,
            output_shape=output,
            parameters=parameters,
            macs=_macs(node.op_type, inputs, output, parameters, shape, axis, groups),
            reason=self._reason(node, weight, data),
        )

    def _reason(self, node: onnx.NodeProto, weight: str, data: str) -> str | None:
        if node.domain:
            return f"an operator of {node.domain}, not ONNX's own"
        if weight not in self.initializers:
            return self._computed(node)
        if data in self.initializers:
            return "constant: no input depends on the image"
        array = self.initializers[weight]
        if array.dtype != np.float32:
            return f"weight is {array.dtype}, not float32"
        users = [user.name for user in self.consumers[weight] for name in reads(user) if name == weight]
        if len(users) > 1:
            others = ", ".join(name for name in users if name != node.name)
            return f"shared weight: also read by {others or 'the same node'}"
        if is_bin_expectation(array):
            return "DFL: fixed weights 0, 1, ... that turn bin probabilities into a distance"
        if node.op_type == "Gemm" and (attribute(node, "alpha", 1.0) != 1.0 or attribute(node, "transA", 0)):
            return "Gemm with alpha or transA"
        if node.op_type == "MatMul" and (array.ndim != 2 or node.input[1] != weight):
            return "MatMul whose weight is not a matrix on the right"
        if not np.isfinite(array).all():
            return "weight holds NaN or infinity"
        return None

    def _computed(self, node: onnx.NodeProto) -> str:
        """Why a layer has no constant weight."""
        for name in reversed(node.input[:2]):
            if name not in self._images:
                maker = self.producer[name]
                return f"no constant weight: {maker.op_type} {maker.name!r} computes it from other constants"
        return "no constant weight: both inputs are activations"

    @cached_property
    def _images(self) -> frozenset[str]:
        """Tensors that depend on the image."""
        found = {self.input}
        for node in self.nodes():
            if not found.isdisjoint(reads(node)):
                found.update(node.output)
        return frozenset(found)


def is_bin_expectation(weight: NDArray[np.generic]) -> bool:
    """Whether a weight is the fixed ramp 0, 1, ..., n - 1 of a distribution focal loss head (DFL).

    Found by its values, because exporters name the node differently. Source: Li et al., "Generalized Focal Loss",
    2020: a box side is the expectation of a discrete distribution over integer bins.

    Args:
        weight: Any shape.
    """
    flat = np.asarray(weight).ravel()
    return flat.size >= 4 and max(weight.shape) == flat.size and bool(np.array_equal(flat, np.arange(flat.size)))


def attribute(node: onnx.NodeProto, name: str, default: float | int) -> float | int:
    """Returns a scalar attribute of a node, or `default`."""
    for entry in node.attribute:
        if entry.name == name:
            value: float | int = onnx.helper.get_attribute_value(entry)
            return value
    return default


def _static_shapes(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    """``{tensor: shape}`` of every activation whose shape is known and static."""
    values = (*graph.input, *graph.value_info, *graph.output)
    known = [value for value in values if value.type.tensor_type.HasField("shape")]
    return {value.name: dims(value) for value in known if 0 not in dims(value)}


def _channel_axis(node: onnx.NodeProto, rank: int) -> int:
    if node.op_type in ("ConvTranspose", "MatMul"):
        return max(rank - 1, 0) if node.op_type == "MatMul" else 1
    return 0 if node.op_type == "Conv" or attribute(node, "transB", 0) else 1


def _macs(
    op: str,
    inputs: tuple[int, ...],
    output: tuple[int, ...],
    parameters: int,
    shape: tuple[int, ...],
    axis: int,
    groups: int,
) -> int:
    if not output or not parameters:
        return int(np.prod(output) * inputs[-1]) if op == "MatMul" and output and inputs else 0
    if op == "Conv":
        return int(np.prod(output[2:])) * parameters
    if op == "ConvTranspose":
        return int(np.prod(inputs[2:])) * parameters
    return int(np.prod(output)) // int(shape[axis]) * parameters


def _module(node: onnx.NodeProto) -> str:
    scopes = next((entry.value for entry in node.metadata_props if entry.key == "pkg.torch.onnx.name_scopes"), "")
    if scopes:
        found = literal(scopes)
        names = [name for name in found if name] if isinstance(found, (list, tuple)) else []
        if len(names) > 1:
            return str(names[-2])
    path = [part for part in node.name.strip("/").split("/") if part]
    if len(path) < 2:
        return node.name
    # Ultralytics names are nested: /model.2/m.0/cv1/conv/Conv, and Sequential repeats its parent's name.
    modules: list[str] = []
    for part in path[:-1]:
        if modules and part.startswith(modules[-1] + "."):
            modules[-1] = part
        else:
            modules.append(part)
    return ".".join(modules)
