"""What depends on TensorRT's version, and what its builder says when it fails; needs no GPU."""

import pytest

from objectives.runtimes.owners import first_layer
from objectives.runtimes.support import COMPUTES, SupportKind
from objectives.runtimes.tensorrt.build_log import read_build_errors
from objectives.runtimes.tensorrt.dialect import dialect_of
from objectives.runtimes.tensorrt.rules import build_flags, parse_version, strongly_typed, support
from search_spaces.errors import InputError
from search_spaces.formats import FORMATS

LAYERS = ["/model.0/conv/Conv", "/model.1/conv/Conv", "/model.10/attn/pe/conv/Conv", "/model.1/conv/Conv_1", "head"]


@pytest.mark.parametrize(("version", "typed"), [("8.6.0", False), ("10.0.1", True), ("11.2", True)])
def test_types_decide_from_ten_on(version: str, typed: bool) -> None:
    flags = build_flags(version)
    assert strongly_typed(version) is typed and dialect_of(version).half_graph is typed
    assert flags.strongly_typed is typed
    assert (flags.fp16, flags.int8) == ((False, False) if flags.strongly_typed else (True, True))
    assert flags.precision_constraints == (None if flags.strongly_typed else "obey")


def test_a_version_that_is_none() -> None:
    with pytest.raises(InputError, match="'latest'"):
        parse_version("latest")


def test_formats_by_version_and_gpu() -> None:
    old = {name: support(fmt, "8.6.0", (9, 0)) for name, fmt in FORMATS.items()}
    new = {name: support(fmt, "10.13.2", (9, 0)) for name, fmt in FORMATS.items()}
    assert old["int8"] == old["fp16"] == new["fp8"] == COMPUTES
    assert old["fp8"].kind is SupportKind.IMPOSSIBLE and "TensorRT >= 10" in old["fp8"].text
    for name in ("w4a8", "w8a8f"):
        assert new[name].kind is SupportKind.IMPOSSIBLE and f"{name} has int" in new[name].text
    assert new["w4a16"].kind is SupportKind.STORES and "size only" in new["w4a16"].text
    assert "sm_89" in support(FORMATS["fp8"], "10.13.2", (8, 6)).text
    assert old["w4a16"].kind is SupportKind.STORES and "size only" in old["w4a16"].text


def test_four_bit_floats_need_a_blackwell_gpu() -> None:
    fmt = FORMATS["nvfp4"]
    found = support(fmt, "10.13.2", (12, 0))
    assert found.kind is SupportKind.STORES and "size only" in found.text
    assert "nvfp4 needs sm_100 or newer (this is sm_90)" in support(fmt, "10.13.2", (9, 0)).text
    assert "nvfp4 needs TensorRT >= 10.8 (this is 10.3.0)" in support(fmt, "10.3.0", (12, 0)).text
    assert support(fmt, "8.6.0", (9, 0)).kind is SupportKind.STORES  # there the builder gets them unpacked


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("/model.1/conv/Conv", "/model.1/conv/Conv"),
        ("/model.1/conv/Conv_1", "/model.1/conv/Conv_1"),
        ("model.0.conv.weight + /model.0/conv/Conv + PWN(/model.0/act/Sigmoid)", "/model.0/conv/Conv"),
        ("{ForeignNode[/model.10/attn/pe/conv/Conv.../model.22/Concat]}", "/model.10/attn/pe/conv/Conv"),
        ("Reformatting CopyNode for Input Tensor 0 to /model.1/conv/Conv", "/model.1/conv/Conv"),
        ("/model.1/conv/Conv || /model.0/conv/Conv", "/model.1/conv/Conv"),
        ("/model.1/conv/Conv_clone_0", "/model.1/conv/Conv"),
        ("/other/model.1/conv/Convolve", ""),
        ("overhead", ""),
    ],
)
def test_the_first_whole_name_counts(name: str, layer: str) -> None:
    assert first_layer(name, LAYERS) == layer


def test_a_missing_implementation_names_its_layer() -> None:
    errors = [
        "[optimizer.cpp::computeCosts::3873] Error Code 10: Internal Error (Could not find any implementation for node "
        "/model.10/attn/pe/conv/Conv.)",
        "[builder.cpp::buildSerializedNetwork::743] Error Code 2: Internal Error (Assertion engine failed. )",
        "Invalid Engine. Please ensure the engine was built correctly",
    ]
    verdict = read_build_errors(errors, LAYERS)
    assert verdict.layer == "/model.10/attn/pe/conv/Conv" and not verdict.memory
    assert "Could not find any implementation" in verdict.message and "computeCosts" not in verdict.message


def test_a_parser_error_names_its_node() -> None:
    errors = [
        "In node 12 with name: /model.1/conv/Conv and operator: Conv (importConv): UNSUPPORTED_NODE: [8] Assertion",
        "Failed to parse ONNX model. Does the model file exist and contain a valid ONNX model?",
    ]
    assert read_build_errors(errors, LAYERS).layer == "/model.1/conv/Conv"


def test_memory_is_told_apart_and_a_nameless_failure_stays_nameless() -> None:
    memory = read_build_errors(["[executionContext.cpp] Error Code 2: OutOfMemory (no further information)"], LAYERS)
    assert memory.memory and memory.layer == ""
    other = read_build_errors(["Error Code 1: Cuda Runtime (invalid argument)"], LAYERS)
    assert other.layer == "" and "invalid argument" in other.message
    assert "named no reason" in read_build_errors([], LAYERS).message


def test_a_workspace_that_is_too_small_names_its_setting() -> None:
    line = "4: Could not find any implementation for node /model.1/conv/Conv due to insufficient workspace."
    verdict = read_build_errors([line], LAYERS)
    assert verdict.layer == "/model.1/conv/Conv" and not verdict.memory
    assert verdict.message.startswith("Could not find any") and verdict.message.endswith("or leave it out.")
    assert "runtime.workspace_mib" in verdict.message
