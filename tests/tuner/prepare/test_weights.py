"""Reconstructed weights: of the formats that want them, once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from objectives.quantization.weights import weight_key
from search_spaces.formats import FORMATS
from tuner.prepare.weights import ensure_weights, read_weights, weight_settings
from tuner.study.inputs import Inputs
from tuner.study.run_folder import RunFolder

Read = Callable[..., Inputs]


def test_every_weight_that_wants_it_is_reconstructed_and_kept(read: Read, run: RunFolder) -> None:
    inputs = read()
    found = ensure_weights(inputs, run)
    settings = weight_settings(inputs.config.weights)
    layers = {layer.name: layer for layer in inputs.graph.quantizable}
    pairs = [(layers[name], FORMATS[fmt]) for name, fmt in inputs.space.quantized_pairs]
    assert set(found) == {weight_key(*pair, settings) for pair in pairs if settings.recovers(*pair)} != set()
    kept = run.recovered.stat().st_mtime_ns
    again = ensure_weights(inputs, run)
    assert run.recovered.stat().st_mtime_ns == kept
    for key, entry in found.items():
        np.testing.assert_array_equal(entry.weight.scale, again[key].weight.scale)


def test_rounding_needs_no_images_and_leaves_no_file(read: Read, run: RunFolder) -> None:
    assert ensure_weights(read("weights.method=rtn"), run) == {}
    assert not run.recovered.exists() and read_weights(run) == {}
