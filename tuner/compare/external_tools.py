"""Other tools' own answers to a run's question, made from its model and calibration images, kept as baselines."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from objectives.runtimes.opening import open_file
from objectives.runtimes.registry import default_runtime
from objectives.tasks.detection.detector import recognise
from objectives.tasks.detection.metrics.scoring import score
from search_spaces.allocation import Allocation
from search_spaces.durable import write_durably
from search_spaces.errors import InputError
from search_spaces.formats import FORMATS, UNQUANTIZED
from search_spaces.model_graph import ModelGraph
from tuner.compare.baselines import add_baseline
from tuner.prepare.images import calibration_images, data_of, ensure_images
from tuner.prepare.predicting import detect
from tuner.prepare.prepared import ensure_parts
from tuner.prepare.sensitivity_sources import sweep_inputs
from tuner.results.loaded import load_run
from tuner.search.records import Baseline
from tuner.study.inputs import Inputs, read_inputs
from tuner.study.run_folder import RunFolder
from tuner.terminal.progress import Steps, silent


def modelopt_onnx(path: Path, mode: str, method: str, images: int, steps: Steps = silent) -> Baseline:
    """ModelOpt's ONNX post-training quantization of the run's model.

    Args:
        path: The run.
        mode: ``int8`` or ``fp8``.
        method: ``max`` or ``entropy``.
        images: Calibration images, the first of the run's list.
        steps: Shows progress.

    Raises:
        InputError: ModelOpt refuses the model, or the runtime cannot load what it made.
        RuntimeUnavailable: The `torch` extra is missing.
    """
    from objectives.torch_models.onnx_ptq import quantize_onnx

    inputs, run = _open(path)
    name = f"ModelOpt ONNX {mode} {method}"
    folder = _folder(run, f"modelopt-onnx-{mode}-{method}")
    pixels = calibration_images(inputs, run, steps, images)
    with steps(name, 1):
        made = quantize_onnx(inputs.graph.path, pixels, mode, method, folder)
    try:
        return add_baseline(path, made.model, name, steps)
    except InputError as error:
        raise InputError(f"{name}: {error}; its model stays at {made.model}") from None


def auto_quantize(path: Path, bits: float, steps: Steps = silent) -> Baseline:
    """ModelOpt's AutoQuantize at a budget of effective bits, materialized as the run's trials are.

    Raises:
        InputError: The run names no checkpoint, or the budget cannot be met by the space's formats.
        RuntimeUnavailable: The `torch` extra is missing.
    """
    from objectives.sensitivity.modelopt_scores import GRADIENT, score_formats
    from objectives.torch_models.quantizers import uniform_config

    inputs, run = _open(path)
    formats = inputs.space.quantized_formats
    least = min(FORMATS[name].weight.bits for name in formats)
    most = FORMATS[UNQUANTIZED].weight.bits
    if not least < bits < most:
        raise InputError(f"--bits {bits:g}: must lie above {least}, the fewest of the run's formats, and below {most}")
    found = sweep_inputs(inputs, run, steps)
    granularity = inputs.config.sensitivity.granularities[0]
    configs = [uniform_config(name, granularity) for name in formats]
    pixels = [found.images.batch(i, i + 1) for i in range(len(found.images))]
    name = f"ModelOpt AutoQuantize {bits:g} bits"
    with steps(name, 1):
        state = score_formats(found.detector, configs, GRADIENT, pixels, found.labels, bits).state
    recipes = {key.removesuffix(".quant_recipe"): str(recipe) for key, recipe in state["best"]["recipe"].items()}
    chosen = {layer: _format_of(recipes[module], formats) for layer, module in found.nodes.module_of.items()}
    allocation = Allocation.of(chosen)
    folder = _folder(run, f"modelopt-auto-{bits:g}")
    folder.mkdir(parents=True)
    facts = {"effective_bits": bits, "satisfied": state["best"]["is_satisfied"], "allocation": allocation.formats}
    write_durably(folder / "scheme.json", json.dumps(facts, indent=1) + "\n")
    ensure_parts(inputs, run, steps).materializer.materialize(allocation).save(folder / "model.onnx")
    return add_baseline(path, folder / "model.onnx", name, steps)


def neural_compressor(path: Path, images: int, steps: Steps = silent) -> Baseline:
    """Intel Neural Compressor's accuracy-driven int8 flow, scored on the run's search images.

    Raises:
        RuntimeUnavailable: Its environment is missing, or it failed.
    """
    from objectives.neural_compressor.session import TuneSettings, inc_python, inc_tune

    inputs, run = _open(path)
    python = inc_python(inputs.config.sensitivity.inc_python)
    folder = _folder(run, "inc-int8")
    pixels = calibration_images(inputs, run, steps, images)
    search = data_of(inputs).search
    evaluated, cpu = ensure_images(inputs, run, search.images, steps), default_runtime()

    def scored(model: Path) -> float:
        contract = recognise(ModelGraph(model, allow_quantized=True))
        with open_file(cpu, model) as runner:
            return score(search, detect(cpu, runner, evaluated, contract)).map_50_95

    with steps("Neural Compressor", 1):
        found = inc_tune(python, inputs.graph, pixels, scored, TuneSettings())
    folder.mkdir(parents=True)
    facts = {
        "command": found.command, "map_50_95": found.scores, "accepted": found.accepted, "seconds": found.seconds,
    }  # fmt: skip
    write_durably(folder / "tuning.json", json.dumps(facts, indent=1) + "\n")
    write_durably(folder / "model.onnx", found.model)
    return add_baseline(path, folder / "model.onnx", "Neural Compressor int8", steps)


def _open(path: Path) -> tuple[Inputs, RunFolder]:
    loaded = load_run(path)
    return read_inputs(loaded.config), loaded.run


def _folder(run: RunFolder, name: str) -> Path:
    """A folder below the run for one tool's files, emptied where it was there."""
    folder = run.path / "baselines" / name
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def _format_of(recipe: str, formats: list[str]) -> str:
    """The format of a recipe: AutoQuantize calls the configs that it is given ``CUSTOM_0``, ``CUSTOM_1``, ..."""
    name = recipe.partition("(")[0]
    return UNQUANTIZED if name == "NONE" else formats[int(name.removeprefix("CUSTOM_"))]
