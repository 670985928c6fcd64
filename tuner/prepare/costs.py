"""What each choice of a study is expected to cost, before the search has measured any."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from objectives.quantization.materialize import Materializer
from objectives.runtimes.engine_builder import EngineBuilder
from search_spaces.costs import CostTable, weight_costs
from search_spaces.durable import write_durably
from search_spaces.formats import UNQUANTIZED
from tuner.prepare.images import data_of, ensure_images
from tuner.prepare.materializers import batched_graph
from tuner.prepare.probe import read_probe
from tuner.study.inputs import Inputs
from tuner.study.run_folder import RunFolder, read_text
from tuner.terminal.progress import Steps, silent


def ensure_costs(
    inputs: Inputs, run: RunFolder, materializer: Materializer | None, steps: Steps = silent
) -> Mapping[str, CostTable]:
    """The priors of all costs that the study minimizes or bounds.

    That of the latency is kept in the run, for measured times differ from look to look.

    Args:
        inputs: The study.
        run: Where they are kept.
        materializer: Of the study's artifacts; None where scores are replayed.
        steps: Shows progress.

    Returns:
        ``{kind of prior: milliseconds or bytes of every choice}``, kinds as of `Objective.prior`.
    """
    wanted = inputs.config.objective_set
    kinds = {objective.prior for objective in (*wanted.objectives, *wanted.bounded)}
    found: dict[str, CostTable] = {}
    if "latency" in kinds:
        if not run.costs.exists():
            write_durably(run.costs, _latency(inputs, run, materializer, steps).to_json())
        found["latency"] = CostTable.from_json(read_text(run.costs))
    if "weights" in kinds:
        found["weights"] = _weights(inputs, materializer)
    return found


def _latency(inputs: Inputs, run: RunFolder, materializer: Materializer | None, steps: Steps) -> CostTable:
    """Milliseconds of every choice as far as the runtime tells them beforehand, else its bytes stand in."""
    runtime, batch = inputs.runtime, inputs.config.runtime.batch
    if isinstance(runtime, EngineBuilder):
        return read_probe(run).cost_table(runtime.title)

    def image() -> NDArray[np.float32]:
        pixels = ensure_images(inputs, run, data_of(inputs).search.images[:1], steps).batch(0, 1)
        return np.repeat(pixels, batch, axis=0)

    with steps("profiling the layers", 0):
        known = runtime.layer_costs(batched_graph(inputs.graph, batch), materializer, image)
    return known if known is not None else weight_costs(inputs.graph.layers)


def _weights(inputs: Inputs, materializer: Materializer | None) -> CostTable:
    """Bytes of every choice; of the artifacts where there are any, so that nothing is left to learn."""
    graph, space = inputs.graph, inputs.space
    table = weight_costs(graph.layers)
    if materializer is None:
        return table
    layers = {layer.name: layer for layer in graph.layers}
    exact = {
        (layer, name): float(materializer.layer_bytes(layers[layer], name))
        for group, names in zip(space.groups, space.formats, strict=True)
        for layer in group.layers
        for name in names
    }
    fixed = sum(materializer.layer_bytes(layer, UNQUANTIZED) for layer in graph.layers if not layer.quantizable)
    return replace(table, costs={**table.costs, **exact}, source="artifacts", fixed=fixed)
