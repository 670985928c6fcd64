"""The exported command: the flags of our own build, version by version."""

import shlex

from objectives.runtimes.tensorrt.rules import BuilderSettings
from objectives.runtimes.tensorrt.trtexec import trtexec_command

SETTINGS = BuilderSettings(2, 512, ("JIT_CONVOLUTIONS",), timing_iterations=4, device=1)


def test_types_decide_from_tensorrt_10_on() -> None:
    words = shlex.split(trtexec_command("10.13.3", SETTINGS, {"/a"}, quantized=True, model="build.onnx"))
    assert words[:3] == ["trtexec", "--onnx=build.onnx", "--saveEngine=engine.plan"]
    assert "--stronglyTyped" in words and "--int8" not in words and "--fp16" not in words
    assert not any(word.startswith("--layerPrecisions") for word in words)
    asked = {"--builderOptimizationLevel=2", "--memPoolSize=workspace:512", "--avgTiming=4", "--device=1"}
    assert asked <= set(words)


def test_flags_and_obeyed_constraints_before() -> None:
    line = trtexec_command("8.6.1", BuilderSettings(), {"/b/Mul", "/a b/Add"}, quantized=True, model="model.onnx")
    words = shlex.split(line)
    assert {"--fp16", "--int8", "--precisionConstraints=obey"} <= set(words) and "--stronglyTyped" not in words
    assert "--avgTiming=1" in words  # trtexec's own default is 8, the builder's 1
    assert "--layerPrecisions=/a b/Add:fp32,/b/Mul:fp32" in words
    assert "--layerOutputTypes=/a b/Add:fp32,/b/Mul:fp32" in words
    assert not any(word.startswith(("--tacticSources", "--memPoolSize", "--device")) for word in words)


def test_no_int8_without_quantized_layers() -> None:
    assert "--int8" not in trtexec_command("8.6.1", BuilderSettings(), quantized=False, model="model.onnx")


def test_the_named_tactic_sources_are_the_only_ones() -> None:
    line = trtexec_command("8.6.1", SETTINGS, quantized=True, model="model.onnx")
    (sources,) = (word for word in shlex.split(line) if word.startswith("--tacticSources="))
    signs = dict((name[1:], name[0]) for name in sources.partition("=")[2].split(","))
    assert [name for name, sign in signs.items() if sign == "+"] == ["JIT_CONVOLUTIONS"] and len(signs) == 5
