"""Number formats that one layer can be given, and how their scales are laid out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from search_spaces.errors import InputError, nearest


class Number(str, Enum):
    """A number format of one operand."""

    FP16 = "fp16"
    FP8 = "fp8"  # e4m3fn
    INT8 = "int8"
    INT4 = "int4"

    @property
    def bits(self) -> int:
        """Bits of one element."""
        return {"fp16": 16, "fp8": 8, "int8": 8, "int4": 4}[self.value]

    @property
    def is_integer(self) -> bool:
        """Whether the elements are integers (they then need rounding, so weights may be recovered by GPTQ)."""
        return self in (Number.INT8, Number.INT4)


class Granularity(str, Enum):
    """How many elements of a weight share one scale."""

    AUTO = "auto"  # per channel for 8 bit; block for 4 bit where the input channels allow, else per channel
    PER_TENSOR = "per_tensor"
    PER_CHANNEL = "per_channel"  # one scale per output channel
    BLOCK = "block"  # one scale per `block_size` input channels, per output channel and kernel tap


@dataclass(frozen=True)
class Format:
    """What one layer computes in.

    Attributes:
        name: The name used in studies, schemes and reports.
        weight: Number format of the weight.
        activation: Number format of the data input (and, on integer runtimes, of the output).
        modelopt_config: NVIDIA ModelOpt's name for the same choice; None for the unquantized layer.
    """

    name: str
    weight: Number
    activation: Number
    modelopt_config: str | None

    @property
    def quantizes_weight(self) -> bool:
        """Whether the weight is stored in fewer than 16 bits."""
        return self.weight is not Number.FP16

    @property
    def quantizes_activation(self) -> bool:
        """Whether the data input is quantized too."""
        return self.activation is not Number.FP16


UNQUANTIZED = "fp16"

FORMATS: dict[str, Format] = {
    f.name: f
    for f in (
        Format(UNQUANTIZED, Number.FP16, Number.FP16, None),
        Format("w8a16", Number.INT8, Number.FP16, "INT8_WEIGHT_ONLY_CFG"),
        Format("w4a16", Number.INT4, Number.FP16, "INT4_BLOCKWISE_WEIGHT_ONLY_CFG"),
        Format("int8", Number.INT8, Number.INT8, "INT8_DEFAULT_CFG"),
        Format("fp8", Number.FP8, Number.FP8, "FP8_DEFAULT_CFG"),
        Format("w8a8f", Number.INT8, Number.FP8, "INT8_WEIGHT_FP8_ACT_CFG"),
        Format("w4a8", Number.INT4, Number.FP8, "INT4_WEIGHT_FP8_ACT_CFG"),
    )
}


def get_format(name: str) -> Format:
    """Returns the format called `name`.

    Raises:
        InputError: No format has that name.
    """
    try:
        return FORMATS[name]
    except (KeyError, TypeError):  # unknown, or not even a text
        name = str(name)
        raise InputError(f"unknown format {name!r}{nearest(name, FORMATS)} (known: {', '.join(FORMATS)})") from None
