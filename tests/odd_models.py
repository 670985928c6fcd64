"""Small image models as exporters write them: the same network in many forms, for tests of what is read and written.

A `Form` says how; the network itself is decided by the numbers that are drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Draw = Callable[[int], int]  # 0 <= draw(n) < n

#: How a weight may reach its layer.
ROUTES = (
    "direct", "listed", "constant", "floats", "sparse", "identity", "transpose", "reshape", "cast", "mul", "unsqueeze",
    "concat", "slice", "split", "where",
)  # fmt: skip
#: Names that a quantizer may want to give.
WANTED = ("_quantized", "_scale", "_zero_point", "_dequantized", "_bias_quantized", "_half", "_q", "_dq", "_cast")


@dataclass(frozen=True)
class Form:
    """How a network is written.

    Attributes:
        opset: Of the default domain.
        routes: How weights reach their layers, in turn.
        names: ``own``, ``none``, ``same`` (all nodes alike), or ``taken`` (tensors called as a quantizer would).
        wrap: What blocks are wrapped in, in turn: ``""``, ``function``, ``nested``, ``if``.
    """

    opset: int = 17
    routes: tuple[str, ...] = ("direct",)
    names: str = "own"
    wrap: tuple[str, ...] = ("",)


class Net:
    """Collects one model."""

    def __init__(self, form: Form, draw: Draw, seed: int = 0) -> None:
        self.form, self.draw = form, draw
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.arrays: list[onnx.TensorProto] = []
        self.sparse: list[onnx.SparseTensorProto] = []
        self.listed: list[onnx.ValueInfoProto] = []
        self.functions: dict[str, onnx.FunctionProto] = {}
        self.layers = 0
        self.inside = 0
        self.shadows: list[str] = []
        self._blocks = 0

    def array(self, name: str, value: np.ndarray) -> str:
        self.arrays.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def op(self, kind: str, inputs: list[str], name: str, outputs: int = 1, **attributes) -> str:
        made = [name if i == 0 else f"{name}:{i}" for i in range(outputs)]
        label = {"none": "", "same": "node"}.get(self.form.names, f"n/{name}")
        self.nodes.append(helper.make_node(kind, inputs, made, name=label, **attributes))
        return name

    def axes(self, kind: str, x: str, axis: int, name: str) -> str:
        """Squeeze or Unsqueeze, whose axes became an input with opset 13."""
        if self.form.opset < 13:
            return self.op(kind, [x], name, axes=[axis])
        return self.op(kind, [x, self.array(f"{name}.axes", np.array([axis]))], name)

    def weight(self, name: str, *shape: int) -> str:
        """A weight behind whatever its route puts before it."""
        spread = 1.2 / np.sqrt(np.prod(shape[1:]))
        value = self.random.normal(0, spread, shape).astype(np.float16).astype(np.float32)
        route = self.form.routes[self.layers % len(self.form.routes)]
        self.layers += 1
        if self.form.names == "taken":
            for end in WANTED:
                self.shadow(f"{name}{end}")
        return self.route(route, name, value)

    def route(self, route: str, name: str, value: np.ndarray) -> str:
        raw = f"{name}.raw"
        if route == "listed":
            self.listed.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, value.shape))
        elif route == "constant":
            return self.op("Constant", [], name, value=numpy_helper.from_array(value))
        elif route == "floats" and self.form.opset >= 12:
            flat = self.op("Constant", [], raw, value_floats=value.ravel().tolist())
            return self.op("Reshape", [flat, self.array(f"{name}.shape", np.array(value.shape))], name)
        elif route == "sparse":
            places = np.arange(value.size, dtype=np.int64)
            parts = numpy_helper.from_array(value.ravel(), name), numpy_helper.from_array(places, f"{name}.places")
            self.sparse.append(helper.make_sparse_tensor(*parts, list(value.shape)))
            return name
        elif route == "identity":
            first = self.op("Identity", [self.array(raw, value)], f"{name}.first")
            return self.op("Identity", [first], name)
        elif route == "transpose":
            turned = self.array(raw, np.ascontiguousarray(value.T))
            return self.op("Transpose", [turned], name, perm=list(range(value.ndim))[::-1])
        elif route == "reshape":
            shape = self.op("Constant", [], f"{name}.shape", value=numpy_helper.from_array(np.array(value.shape)))
            return self.op("Reshape", [self.array(raw, value.reshape(-1)), shape], name)
        elif route == "cast":
            return self.op("Cast", [self.array(raw, value.astype(np.float16))], name, to=TensorProto.FLOAT)
        elif route == "mul":
            half = self.array(raw, value * 2)
            return self.op("Mul", [half, self.array(f"{name}.gain", np.float32(0.5))], name)
        elif route == "unsqueeze":
            wide = self.axes("Unsqueeze", self.array(raw, value), 0, f"{name}.wide")
            return self.axes("Squeeze", wide, 0, name)
        elif route == "concat":
            parts = [self.array(f"{raw}{i}", part) for i, part in enumerate((value[:1], value[1:])) if len(part)]
            return self.op("Concat", parts, name, axis=0)
        elif route == "slice":
            more = self.array(raw, np.concatenate([value, value]))
            ends = [self.array(f"{name}.{k}", np.array([n])) for k, n in (("from", len(value)), ("to", 2 * len(value)))]
            return self.op("Slice", [more, *ends], name)
        elif route == "split":
            both = self.array(raw, np.concatenate([value, value * 3]))
            extra = {"num_outputs": 2} if self.form.opset >= 18 else {}
            return self.op("Split", [both], name, outputs=2, axis=0, **extra)
        elif route == "where":
            mask = self.array(f"{name}.mask", value > 0)
            return self.op("Where", [mask, self.array(raw, value), self.array(f"{name}.other", value)], name)
        return self.array(name, value)

    def shadow(self, name: str) -> None:
        """A tensor of the model with a name that a quantizer would give."""
        self.shadows.append(self.array(name, np.zeros(1, np.float32)))

    def conv(self, x: str, cin: int, cout: int, *, up: bool = False) -> str:
        """Conv or ConvTranspose with its activation, wrapped as the form says."""
        groups = [g for g in (1, 2, 4) if cin % g == cout % g == 0][self.draw(8) % 2 if cin > 3 else 0]
        wrap = self.form.wrap[self._blocks % len(self.form.wrap)]
        self._blocks += 1
        name = f"b{self._blocks}"
        kernel = 2 if up else (1, 3)[self.draw(2)]
        shape = (cin, cout // groups, 2, 2) if up else (cout, cin // groups, kernel, kernel)
        weight = self.weight(f"{name}.w", *shape)
        bias = self.array(f"{name}.b", self.random.normal(0, 0.1, cout).astype(np.float32))
        kind = "ConvTranspose" if up else "Conv"
        pads = {"strides": [2, 2]} if up else {"pads": [kernel // 2] * 4}
        settings = {"kernel_shape": [kernel] * 2, "group": groups, **pads}
        choice = ([x, weight, bias], [x, weight], [x, weight, ""])[self.draw(3)]
        if wrap in ("function", "nested"):
            return self.op(self._function(kind, settings, wrap == "nested"), [x, weight, bias], name, domain="mine")
        if wrap == "if":
            return self._branches(kind, choice, settings, name)
        y = self.op(kind, choice, f"{name}.y", **settings)
        return self.op("Mul", [y, self.op("Sigmoid", [y], f"{name}.gate")], name)

    def _function(self, kind: str, settings: dict, nested: bool) -> str:
        name = f"{kind}{'Nested' if nested else ''}{len(self.functions)}"
        imports = [helper.make_opsetid("", self.form.opset), helper.make_opsetid("mine", 1)]
        layer = helper.make_node(kind, ["x", "w", "b"], ["c"], name="layer", **settings)
        if nested:
            inner = f"{name}Inner"
            self.functions[inner] = helper.make_function("mine", inner, ["x", "w", "b"], ["c"], [layer], imports[:1])
            layer = helper.make_node(inner, ["x", "w", "b"], ["c"], domain="mine")
        body = [layer, helper.make_node("Sigmoid", ["c"], ["s"]), helper.make_node("Mul", ["c", "s"], ["y"])]
        self.functions[name] = helper.make_function("mine", name, ["x", "w", "b"], ["y"], body, imports)
        return name

    def _branches(self, kind: str, inputs: list[str], settings: dict, name: str) -> str:
        """The layer in both branches of an If, reading its weight from outside."""
        self.inside += 2
        zero = self.array(f"{name}.zero", np.float32(0))
        total = self.op("ReduceMax", [inputs[0]], f"{name}.max", keepdims=0)
        yes = self.op("Greater", [total, zero], f"{name}.yes")
        graphs = {}
        for branch in ("then", "else"):
            out = f"{name}.{branch}"
            body = [helper.make_node(kind, inputs, [f"{out}.c"], name="layer", **settings)]
            body.append(helper.make_node("Relu", [f"{out}.c"], [out], name="act"))
            value = helper.make_tensor_value_info(out, TensorProto.FLOAT, [None] * 4)
            graphs[f"{branch}_branch"] = helper.make_graph(body, branch, [], [value])
        return self.op("If", [yes], name, **graphs)

    def save(self, path: Path, output: str, size: int, rank: int) -> Path:
        for name in self.shadows:
            output = self.op("Add", [output, name], f"{name}.added")
        self.nodes.append(helper.make_node("Identity", [output], ["output"], name=""))
        image = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, size, size])
        made = helper.make_tensor_value_info("output", TensorProto.FLOAT, [None] * rank)
        graph = helper.make_graph(self.nodes, "g", [*self.listed, image], [made], self.arrays)
        graph.sparse_initializer.extend(self.sparse)
        imports = [helper.make_opsetid("", self.form.opset)]
        imports += [helper.make_opsetid("mine", 1)] if self.functions else []
        model = helper.make_model(graph, opset_imports=imports, ir_version=8 if self.form.opset < 19 else 10)
        model.functions.extend(self.functions.values())
        onnx.checker.check_model(model)
        onnx.save(model, path)
        return path


def build(path: Path, form: Form, draw: Draw, seed: int = 0, size: int = 8) -> Net:
    """Writes a random network in a form, and returns what it was made of.

    Convolutions (grouped, transposed), residual sums, concatenations and pooling, then matrix products with a bias.
    """
    net, given = Net(form, draw, seed), size
    x, channels = net.conv("images", 3, 8), 8
    for index in range(1 + draw(4)):
        kind = draw(5)
        if kind == 0:
            x = net.op("Add", [x, net.conv(x, channels, channels)], f"sum{index}")
        elif kind == 1:
            x, channels = net.op("Concat", [x, net.conv(x, channels, 4)], f"cat{index}", axis=1), channels + 4
        elif kind == 2 and size <= 16:
            x, channels, size = net.conv(x, channels, 8, up=True), 8, size * 2
        elif kind == 3:
            x = net.op("MaxPool", [x], f"pool{index}", kernel_shape=[3, 3], pads=[1] * 4, strides=[1, 1])
        else:
            x, channels = net.conv(x, channels, 8), 8
    rank = 3
    flat = net.op("Reshape", [x, net.array("rows", np.array([1, channels, -1]))], "flat")
    if draw(2):
        tokens = net.op("Transpose", [flat], "tokens", perm=[0, 2, 1])
        product = net.op("MatMul", [tokens, net.weight("linear.w", channels, 6)], "linear")
        flat = net.op(
            "Add", [product, net.array("linear.b", net.random.normal(0, 0.1, 6).astype(np.float32))], "biased"
        )
    elif draw(2):
        rows = net.op("ReduceMean", [x], "mean", axes=[2, 3], keepdims=0) if form.opset < 18 else net.op(
            "ReduceMean", [x, net.array("mean.axes", np.array([2, 3]))], "mean", keepdims=0)  # fmt: skip
        bias = net.array("gemm.b", net.random.normal(0, 0.1, ((5,), (1, 5), ())[draw(3)]).astype(np.float32))
        flat = net.op("Gemm", [rows, net.weight("gemm.w", 5, channels), bias], "gemm", transB=1)
        rank = 2
    net.save(path, flat, given, rank)
    return net
