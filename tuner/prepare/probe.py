"""What a study's target builds, and what that costs: found out before the search and kept in ``probe.json``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from objectives.evaluation.evaluator import Evaluator
from objectives.runtimes.engine_builder import EngineBuilder
from objectives.runtimes.probing import ProbeTable, probe
from objectives.runtimes.runtime import StudyEvaluator
from search_spaces.durable import write_durably
from search_spaces.errors import InputError
from search_spaces.unsupported import Unsupported
from tuner.prepare.calibration import read_calibration
from tuner.prepare.weights import weight_settings
from tuner.study.inputs import Inputs
from tuner.study.run_folder import RunFolder, read_text
from tuner.terminal.console import say
from tuner.terminal.progress import Steps


def ensure_probe(inputs: Inputs, run: RunFolder, steps: Steps, evaluator: StudyEvaluator) -> None:
    """Finds out what the target builds and what it costs, unless the run did; only engines need it.

    The table is kept in the run, and per device and version among the user's caches, so that another study of
    the same model, ranges and weights starts with it.

    Args:
        inputs: The study.
        run: Where the table is kept; calibrated.
        steps: Shows progress.
        evaluator: Of the study; builds and profiles engines.

    Raises:
        RuntimeUnavailable: Not even the unquantized model can be built.
    """
    runtime = inputs.runtime
    if not isinstance(runtime, EngineBuilder) or not isinstance(evaluator, Evaluator) or run.probe.is_file():
        return
    layers = [layer.name for layer in inputs.graph.quantizable]
    wanted: dict[str, list[str]] = {}
    for layer, fmt in inputs.space.quantized_pairs:
        wanted.setdefault(fmt, []).append(layer)
    kept = _probe_cache(inputs, runtime, run, wanted)
    if kept.is_file():
        table = ProbeTable.from_json(read_text(kept))
    else:
        with steps("probing formats", len(wanted)) as done:
            never = runtime.never_built(inputs.graph, wanted, weight_settings(inputs.config.weights))
            table = probe(evaluator, layers, wanted, say, never, done)
        write_durably(kept, table.to_json())
    for (layer, fmt), reason in table.blocked.pairs.items():
        run.log("blocked", layer=layer, format=fmt, reason=reason)
    for (layer, fmt), reason in table.idle.pairs.items():
        run.log("idle", layer=layer, format=fmt, reason=reason)
    write_durably(run.probe, table.to_json())


def read_probe(run: RunFolder) -> ProbeTable:
    """Reads what probing found.

    Raises:
        InputError: The run was not probed.
    """
    if not run.probe.is_file():
        raise InputError(f"run {str(run.path)!r}: not probed yet; `tuner resume {run.path}` goes on")
    return ProbeTable.from_json(read_text(run.probe))


def unsupported_pairs(inputs: Inputs, run: RunFolder) -> Unsupported:
    """Pairs that the target cannot build, or gains nothing from, as far as probing found them.

    Raises:
        InputError: The run has engines and was not probed.
    """
    config = inputs.config
    if not isinstance(inputs.runtime, EngineBuilder):
        return Unsupported({})
    return read_probe(run).kept_out(inputs.space, config.objective_set.sized)


def _probe_cache(inputs: Inputs, runtime: EngineBuilder, run: RunFolder, wanted: Mapping[str, Sequence[str]]) -> Path:
    """File of this probe among the caches of the device: named by all that decides its outcome."""
    config = inputs.config
    facts: list[Any] = [inputs.graph.digest, wanted, config.runtime.model_dump(), config.weights.model_dump()]
    facts.append(read_calibration(run).to_json())
    name = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return runtime.cache_folder() / "probes" / f"{name}.json"
