"""Which calibration method suits a model: the ranges of each are tried on the whole model, quantized at once.

One layer's rounding error does not say which ranges keep the detections, and the best method differs from model to
model; a few images through four artifacts do say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from objectives.quantization.histogram import METHODS
from objectives.quantization.materialize import Materializer
from objectives.sensitivity.meter import reference_meter
from objectives.tasks.detection.data.preprocessed import PreprocessedImages
from objectives.tasks.detection.detector import Detector
from search_spaces.allocation import Allocation
from search_spaces.model_graph import ModelGraph


def range_errors(
    graph: ModelGraph,
    make: Callable[[str], Materializer],
    detector: Detector,
    images: PreprocessedImages,
    allocation: Allocation,
    *,
    methods: Iterable[str] = METHODS,
    cuda: bool = False,
    progress: Callable[[int], None] | None = None,
) -> dict[str, float]:
    """Divergence from the unquantized model of one scheme under each calibration method; the smallest is the best.

    Args:
        graph: The model.
        make: Makes the materializer whose ranges come from the named method.
        detector: Of this model.
        images: A few calibration images.
        allocation: A scheme that quantizes activations, as a rule all of them.
        methods: Calibration methods.
        cuda: Run on the CUDA execution provider.
        progress: Called with the number of methods done.
    """
    found: dict[str, float] = {}
    meter = None
    for method in methods:
        materializer = make(method)
        meter = meter or reference_meter(graph, materializer, detector, images, cuda)
        found[method] = meter.score(materializer.materialize(allocation, meter.extra).data)
        if progress is not None:
            progress(len(found))
    return found
