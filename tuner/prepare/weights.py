"""The weights of a run that are reconstructed on calibration images, made once and kept in its cache."""

from __future__ import annotations

from objectives.quantization.recovery import Recovered, load_recovered, recover, save_recovered
from objectives.quantization.weights import WeightSettings, weight_key
from search_spaces.formats import FORMATS, Granularity
from tuner.prepare.images import calibration_images
from tuner.study.config import WeightsSection
from tuner.study.inputs import Inputs
from tuner.study.run_folder import RunFolder
from tuner.terminal.progress import Steps, silent


def ensure_weights(inputs: Inputs, run: RunFolder, steps: Steps = silent) -> dict[str, Recovered]:
    """Reconstructed weights of the formats that want them, from the run's cache where they are there.

    Args:
        inputs: The study.
        run: Where they are kept.
        steps: Shows progress.

    Returns:
        ``{weight_key: weight}``; empty where no format wants its weights reconstructed, or scores are replayed.
    """
    if run.recovered.is_file():
        return read_weights(run)
    config, graph = inputs.config, inputs.graph
    settings = weight_settings(config.weights)
    layers = {layer.name: layer for layer in graph.quantizable}
    pairs = [(layers[name], FORMATS[fmt]) for name, fmt in inputs.space.quantized_pairs]
    wanted = [pair for pair in pairs if settings.recovers(*pair)]
    if not wanted or not inputs.runtime.artifacts:
        return {}
    images = calibration_images(inputs, run, steps, config.weights.images)
    count = len({weight_key(*pair, settings) for pair in wanted})
    with steps("quantizing weights", count) as done:
        found = recover(graph, images.singles, wanted, settings, done)
    save_recovered(run.recovered, found)
    return found


def read_weights(run: RunFolder) -> dict[str, Recovered]:
    """Reads the reconstructed weights of a run; empty where none of its formats wanted them."""
    return load_recovered(run.recovered) if run.recovered.is_file() else {}


def weight_settings(weights: WeightsSection) -> WeightSettings:
    """The study's weight settings as the quantizer takes them."""
    return WeightSettings(
        weights.method,
        Granularity(weights.granularity),
        weights.block_size,
        weights.device,
        sequential=weights.sequential,
    )
