"""Weights that keep their layer's output: GPTQ codes and a bias that takes up the mean error, for a whole model."""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import onnx
from numpy.typing import NDArray

from objectives.quantization.calibration import UNREACHED
from objectives.quantization.columns import Geometry, as_rows, from_rows, read_columns, read_geometry
from objectives.quantization.gptq import Means, Moments
from objectives.quantization.grid import code_type
from objectives.quantization.scales import Sharing
from objectives.quantization.stages import lowest, split_stages, with_weights
from objectives.quantization.weights import QuantizedWeight, WeightSettings, quantize_weight, weight_key
from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner
from search_spaces.durable import write_durably
from search_spaces.errors import InputError
from search_spaces.formats import Format, NumberSpec, get_number
from search_spaces.layers import Layer
from search_spaces.model_graph import ModelGraph
from search_spaces.plugins import without_plugins

_SAMPLES = 512  # positions of one image: enough for every layer's K at 32 images, a small part of the large maps
_BUDGET = 800 * 2**20  # bytes of moments held at once; a model with more is gone through in several passes


@dataclass(frozen=True)
class Recovered:
    """One weight.

    Attributes:
        weight: Codes and scales.
        shift: What is added to the bias, float32 ``(output channels,)``; None where the layer has no place for it.
    """

    weight: QuantizedWeight
    shift: NDArray[np.float32] | None


class _Activity(Protocol):
    """What `gptq.Activity` and `gptq_torch.Activity` have in common, as `_Moments` for the sums that they come from."""

    def search(
        self, weight: NDArray[np.float32], scale: NDArray[np.float32], sharing: Sharing, number: NumberSpec
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]: ...


class _Means(Protocol):
    def add(self, columns: NDArray[np.float32]) -> None: ...

    @property
    def finite(self) -> bool: ...

    @property
    def mean(self) -> NDArray[np.float64]: ...


@runtime_checkable
class _Moments(_Means, Protocol):
    def activity(self, centred: bool) -> _Activity: ...


def recover(
    graph: ModelGraph,
    images: Callable[[], Iterable[NDArray[np.float32]]],
    wanted: Sequence[tuple[Layer, Format]],
    settings: WeightSettings,
    progress: Callable[[int], None] | None = None,
    threads: int = 0,
) -> dict[str, Recovered]:
    """Quantizes weights for the least error of their layers' outputs on calibration images.

    The scales of gptq are searched by that error too (`scales.search`), from those of plain rounding (largest weight =
    largest code); clipping them by weight error loses mAP on detectors. The Hessian is that of the full-precision
    inputs, centred where a bias takes up the mean error; with ``settings.sequential``, that of the inputs that the
    weights of all earlier stages leave. A layer that is wanted in several formats is in the one of fewest bits there;
    biases then keep the mean output on those inputs, and nothing aims at the full-precision output itself.

    Args:
        graph: The unquantized model.
        images: Opens the stream of images, ``(1, 3, H, W)`` float32 in [0, 1]; called once per pass.
        wanted: Layers and the formats that they may get; the weight counts, not the activation.
        settings: Granularity, block size, stages, and the device that solves; the inference stays on the CPU.
        progress: Called with the number of weights done.
        threads: Of the inference; 0 leaves the choice to ONNX Runtime.

    Returns:
        ``{weight_key: weight}``.

    Raises:
        InputError: No image, an input that is not finite, or the device is not there.
    """
    make = _maker(settings.device)
    nodes = {node.name: node for node in graph.nodes()}
    unique = {weight_key(layer, fmt, settings): (layer, fmt) for layer, fmt in wanted}
    found: dict[str, Recovered] = {}
    model = graph.model
    for stage in split_stages(unique, list(nodes), settings.sequential):
        by_geometry: dict[Geometry, list[str]] = {}
        for key, (layer, _) in stage.items():
            by_geometry.setdefault(read_geometry(layer, nodes[layer.name]), []).append(key)
        searched = {
            geometry: any(settings.method_for(stage[key][1]) == "gptq" for key in keys)
            for geometry, keys in by_geometry.items()
        }

        def begin(geometry: Geometry, width: int, searched: dict[Geometry, bool] = searched) -> _Means:
            return make(geometry.groups, width) if searched[geometry] else Means(geometry.groups, width)

        for part in _parts(by_geometry, stage, searched):
            moments = _collect(graph, model, images(), part, threads, begin)
            for geometry in part:
                held = moments.pop(geometry)
                # Layers that read the same columns share its factor.
                activity = cache(held.activity) if isinstance(held, _Moments) else None
                for key in by_geometry[geometry]:
                    layer, fmt = stage[key]
                    search = activity if settings.method_for(fmt) == "gptq" else None
                    found[key] = _solve(graph, layer, fmt, settings, held.mean, search, nodes[layer.name])
                    if progress:
                        progress(len(found))
        if settings.sequential > 1:
            entries = [(layer, found[key].weight, found[key].shift) for key, layer in lowest(stage)]
            model = with_weights(model, graph.initializers, entries)
    return {key: found[key] for key in unique}


