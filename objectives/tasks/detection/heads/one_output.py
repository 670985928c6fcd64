"""What heads share that read one output."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeVar

from objectives.tasks.detection.heads.head import Candidate, first_output

One = TypeVar("One", bound="OneOutput")


class OneOutput(ABC):
    """A head that reads one output, the first that it can be; a frozen dataclass that has `output`.

    Attributes:
        output: Name of the output.
    """

    output: str

    @classmethod
    def recognise(cls: type[One], model: Candidate) -> One:
        """As `Head` says."""
        return first_output(model, lambda name, shape: cls._read(model, name, shape))

    @classmethod
    @abstractmethod
    def _read(cls: type[One], model: Candidate, output: str, shape: tuple[int, ...]) -> One:
        """What the head makes of one output.

        Raises:
            NotThisHead: It is of another head.
        """

    @property
    def outputs(self) -> tuple[str, ...]:
        """The one output."""
        return (self.output,)
