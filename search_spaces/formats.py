"""Number formats that one layer can be given, and how their scales are laid out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from search_spaces.errors import InputError, nearest


class Granularity(str, Enum):
    """How many elements of a weight share one scale."""

    AUTO = "auto"  # what the number format says; per channel where its blocks do not fit the input channels
    PER_TENSOR = "per_tensor"
    PER_CHANNEL = "per_channel"  # one scale per output channel
    BLOCK = "block"  # one scale per `block_size` input channels, per output channel and kernel tap


@dataclass(frozen=True)
class NumberSpec:
    """What there is to know of a number format of one operand; nothing else tells formats apart.

    Attributes:
        name: In studies, schemes and kept weights.
        onnx: Its name in ONNX's ``TensorProto.DataType``; of integers the signed one.
        bits: Of one element, as it is stored.
        least: Smallest code.
        largest: Largest code, at which the largest magnitude is put.
        exponent: Exponent bits of a float; 0 for integers, whose grid is even.
        opset: The first ONNX opset whose Q/DQ knows it, with scales per channel.
        quantized: Whether it needs a scale at all.
        granularity: Of a weight's scales, where the study leaves the choice.
        block_size: Input channels of a block, where blocks are part of the format: a weight then has them whatever the
            study's granularity, or not this format. 0: the study's `weights` decide.
        block_scale: Number format that scales of blocks are stored in; None: float32. One that needs a scale itself has
            a single one for the whole weight, float32: two levels.
        recovered: Whether a weight loses accuracy by plain rounding, so that `auto` looks for better codes.
    """

    name: str
    onnx: str
    bits: int
    least: float
    largest: float
    exponent: int = 0
    opset: int = 13
    quantized: bool = True
    granularity: Granularity = Granularity.PER_CHANNEL
    block_size: int = 0
    block_scale: NumberSpec | None = None
    recovered: bool = False

    def __hash__(self) -> int:
        """By name alone: every pair is looked up by its number, and all fields take a twentieth of the time."""
        return hash(self.name)

    @property
    def is_integer(self) -> bool:
        """Whether the elements are integers, on an even grid."""
        return self.exponent == 0

    @property
    def unsigned_onnx(self) -> str:
        """ONNX's name of the unsigned integers of the same size."""
        return f"U{self.onnx}"

    @property
    def least_normal(self) -> float:
        """Of a float, the least magnitude that has all bits of the mantissa, with IEEE's bias of the exponent."""
        return float(2.0 ** (2 - 2 ** (self.exponent - 1)))

    @property
    def words(self) -> str:
        """For people, e.g. ``8-bit integer``."""
        return f"{self.bits}-bit {'integer' if self.is_integer else 'float'}"

    @property
    def packing(self) -> int:
        """Elements that share a byte of a file."""
        return max(1, 8 // self.bits)


class Number:
    """The number formats."""

    FP16 = NumberSpec("fp16", "FLOAT16", 16, -65504.0, 65504.0, exponent=5, quantized=False)
    INT8 = NumberSpec("int8", "INT8", 8, -127.0, 127.0)
    INT4 = NumberSpec(
        "int4", "INT4", 4, -8.0, 7.0, opset=21, granularity=Granularity.BLOCK, block_scale=FP16, recovered=True
    )
    FP8 = NumberSpec("fp8", "FLOAT8E4M3FN", 8, -448.0, 448.0, exponent=4, opset=19)
    #: Sources: NVIDIA, "Introducing NVFP4 for Efficient and Accurate Low-Precision Inference", 2025; for its elements
    #: Rouhani et al., "OCP Microscaling Formats (MX) Specification", 2023.
    NVFP4 = NumberSpec(
        "nvfp4",
        "FLOAT4E2M1",
        4,
        -6.0,
        6.0,
        exponent=2,
        opset=23,
        granularity=Granularity.BLOCK,
        block_size=16,
        block_scale=FP8,
        recovered=True,
    )


@dataclass(frozen=True)
class Format:
    """What one layer computes in.

    Attributes:
        name: The name used in studies, schemes and reports.
        weight: Number format of the weight.
        activation: Number format of the data input (and, on integer runtimes, of the output).
    """

    name: str
    weight: NumberSpec
    activation: NumberSpec

    @property
    def quantizes_weight(self) -> bool:
        """Whether the weight is stored in fewer than 16 bits."""
        return self.weight.quantized

    @property
    def quantizes_activation(self) -> bool:
        """Whether the data input is quantized too."""
        return self.activation.quantized

    @property
    def words(self) -> str:
        """For people who do not know the name, e.g. ``8-bit integer weights and activations``."""
        if not self.quantizes_weight and not self.quantizes_activation:
            return "not quantized"
        if self.weight == self.activation:
            return f"{self.weight.words} weights and activations"
        weights = self.weight.words if self.quantizes_weight else "unquantized"
        rest = f"{self.activation.words} activations" if self.quantizes_activation else "activations not quantized"
        return f"{weights} weights, {rest}"


UNQUANTIZED = "fp16"

#: A line here is a format that a study can name; weights are signed.
FORMATS: dict[str, Format] = {
    f.name: f
    for f in (
        Format(UNQUANTIZED, Number.FP16, Number.FP16),
        Format("w8a16", Number.INT8, Number.FP16),
        Format("w4a16", Number.INT4, Number.FP16),
        Format("int8", Number.INT8, Number.INT8),
        Format("fp8", Number.FP8, Number.FP8),
        Format("w8a8f", Number.INT8, Number.FP8),
        Format("w4a8", Number.INT4, Number.FP8),
        Format("nvfp4", Number.NVFP4, Number.FP16),
    )
}
#: What a study searches that names none.
DEFAULT_FORMATS = (UNQUANTIZED, "int8", "w8a16", "w4a16")


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


def find_format(weight: NumberSpec, activation: NumberSpec) -> Format:
    """The first format of these two number formats.

    Raises:
        LookupError: There is none.
    """
    for fmt in FORMATS.values():
        if (fmt.weight, fmt.activation) == (weight, activation):
            return fmt
    raise LookupError(f"no format of {weight.name} weights and {activation.name} activations")


def numbers() -> list[NumberSpec]:
    """The number formats of the table, each once, in its order."""
    return list(dict.fromkeys(number for fmt in FORMATS.values() for number in (fmt.weight, fmt.activation)))


def get_number(name: str) -> NumberSpec:
    """The number format of that name, or of that name in ONNX, signed or unsigned.

    Raises:
        LookupError: No format of the table has it.
    """
    for number in numbers():
        if name in (number.name, number.onnx, number.unsigned_onnx):
            return number
    raise LookupError(f"no number format {name!r} (known: {', '.join(number.name for number in numbers())})")