def _maker(device: str) -> Callable[[int, int], _Moments]:
    """What begins the sums of one geometry, given groups and K."""
    if device == "cpu":
        return Moments
    from objectives.quantization.gptq_torch import TorchMoments, check_device

    check_device(device)
    return partial(TorchMoments, device)


def _width(geometry: Geometry, layer: Layer) -> int:
    rows = layer.weight_shape
    return int(np.prod(rows[1:])) if geometry.kernel else rows[1 - layer.channel_axis]


def _parts(
    by_geometry: Mapping[Geometry, Sequence[str]],
    unique: Mapping[str, tuple[Layer, Format]],
    searched: Mapping[Geometry, bool],
) -> Iterator[dict[Geometry, int]]:
    """``{geometry: K}`` of each pass, so that the moments of those that are `searched` fit the budget."""
    part: dict[Geometry, int] = {}
    held = 0
    for geometry, keys in by_geometry.items():
        width = _width(geometry, unique[keys[0]][0])
        size = 4 * geometry.groups * width * (width if searched[geometry] else 2)
        if part and held + size > _BUDGET:
            yield part
            part, held = {}, 0
        part[geometry] = width
        held += size
    if part:
        yield part


def _collect(
    graph: ModelGraph,
    model: onnx.ModelProto,
    images: Iterable[NDArray[np.float32]],
    part: Mapping[Geometry, int],
    threads: int,
    begin: Callable[[Geometry, int], _Means],
) -> dict[Geometry, _Means]:
    probe = onnx.ModelProto()
    probe.CopyFrom(without_plugins(model))
    tensors = {geometry.tensor for geometry in part} - {graph.input}
    del probe.graph.output[:]
    probe.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in sorted(tensors)
    )
    if not tensors:
        probe.graph.output.extend(without_plugins(graph.model).graph.output)
    moments = {geometry: begin(geometry, width) for geometry, width in part.items()}
    count, reached = 0, set[Geometry]()
    with OnnxRuntimeRunner(probe.SerializeToString(), threads=threads) as runner:
        for count, image in enumerate(images, 1):
            values = {graph.input: image, **dict(zip(runner.output_names, runner.infer(image), strict=True))}
            for geometry, held in moments.items():
                if not values[geometry.tensor].size:
                    continue  # a layer that reads regions, of which this image has none
                reached.add(geometry)
                seed = zlib.crc32(f"{geometry} {count}".encode())  # the same positions in every run
                held.add(read_columns(values[geometry.tensor], geometry, _SAMPLES, np.random.default_rng(seed)))
    if not count:
        raise InputError("weights: no calibration image; list at least one in data.calibration")
    for geometry, held in moments.items():
        if geometry not in reached:
            raise InputError(UNREACHED.format(geometry.tensor))
        if not held.finite:
            raise InputError(f"{graph.path}: tensor {geometry.tensor!r} is not finite on the calibration images")
    return moments


