"""A compiled model of OpenVINO as a runner."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from objectives.runtimes.openvino.devices import first_line
from search_spaces.errors import InputError

if TYPE_CHECKING:
    import openvino


class OpenVinoRunner:
    """One compiled model; several threads may call `infer` at once.

    Args:
        compiled: The model.
        names: Of its outputs as its user knows them, where that is known: a tensor of OpenVINO may have several names.
        kept: The file that it was loaded from, if it was.
    """

    def __init__(self, compiled: openvino.CompiledModel, names: Sequence[str] = (), kept: Path | None = None) -> None:
        self.compiled = compiled
        self.kept = kept
        self._own = threading.local()
        self._names = set(names)
        kind = compiled.input(0).get_element_type().to_dtype()
        self._kind = np.float16 if kind == np.float16 else np.float32

    @property
    def input_shape(self) -> tuple[int, ...]:
        """``(N, 3, H, W)``; 0 where the model leaves a dimension open."""
        shape = self.compiled.input(0).get_partial_shape()
        return tuple(dim.get_length() if dim.is_static else 0 for dim in shape)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs, in graph order."""
        found = (output.get_names() for output in self.compiled.outputs)
        return tuple(min(names & self._names or names) for names in found)

    def infer(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """Runs one batch ``(N, 3, H, W)`` float32 and returns the outputs in graph order.

        Raises:
            InputError: OpenVINO cannot run it.
        """
        if not hasattr(self._own, "request"):
            self._own.request = self.compiled.create_infer_request()
        try:
            found = self._own.request.infer(images.astype(self._kind, copy=False))
        except RuntimeError as error:
            raise InputError(f"OpenVINO cannot run the model: {first_line(error)}") from None
        # A request writes its next answer into the same memory.
        kept = [np.array(found[index]) for index in range(len(self.compiled.outputs))]
        return tuple(values.astype(np.float32) if values.dtype == np.float16 else values for values in kept)
