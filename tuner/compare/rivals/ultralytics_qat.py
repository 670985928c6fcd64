"""A checkpoint of Ultralytics' quantization-aware training (``yolo train quantize=8``): ``ultralytics-qat:FILE.pt``."""

from __future__ import annotations

from pathlib import Path

from search_spaces.errors import InputError
from search_spaces.limits import memory_limit
from search_spaces.reading import digest_of, is_file
from tuner.compare.rivals.rival import Question, Rival
from tuner.prepare.images import data_of

_NAME = "ultralytics-qat"


class UltralyticsQat(Rival):
    """Exported with the Q/DQ that it was trained with; its weights are its own, not the run's."""

    def __init__(self, argument: str) -> None:
        self.path = Path(argument)
        wanted = f"give a checkpoint of `yolo train quantize=8`, {_NAME}:FILE.pt"
        if not argument or not is_file(self.path):
            raise InputError(f"{_NAME} {argument!r}: no such file; {wanted}")
        # Every training calls its checkpoint best.pt.
        digest = digest_of(self.path, memory_limit(), wanted)[:8]
        self.title = f"Ultralytics QAT {self.path.stem} {digest}"
        self.folder = f"{_NAME}-{digest}"

    def check(self, question: Question) -> None:
        """Needs the `torch` extra, and a checkpoint with quantizers."""
        from objectives.torch_models.checkpoint import load_qat_checkpoint
        from objectives.torch_models.packages import require_modelopt

        load_qat_checkpoint(self.path)
        require_modelopt(self.title)

    def answer(self, question: Question, folder: Path) -> Path:
        """Exports it for the run's image size and head."""
        from objectives.torch_models.checkpoint import load_qat_checkpoint
        from objectives.torch_models.yolo_export import yolo_export

        contract = data_of(question.inputs).contract
        checkpoint = load_qat_checkpoint(self.path)
        with question.steps(self.title, 1):
            return yolo_export(checkpoint, folder, contract.image_size, contract.head.one_to_one).model
