"""How far an artifact's detections are from the reference's, without labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from objectives.quantization.materialize import Materializer
from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner
from objectives.sensitivity.divergence import AnchorTargets, divergence, targets
from objectives.tasks.detection.data.preprocessed import PreprocessedImages
from objectives.tasks.detection.detector import Detector
from objectives.tasks.detection.heads.head import DenseOutputs
from objectives.tasks.detection.metrics.agreement import agreement
from objectives.tasks.detection.predict import predict
from objectives.tasks.detection.predictions import Predictions
from objectives.tasks.detection.thresholds import Thresholds
from search_spaces.allocation import Allocation
from search_spaces.model_graph import ModelGraph
from search_spaces.plugins import plugins, without_plugins

_NOTHING = Predictions((), ())
_TOP = Thresholds(confidence=0.01, max_detections=100)


@dataclass(frozen=True)
class Meter:
    """Scores artifacts against the reference.

    Attributes:
        images: What they run on.
        detector: How to read final detections.
        dense: How to read the dense outputs; None to compare final detections.
        extra: Tensors that the artifact must hand out besides its outputs.
        cuda: Run on the CUDA execution provider.
        positions: Places of the dense tensors among the artifact's outputs.
        wanted: Per image what the reference says, with dense outputs.
        reference: The reference's detections, without one.
        cut: Whether the model holds operators that ONNX Runtime lacks, at which artifacts are cut off.
    """

    images: PreprocessedImages
    detector: Detector
    dense: DenseOutputs | None
    positions: tuple[int, ...] = ()
    extra: tuple[str, ...] = ()
    cuda: bool = False
    wanted: tuple[AnchorTargets, ...] = ()
    reference: Predictions = _NOTHING
    cut: bool = False

    def score(self, artifact: bytes) -> float:
        """Divergence of an artifact from the reference; 0 for the reference itself."""
        with OnnxRuntimeRunner(_readable(artifact, self.cut), threads=1, cuda=self.cuda) as runner:
            if self.dense is not None:
                return divergence(self.dense, _dense_outputs(runner, self.images, self.positions), self.wanted)
            found = predict(runner, self.images, self.detector, _TOP)
            return 1 - agreement(found, self.reference)


def reference_meter(
    graph: ModelGraph,
    materializer: Materializer,
    detector: Detector,
    images: PreprocessedImages,
    cuda: bool = False,
) -> Meter:
    """Runs the unquantized model once over the images."""
    dense = detector.dense(graph)
    extra = tuple(name for name in dense.tensors if name not in graph.outputs) if dense is not None else ()
    artifact = materializer.materialize(Allocation.of({}), extra)
    cut = bool(plugins(graph.model))
    with OnnxRuntimeRunner(_readable(artifact.data, cut), threads=1, cuda=cuda) as runner:
        if dense is None:
            return Meter(images, detector, None, cuda=cuda, reference=predict(runner, images, detector, _TOP), cut=cut)
        positions = tuple(runner.output_names.index(name) for name in dense.tensors)
        wanted = tuple(targets(dense, outputs) for outputs in _dense_outputs(runner, images, positions))
        return Meter(images, detector, dense, positions, extra, cuda, wanted, cut=cut)


def _readable(artifact: bytes, cut: bool) -> bytes:
    """The artifact, up to what ONNX Runtime lacks where it is to be cut: dense outputs lie before that."""
    return without_plugins(onnx.load_from_string(artifact)).SerializeToString() if cut else artifact


def _dense_outputs(
    runner: OnnxRuntimeRunner, images: PreprocessedImages, positions: Sequence[int]
) -> list[list[NDArray[np.generic]]]:
    found = (runner.infer(images.batch(index, index + 1)) for index in range(len(images)))
    return [[outputs[position] for position in positions] for outputs in found]
