"""ONNX Runtime as a runner: the CPU and the CUDA execution provider."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from types import TracebackType

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as MissingKernel

from objectives.runners.runner import RuntimeUnavailable
from search_spaces.errors import InputError
from search_spaces.model_graph import ModelGraph
from search_spaces.plugins import name_plugins, refusal

__all__ = ["OnnxRuntimeRunner", "RuntimeUnavailable"]


class OnnxRuntimeRunner:
    """One ONNX model in one ONNX Runtime session.

    Several threads may call `infer` at once: a session is thread-safe and releases the GIL.

    Args:
        model: Serialized ONNX, or the path of a file.
        threads: Threads inside one inference (intra-op).
        cuda: Use the CUDA execution provider.
        device: Index of the GPU, with `cuda`.
    """

    def __init__(self, model: bytes | Path, threads: int = 1, cuda: bool = False, device: int = 0) -> None:
        self._model = model
        self._threads = threads
        self._cuda = cuda
        self._device = device
        self._session: ort.InferenceSession | None = None

    def activate(self) -> None:
        """Loads the model.

        Raises:
            InputError: ONNX Runtime cannot load it.
            RuntimeUnavailable: The CUDA provider was asked for and is not there.
        """
        if self._cuda and "CUDAExecutionProvider" not in ort.get_available_providers():
            raise RuntimeUnavailable("onnxruntime-cuda: no CUDA execution provider here; `tuner doctor` says why")
        if self._cuda:
            with redirect_stdout(sys.stderr):  # it prints what it does not find
                ort.preload_dlls()  # CUDA's libraries may lie in pip packages, where the loader does not look
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what goes wrong is raised; it need not be said twice
        # A thread that spins while another model is timed would slow that one.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers = ["CUDAExecutionProvider"] if self._cuda else ["CPUExecutionProvider"]
        source = self._model if isinstance(self._model, bytes) else str(self._model)
        if isinstance(source, bytes):
            # Without any path ONNX Runtime 1.24 cannot fuse a Conv in a subgraph whose weight lies outside, and fails.
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", ".")
        try:
            try:
                self._session = ort.InferenceSession(source, options, providers=providers)
            except MissingKernel:
                # An operator in float64, say; if it computes positions from shapes, reading makes a constant of it.
                if isinstance(self._model, bytes):
                    raise
                source = ModelGraph(self._model, allow_quantized=True).in_own_types().SerializeToString()
                self._session = ort.InferenceSession(source, options, providers=providers)
        except Exception as error:  # ONNX Runtime raises many classes of its own
            said = f"ONNX Runtime cannot load the model: {str(error).splitlines()[0]}{self._remedy}"
            line = _lacking(source) or said
            raise InputError(line) from None
        if self._cuda and "CUDAExecutionProvider" not in self._session.get_providers():
            self._session = None  # ONNX Runtime itself would go on on the CPU
            raise RuntimeUnavailable(
                f"onnxruntime-cuda: ONNX Runtime {ort.__version__} cannot load its CUDA provider; "
                "install the CUDA and cuDNN that it was built for, or choose onnxruntime-cpu"
            )
        first = self._session.get_inputs()[0]
        self._input = first.name
        self._kind = np.float16 if first.type == "tensor(float16)" else np.float32
        self._single = len(first.shape) == 3

    def deactivate(self) -> None:
        """Frees the session."""
        self._session = None

    def __enter__(self) -> OnnxRuntimeRunner:
        self.activate()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.deactivate()

    @property
    def session(self) -> ort.InferenceSession:
        """The loaded session.

        Raises:
            RuntimeError: The runner is not active.
        """
        if self._session is None:
            raise RuntimeError("the runner is not active; use it in a `with` block")
        return self._session

    @property
    def input_shape(self) -> tuple[int, ...]:
        """``(N, 3, H, W)``; 0 where the model leaves a dimension open."""
        shape = tuple(dim if isinstance(dim, int) else 0 for dim in self.session.get_inputs()[0].shape)
        return (1, *shape) if self._single else shape

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs, in graph order."""
        return tuple(output.name for output in self.session.get_outputs())

    @property
    def _remedy(self) -> str:
        """What a user can do about a file; a scheme in memory is none of theirs."""
        return "" if isinstance(self._model, bytes) else "; export it again, or choose another runtime"

    def infer(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """Runs one batch ``(N, 3, H, W)`` float32 and returns the outputs in graph order.

        A model with a float16 input or output takes and gives the same numbers here in float32; one whose input has no
        batch takes the one image.
        """
        session = self.session
        given = images[0] if self._single and len(images) == 1 else images
        try:
            found = session.run(None, {self._input: given.astype(self._kind, copy=False)})
        except Exception as error:  # ONNX Runtime raises many classes of its own
            if self._cuda or not type(error).__module__.startswith("onnxruntime"):
                raise  # a device may fail whatever the model is
            said = str(error).splitlines()[0]
            raise InputError(f"ONNX Runtime cannot run the model: {said}{self._remedy}") from None
        return tuple(values.astype(np.float32) if values.dtype == np.float16 else values for values in found)


def _lacking(model: bytes | str) -> str:
    """Which plugins ONNX Runtime lacks for a model that it could not load; empty where that is not the reason."""
    try:
        read = onnx.load_from_string(model) if isinstance(model, bytes) else onnx.load(model, load_external_data=False)
    except Exception:  # it is no model at all
        return ""
    name_plugins(read)
    why = refusal(read, "ONNX Runtime")
    return f"the model {why}" if why else ""
