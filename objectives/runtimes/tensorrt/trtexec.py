"""The command that builds a scheme's engine without us: NVIDIA's ``trtexec``, with the flags of our own build."""

from __future__ import annotations

import shlex
from collections.abc import Collection

from objectives.runtimes.tensorrt.rules import BuilderSettings, build_flags

#: What ``--tacticSources`` knows (TensorRT developer guide, "trtexec": commonly used flags).
_SOURCES = ("CUBLAS", "CUBLAS_LT", "CUDNN", "EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS")


def trtexec_command(
    version: str, settings: BuilderSettings, fp32_layers: Collection[str] = (), *, quantized: bool, model: str
) -> str:
    """Returns one line that builds the engine and times it by CUDA graph, as `tuner` did.

    Args:
        version: TensorRT's, e.g. ``10.13``.
        settings: The study's builder settings.
        fp32_layers: Nodes that keep fp32 where the graph's types do not say so (before TensorRT 10).
        quantized: Whether the model holds Q/DQ; without any, int8 would ask for a calibrator.
        model: File name of the ONNX.
    """
    flags = build_flags(version)
    words = ["trtexec", f"--onnx={model}", "--saveEngine=engine.plan"]
    if flags.strongly_typed:
        words.append("--stronglyTyped")
    else:
        words += ["--fp16"] * flags.fp16 + ["--int8"] * (flags.int8 and quantized)
        words.append(f"--precisionConstraints={flags.precision_constraints}")
        named = ",".join(f"{name}:fp32" for name in sorted(fp32_layers))
        words += [f"--layerPrecisions={named}", f"--layerOutputTypes={named}"] if named else []
    words.append(f"--builderOptimizationLevel={settings.optimization_level}")
    words.append(f"--avgTiming={settings.timing_iterations}")
    if settings.workspace_mib is not None:
        words.append(f"--memPoolSize=workspace:{settings.workspace_mib}")
    if settings.tactic_sources is not None:
        known = dict.fromkeys((*_SOURCES, *settings.tactic_sources))
        signs = ",".join(("+" if name in settings.tactic_sources else "-") + name for name in known)
        words.append(f"--tacticSources={signs}")
    words += [f"--device={settings.device}"] if settings.device else []
    return shlex.join([*words, "--profilingVerbosity=detailed", "--useCudaGraph"])
