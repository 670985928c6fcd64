"""Sensitivity by NVIDIA ModelOpt's AutoQuantize, on the torch model."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from objectives.sensitivity.peak_memory import PeakMemory
from objectives.torch_models.detector import ImageLabels, TorchDetector
from objectives.torch_models.packages import require_modelopt, silence
from objectives.torch_models.quantizers import uniform_config

GRADIENT, KL = "gradient", "kl"
METHODS = (GRADIENT, KL)
METRICS = {
    GRADIENT: "(gradient of the detection loss x change of the layer's output)^2, summed",
    KL: "KL divergence of class probabilities and box distributions on the 100 best anchors, summed",
}
_TOP = 100
_UNBOUND = {"effective_bits": 16.0}  # only the scores are wanted, and 16 bits are always feasible
_DFL = "*dfl*"
_NEVER = -1e4  # a logit whose probability is 0, but whose logarithm is finite


@dataclass(frozen=True)
class AutoQuantizeScores:
    """What one run of AutoQuantize found.

    Attributes:
        scores: ``{module: score}``, >= 0, higher is more sensitive; summed over images.
        seconds: Wall time, calibration included.
        peak_mib: Peak memory: resident on a CPU, allocated on a GPU.
        state: AutoQuantize's own state, from which it solves for bit budgets.
    """

    scores: dict[str, float]
    seconds: float
    peak_mib: float
    state: dict[str, Any] = field(repr=False, default_factory=dict)


def score_formats(
    detector: TorchDetector,
    configs: Sequence[dict[str, Any]],
    method: str,
    images: Sequence[NDArray[Any]],
    labels: Sequence[ImageLabels],
    effective_bits: float | None = None,
) -> AutoQuantizeScores:
    """Runs AutoQuantize once.

    ``gradient``: ModelOpt's second-order estimate of the loss, Fisher information for the Hessian, of each layer's
    output error. ``kl``: one layer quantized at a time, the divergence of the outputs.

    Args:
        detector: The model.
        configs: ModelOpt configs to choose from; with one, the scores are its alone.
        method: ``gradient`` or ``kl``.
        images: Batches of one, (1, 3, H, W), float32 in [0, 1]; calibrate and score.
        labels: One per image; for ``gradient``.
        effective_bits: Budget to solve for; None for the scores alone.

    Raises:
        RuntimeUnavailable: ModelOpt is missing.
    """
    require_modelopt("sensitivity.method modelopt")
    import modelopt.torch.quantization as mtq
    import torch

    batches = [(detector.tensor(pixels), label) for pixels, label in zip(images, labels, strict=True)]
    with torch.no_grad():
        best = [_best_anchors(detector.heads(detector.module, pixels)) for pixels, _ in batches]
    anchors = {id(pixels): chosen for (pixels, _), chosen in zip(batches, best, strict=True)}

    def forward(module: Any, batch: tuple[Any, ImageLabels]) -> Any:
        heads = detector.heads(module, batch[0])
        return heads if method == GRADIENT else _as_logits(heads, anchors[id(batch[0])])

    def loss(heads: dict[str, Any], batch: tuple[Any, ImageLabels]) -> Any:
        return detector.loss(heads, batch[1])

    module = copy.deepcopy(detector.module)
    started = time.perf_counter()
    with PeakMemory(detector.device) as peak, silence(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, state = mtq.auto_quantize(
            module,
            constraints=_UNBOUND if effective_bits is None else {"effective_bits": effective_bits},
            quantization_formats=list(configs),
            data_loader=batches,
            forward_step=forward,
            loss_func=loss if method == GRADIENT else None,
            disabled_layers=[_DFL],
            num_calib_steps=len(batches),
            num_score_steps=len(batches),
            method="gradient" if method == GRADIENT else "kl_div",
        )
    seconds = time.perf_counter() - started
    scores = {}
    for name, stats in state["candidate_stats"].items():
        if len(stats["formats"]) > 1:  # a disabled layer has the one choice not to be quantized
            found = (0.0, *map(float, stats["scores"]))  # a KL near 0 may be rounded below it
            scores[name.removesuffix(".quant_recipe")] = max(found)
    return AutoQuantizeScores(scores, seconds, peak.mib, state)


def score_format(
    detector: TorchDetector,
    fmt: str,
    granularity: str,
    method: str,
    images: Sequence[NDArray[Any]],
    labels: Sequence[ImageLabels],
) -> AutoQuantizeScores:
    """Scores one format; see `score_formats`."""
    return score_formats(detector, [uniform_config(fmt, granularity)], method, images, labels)


def _as_logits(heads: dict[str, Any], anchors: Any) -> Any:
    """A detector's outputs at some anchors as rows of logits whose softmax is what the head means.

    Its classes are independent, so each logit z enters as (z, 0), whose softmax is the class's sigmoid. A box side is a
    distribution over bins already; a head without bins leaves its boxes out.
    """
    import torch

    scores = heads["scores"][0].T[anchors].reshape(-1, 1)
    sides = heads["boxes"][0].T[anchors]
    bins = sides.shape[1] // 4
    if bins < 2:
        return torch.cat([scores, torch.zeros_like(scores)], 1)
    nothing = scores.new_full((len(scores), bins - 2), _NEVER)
    return torch.cat([torch.cat([scores, torch.zeros_like(scores), nothing], 1), sides.reshape(-1, bins)])


def _best_anchors(heads: dict[str, Any]) -> Any:
    scores = heads["scores"][0].amax(0)
    return scores.topk(min(_TOP, scores.shape[0])).indices
