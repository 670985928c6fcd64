"""Formats as NVIDIA ModelOpt configures them in torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from search_spaces.errors import InputError
from search_spaces.formats import FORMATS, Format, NumberSpec

PER_LAYER, PER_CHANNEL = "per_layer", "per_channel"
GRANULARITIES = (PER_LAYER, PER_CHANNEL)
_OFF: dict[str, Any] = {"quantizer_name": "*", "enable": False}


def config_name(fmt: str) -> str:
    """The name of a format's config: ModelOpt's preset, or what it would be called where there is none.

    ModelOpt's only int4 weight preset scales blocks of 128 along the last axis, which for a convolution is a row of its
    kernel; here it has one scale per channel or per layer like the others, and is named for that.
    """
    weight, activation = FORMATS[fmt].weight, FORMATS[fmt].activation
    if not activation.quantized:
        kind = "WEIGHT_ONLY"
    else:
        kind = "DEFAULT" if weight == activation else f"WEIGHT_{activation.name.upper()}_ACT"
    return f"{weight.name.upper()}_{kind}_CFG"


def uniform_config(fmt: str, granularity: str) -> dict[str, Any]:
    """ModelOpt's config of one format for every layer.

    For `INT8_DEFAULT_CFG`, `INT8_WEIGHT_ONLY_CFG` and `FP8_DEFAULT_CFG` it holds what the presets of these names say
    of weights and inputs; the presets' exceptions, for parts of language models, do not apply to a detector.

    Args:
        fmt: A quantizing format.
        granularity: ``per_layer`` (one scale per weight) or ``per_channel`` (one per output channel).

    Raises:
        InputError: The format is made of blocks.
    """
    return {"quant_cfg": [_OFF, *_entries("", FORMATS[fmt], granularity)], "algorithm": "max"}


def scheme_config(formats: Mapping[str, str], granularity: str) -> dict[str, Any]:
    """ModelOpt's config of one format per module, by module names.

    Args:
        formats: ``{module: format}``; modules that it leaves out stay unquantized.
        granularity: As in `uniform_config`.

    Raises:
        InputError: As it does.
    """
    entries: list[dict[str, Any]] = [_OFF]
    for module, name in formats.items():
        if FORMATS[name].quantizes_weight:
            entries += _entries(f"{module}.", FORMATS[name], granularity)
    return {"quant_cfg": entries, "algorithm": "max"}


def _bits(number: NumberSpec) -> int | tuple[int, int]:
    """As ModelOpt writes it: bits of integers, exponent and mantissa of floats."""
    return number.bits if number.is_integer else (number.exponent, number.bits - 1 - number.exponent)


def _entries(prefix: str, fmt: Format, granularity: str) -> list[dict[str, Any]]:
    if fmt.weight.block_size:  # its blocks lie along a weight's last axis: a row of the kernel, not input channels
        raise InputError(
            f"{fmt.name}: its blocks of {fmt.weight.block_size} input channels are none of ModelOpt's; use the ONNX "
            "way (sensitivity.method: onnx, --by onnx)"
        )
    pattern = prefix or "*"
    axis = 0 if granularity == PER_CHANNEL else None
    weights: dict[str, Any] = {"cfg": {"num_bits": _bits(fmt.weight), "axis": axis}}
    inputs: dict[str, Any] = {"enable": False}
    if fmt.quantizes_activation:
        inputs = {"cfg": {"num_bits": _bits(fmt.activation), "axis": None}}
    return [
        {"quantizer_name": f"{pattern}weight_quantizer", **weights},
        {"quantizer_name": f"{pattern}input_quantizer", **inputs},
    ]
