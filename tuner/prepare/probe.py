"""What a study's target builds, and what that costs: found out before the search and kept in ``probe.json``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from objectives.devices.gpu import find_gpu
from objectives.evaluation.evaluator import Evaluator
from objectives.evaluation.study_evaluator import StudyEvaluator
from objectives.runtimes.backends import tensorrt_version
from objectives.runtimes.probing import ProbeTable, probe
from objectives.runtimes.tensorrt.attention import never_built
from objectives.runtimes.tensorrt.engine_cache import EngineCache
from search_spaces.errors import InputError
from search_spaces.unsupported import Blocked
from tuner.prepare.calibration import read_calibration
from tuner.prepare.targets import has_engines
from tuner.study.inputs import Inputs
from tuner.study.run_folder import RunFolder, read_text, write_durably
from tuner.terminal.console import say
from tuner.terminal.progress import Steps


def ensure_probe(inputs: Inputs, run: RunFolder, steps: Steps, evaluator: StudyEvaluator) -> None:
    """Finds out what the target builds and what it costs, unless the run did; only engines need it.

    The table is kept in the run, and per device and TensorRT version among the user's caches, so that another study of
    the same model, ranges and weights starts with it.

    Args:
        inputs: The study.
        run: Where the table is kept; calibrated.
        steps: Shows progress.
        evaluator: Of the study; builds and profiles engines.

    Raises:
        RuntimeUnavailable: Not even the unquantized model can be built.
    """
    if not has_engines(inputs.config.runtime.name) or run.probe.is_file():
        return
    assert isinstance(evaluator, Evaluator)
    layers = [layer.name for layer in inputs.graph.quantizable]
    wanted: dict[str, list[str]] = {}
    for layer, fmt in inputs.space.quantized_pairs:
        wanted.setdefault(fmt, []).append(layer)
    kept = _probe_cache(inputs, run, wanted)
    if kept.is_file():
        table = ProbeTable.from_json(read_text(kept))
    else:
        with steps("probing formats", len(wanted)):
            spared = never_built(inputs.graph, tensorrt_version())
            reasons = {(layer, "int8"): why for layer, why in spared.items()}
            table = probe(evaluator, layers, wanted, say, reasons)
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


def unsupported_pairs(inputs: Inputs, run: RunFolder) -> Blocked:
    """Pairs that the target cannot build, or gains nothing from, as far as probing found them.

    Raises:
        InputError: The run has engines and was not probed.
    """
    config = inputs.config
    if not has_engines(config.runtime.name):
        return Blocked({})
    size = "weight_mib" in config.objectives or config.constraints.max_weight_mib is not None
    return read_probe(run).kept_out(inputs.space, size)


def _probe_cache(inputs: Inputs, run: RunFolder, wanted: Mapping[str, Sequence[str]]) -> Path:
    """File of this probe among the caches of the device: named by all that decides its outcome."""
    version, config = tensorrt_version(), inputs.config
    facts: list[Any] = [inputs.graph.digest, wanted, config.runtime.model_dump(), config.weights.model_dump()]
    facts.append(read_calibration(run).to_json())
    name = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return EngineCache(version, find_gpu(config.runtime.device)).folder / "probes" / f"{name}.json"
