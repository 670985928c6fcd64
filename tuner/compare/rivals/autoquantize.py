"""ModelOpt's AutoQuantize at a budget of effective bits: ``autoquantize:BITS``."""

from __future__ import annotations

import json
from pathlib import Path

from search_spaces.allocation import Allocation
from search_spaces.durable import write_durably
from search_spaces.errors import InputError
from search_spaces.formats import FORMATS, UNQUANTIZED
from tuner.compare.rivals.rival import Question, Rival
from tuner.prepare.prepared import ensure_parts
from tuner.prepare.sensitivity_sources import checkpoint_path, sweep_inputs


class AutoQuantize(Rival):
    """Its scheme, materialized as the run's trials are."""

    def __init__(self, argument: str) -> None:
        try:
            self.bits = float(argument)
        except ValueError:
            raise InputError(f"autoquantize:{argument}: must be a number of bits, e.g. autoquantize:8") from None
        self.title = f"ModelOpt AutoQuantize {self.bits:g} bits"
        self.folder = f"modelopt-auto-{self.bits:g}"

    def check(self, question: Question) -> None:
        """Needs the `torch` extra, a checkpoint, and a budget that the space's formats can meet."""
        from objectives.torch_models.packages import require_modelopt

        least = min(FORMATS[name].weight.bits for name in question.inputs.space.quantized_formats)
        most = FORMATS[UNQUANTIZED].weight.bits
        if not least < self.bits < most:
            limits = f"must lie above {least}, the fewest of the run's formats, and below {most}"
            raise InputError(f"autoquantize:{self.bits:g}: {limits}")
        checkpoint_path(question.inputs.config)
        require_modelopt("ModelOpt's AutoQuantize")

    def answer(self, question: Question, folder: Path) -> Path:
        """Scores the formats by gradients, and materializes the scheme that it chooses."""
        from objectives.sensitivity.modelopt_scores import GRADIENT, score_formats
        from objectives.torch_models.quantizers import uniform_config

        inputs, run = question.inputs, question.run
        formats = inputs.space.quantized_formats
        found = sweep_inputs(inputs, run, question.steps)
        granularity = inputs.config.sensitivity.granularities[0]
        configs = [uniform_config(name, granularity) for name in formats]
        pixels = [found.images.batch(i, i + 1) for i in range(len(found.images))]
        with question.steps(self.title, 1):
            state = score_formats(found.detector, configs, GRADIENT, pixels, found.labels, self.bits).state
        recipes = {key.removesuffix(".quant_recipe"): str(recipe) for key, recipe in state["best"]["recipe"].items()}
        chosen = {layer: _format_of(recipes[module], formats) for layer, module in found.nodes.module_of.items()}
        allocation = Allocation.of(chosen)
        folder.mkdir(parents=True)
        satisfied = state["best"]["is_satisfied"]
        facts = {"effective_bits": self.bits, "satisfied": satisfied, "allocation": allocation.formats}
        write_durably(folder / "scheme.json", json.dumps(facts, indent=1) + "\n")
        model = folder / "model.onnx"
        ensure_parts(inputs, run, question.steps).materializer.materialize(allocation).save(model)
        return model


def _format_of(recipe: str, formats: list[str]) -> str:
    """The format of a recipe: AutoQuantize calls the configs that it is given ``CUSTOM_0``, ``CUSTOM_1``, ..."""
    name = recipe.partition("(")[0]
    return UNQUANTIZED if name == "NONE" else formats[int(name.removeprefix("CUSTOM_"))]
