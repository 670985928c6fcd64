"""How far an artifact's detections are from the reference's, without labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from objectives.quantization.materialize import Materializer
from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner
from objectives.sensitivity.divergence import (
    AnchorTargets,
    DenseTensor,
    divergence,
    find_dense_tensor,
    targets,
)
from objectives.tasks.detection.contract import DetectorContract, Thresholds
from objectives.tasks.detection.data.preprocessed import PreprocessedImages
from objectives.tasks.detection.metrics.agreement import agreement
from objectives.tasks.detection.metrics.coco import Predictions
from objectives.tasks.detection.predict import predict
from search_spaces.allocation import Allocation
from search_spaces.model_graph import ModelGraph

_NOTHING = Predictions((), ())
_TOP = Thresholds(confidence=0.01, max_detections=100)


@dataclass(frozen=True)
class Meter:
    """Scores artifacts against the reference.

    Attributes:
        images: What they run on.
        contract: How to read final detections.
        dense: How to read the dense tensor; None to compare final detections.
        extra: Tensors that the artifact must hand out besides its outputs.
        cuda: Run on the CUDA execution provider.
        position: Place of the dense tensor among the artifact's outputs.
        wanted: Per image what the reference says, with a dense tensor.
        reference: The reference's detections, without one.
    """

    images: PreprocessedImages
    contract: DetectorContract
    dense: DenseTensor | None
    position: int
    extra: tuple[str, ...] = ()
    cuda: bool = False
    wanted: tuple[AnchorTargets, ...] = ()
    reference: Predictions = _NOTHING

    def score(self, artifact: bytes) -> float:
        """Divergence of an artifact from the reference; 0 for the reference itself."""
        with OnnxRuntimeRunner(artifact, threads=1, cuda=self.cuda) as runner:
            if self.dense is not None:
                return divergence(self.dense, _dense_outputs(runner, self.images, self.position), self.wanted)
            found = predict(runner, self.images, self.contract, _TOP)
            return 1 - agreement(found, self.reference)


def reference_meter(
    graph: ModelGraph,
    materializer: Materializer,
    contract: DetectorContract,
    images: PreprocessedImages,
    cuda: bool = False,
) -> Meter:
    """Runs the unquantized model once over the images."""
    dense = find_dense_tensor(graph, contract)
    extra = (dense.name,) if dense is not None and dense.name not in graph.outputs else ()
    artifact = materializer.materialize(Allocation.of({}), extra)
    with OnnxRuntimeRunner(artifact.data, threads=1, cuda=cuda) as runner:
        if dense is None:
            return Meter(images, contract, None, 0, cuda=cuda, reference=predict(runner, images, contract, _TOP))
        position = runner.output_names.index(dense.name)
        outputs = _dense_outputs(runner, images, position)
        wanted = tuple(targets(dense, output) for output in outputs)
        return Meter(images, contract, dense, position, extra, cuda, wanted)


def _dense_outputs(runner: OnnxRuntimeRunner, images: PreprocessedImages, position: int) -> list[NDArray[np.float32]]:
    return [runner.infer(images.batch(index, index + 1))[position] for index in range(len(images))]
