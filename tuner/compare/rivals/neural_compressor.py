"""Intel Neural Compressor's accuracy-driven int8 flow, scored on the run's search images: ``inc``."""

from __future__ import annotations

import json
from pathlib import Path

from objectives.evaluation.bench import REFERENCE
from objectives.neural_compressor.session import TuneSettings, inc_python, inc_tune
from objectives.runtimes.opening import open_file
from objectives.runtimes.registry import default_runtime
from objectives.tasks.detection.metrics.scoring import score
from objectives.tasks.detection.prediction_file import load_predictions
from search_spaces.durable import write_durably
from search_spaces.model_graph import ModelGraph
from tuner.compare.baselines import detector_like
from tuner.compare.rivals.rival import Question, Rival, refuse_argument
from tuner.prepare.images import data_of, ensure_images
from tuner.prepare.predicting import detect


class NeuralCompressor(Rival):
    """In its own environment."""

    title = "Neural Compressor int8"
    folder = "inc-int8"

    def __init__(self, argument: str) -> None:
        refuse_argument("inc", argument)

    def check(self, question: Question) -> None:
        """Needs its environment."""
        inc_python(question.inputs.config.sensitivity.inc_python)

    def answer(self, question: Question, folder: Path) -> Path:
        """Lets it quantize the run's ONNX until the accuracy is good enough for it."""
        inputs, run, steps = question.inputs, question.run, question.steps
        python = inc_python(inputs.config.sensitivity.inc_python)
        pixels = question.calibration()
        search, own = data_of(inputs).search, data_of(inputs).contract
        evaluated, cpu = ensure_images(inputs, run, search.images, steps), default_runtime()

        goal = inputs.config.objective_set.maximised
        expected = load_predictions(run.predictions / f"{REFERENCE}.npz")

        def scored(model: Path) -> float:
            graph = ModelGraph(model, allow_quantized=True, image_size=own.image_size)
            contract, _ = detector_like(graph, own)
            with open_file(cpu, model, own.image_size) as runner:
                found = detect(cpu, runner, evaluated, contract)
            return score(search, found, [goal.metric], expected).figure(goal.name)

        with steps("Neural Compressor", 1):
            found = inc_tune(python, inputs.graph, pixels, scored, TuneSettings())
        folder.mkdir(parents=True)
        facts = {
            "command": found.command, goal.name: found.scores, "accepted": found.accepted, "seconds": found.seconds,
        }  # fmt: skip
        write_durably(folder / "tuning.json", json.dumps(facts, indent=1) + "\n")
        write_durably(folder / "model.onnx", found.model)
        return folder / "model.onnx"
