"""Every dialect that the project writes, by the name that tests call it."""

from objectives.quantization.dialect import Dialect
from objectives.runtimes.onnxruntime.dialect import ONNXRUNTIME as ORT
from objectives.runtimes.tensorrt.dialect import STRONGLY_TYPED as TRT
from objectives.runtimes.tensorrt.dialect import WEAKLY_TYPED as TRT8

DIALECTS: dict[str, Dialect] = {"onnxruntime": ORT, "tensorrt": TRT, "tensorrt-8": TRT8}