def _solve(
    graph: ModelGraph,
    layer: Layer,
    fmt: Format,
    settings: WeightSettings,
    mean: NDArray[np.float64],
    activity: Callable[[bool], _Activity] | None,
    node: onnx.NodeProto,
) -> Recovered:
    weight = np.asarray(graph.initializers[layer.weight], dtype=np.float32)
    plain = quantize_weight(weight, layer, fmt, settings)
    correctable = can_shift(graph, layer, node)
    rows = np.asarray(as_rows(weight, layer), dtype=np.float32)
    final = plain
    if activity is not None:
        first, sharing = scales_as_rows(plain, layer)
        codes, scale = activity(correctable).search(rows, first, sharing, plain.number)
        final = replace(
            plain, codes=from_rows(codes.astype(plain.codes.dtype), layer), scale=scales_from_rows(scale, plain, layer)
        )
    shift = None
    if correctable:
        left = rows - np.asarray(as_rows(final.dequantized(), layer), dtype=np.float32)
        shift = (left * mean[:, None]).sum(axis=2).ravel().astype(np.float32)
    return Recovered(final, shift)


def scales_as_rows(plain: QuantizedWeight, layer: Layer) -> tuple[NDArray[np.float32], Sharing]:
    """A weight's scales as ``(groups, rows, scales of a row)``, and which of its columns share each."""
    groups, rows, width = as_rows(plain.codes, layer).shape
    if plain.block_size:
        scale = np.asarray(as_rows(plain.scale, layer), dtype=np.float32)
        taps = int(np.prod(layer.weight_shape[2:])) if layer.op == "Conv" else 1
        blocks = width // taps // plain.block_size
        sharing = Sharing(blocks, plain.block_size, taps, plain.scale_number, plain.tensor_scale or 1.0)
        return scale, sharing
    scale = np.broadcast_to(plain.scale, groups * rows).reshape(groups, rows, 1).astype(np.float32)
    return scale, Sharing(1, width, 1, free=plain.axis is not None)


def scales_from_rows(scale: NDArray[np.float32], plain: QuantizedWeight, layer: Layer) -> NDArray[np.floating[Any]]:
    """Undoes `scales_as_rows`."""
    if plain.axis is None:
        return plain.scale
    return np.asarray(from_rows(scale, layer) if plain.block_size else scale.ravel(), dtype=plain.scale.dtype)


def can_shift(graph: ModelGraph, layer: Layer, node: onnx.NodeProto) -> bool:
    """Whether the layer has a bias of its own, or room for one, that counts once."""
    if layer.op == "MatMul":
        return False
    if len(node.input) > 2 and node.input[2]:
        name = node.input[2]
        return name in graph.initializers and graph.initializers[name].size == layer.output_channels
    scaled = {a.name for a in node.attribute} & {"alpha", "beta"}
    return not scaled


def save_recovered(path: Path, found: Mapping[str, Recovered]) -> bytes:
    """Writes weights as a NumPy archive; returns its bytes."""
    arrays: dict[str, NDArray[np.generic]] = {}
    index = []
    for place, (key, entry) in enumerate(found.items()):
        weight = entry.weight
        index.append([key, weight.axis, weight.block_size, weight.number.name])
        codes = weight.codes if weight.number.is_integer else weight.codes.view(np.uint8)  # NumPy knows no small floats
        arrays[f"codes{place}"], arrays[f"scale{place}"] = codes, weight.scale
        if entry.shift is not None:
            arrays[f"shift{place}"] = entry.shift
    arrays["index"] = np.frombuffer(json.dumps(index).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    data = buffer.getvalue()
    write_durably(path, data)
    return data


def load_recovered(path: Path) -> dict[str, Recovered]:
    """Reads what `save_recovered` wrote.

    Raises:
        InputError: It is not such a file.
    """
    try:
        with np.load(path, allow_pickle=False) as data:
            found = {}
            for place, (key, axis, block, number) in enumerate(json.loads(bytes(data["index"]))):
                held = get_number(number)
                codes = data[f"codes{place}"] if held.is_integer else data[f"codes{place}"].view(code_type(held))
                weight = QuantizedWeight(codes, data[f"scale{place}"], axis, block, held)
                name = f"shift{place}"
                shift = data[name] if name in data.files else None
                found[key] = Recovered(weight, shift)
            return found
    except Exception as error:  # zip, zlib, NumPy and JSON raise a dozen classes of their own; all mean the same
        raise InputError(
            f"{path}: not a file of recovered weights ({error}); delete it to compute them again"
        ) from None
