"""Ultralytics' own int8 (``yolo export quantize=8``) of the run's checkpoint: ``ultralytics-int8[:CHECKPOINT.pt]``."""

from __future__ import annotations

from pathlib import Path

from search_spaces.errors import InputError
from tuner.compare.rivals.rival import Question, Rival
from tuner.prepare.images import data_of
from tuner.prepare.sensitivity_sources import named_checkpoint

_NAME = "ultralytics-int8"


class UltralyticsInt8(Rival):
    """Post-training quantization with the run's calibration images."""

    title = "Ultralytics int8"
    folder = _NAME

    def __init__(self, argument: str) -> None:
        self.named = Path(argument) if argument else None

    def check(self, question: Question) -> None:
        """Needs the `torch` extra, and the checkpoint that the run's model was exported from."""
        from objectives.torch_models.checkpoint import load_checkpoint
        from objectives.torch_models.export import map_checkpoint

        path, graph = self._path(question), question.inputs.graph
        one_to_one = data_of(question.inputs).contract.head.one_to_one
        map_checkpoint(load_checkpoint(path), graph, one_to_one).require_complete(str(path), str(graph.path))

    def answer(self, question: Question, folder: Path) -> Path:
        """Exports it for the run's image size and head."""
        from objectives.torch_models.checkpoint import load_checkpoint
        from objectives.torch_models.yolo_export import yolo_export

        data = data_of(question.inputs)
        contract, images = data.contract, data.calibration.images[: question.images]
        checkpoint = load_checkpoint(self._path(question))
        with question.steps(self.title, 1):
            return yolo_export(checkpoint, folder, contract.image_size, contract.head.one_to_one, images).model

    def _path(self, question: Question) -> Path:
        path = self.named or named_checkpoint(question.inputs.config)
        if path is None:
            model = question.inputs.config.model.path
            raise InputError(f"{_NAME}: Ultralytics exports a checkpoint; name the .pt of {model}: {_NAME}:FILE.pt")
        return path
