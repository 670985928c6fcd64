import dataclasses

import ml_dtypes
import numpy as np
import pytest

from objectives.quantization.weights import WeightSettings, quantize_weight, resolve_granularity
from search_spaces.errors import InputError
from search_spaces.formats import FORMATS, Granularity
from search_spaces.layers import Layer

CONV = Layer("conv", "Conv", "m.conv", "w", (16, 64, 3, 3), 1, 0, "x", "y", (1, 64, 8, 8), (1, 16, 8, 8), 9216, 0)
KINDS = {
    "conv": CONV,
    "depthwise": dataclasses.replace(CONV, weight_shape=(64, 1, 3, 3), groups=64),
    "transposed": dataclasses.replace(CONV, op="ConvTranspose", weight_shape=(64, 16, 2, 2), channel_axis=1),
    "gemm": dataclasses.replace(CONV, op="Gemm", weight_shape=(10, 64)),
    "matmul": dataclasses.replace(CONV, op="MatMul", weight_shape=(64, 10), channel_axis=1),
}
QUANTIZED = [name for name, fmt in FORMATS.items() if fmt.quantizes_weight]


def _weight(layer: Layer, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(layer.weight_shape).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fmt", QUANTIZED)
@pytest.mark.parametrize("granularity", list(Granularity))
def test_the_error_is_at_most_half_a_step(kind: str, fmt: str, granularity: Granularity) -> None:
    layer = KINDS[kind]
    weight = _weight(layer)
    if layer.lacks(FORMATS[fmt]):
        with pytest.raises(InputError, match=f"layer '{layer.name}'.*16 input channels"):
            quantize_weight(weight, layer, FORMATS[fmt], WeightSettings(granularity=granularity))
        return
    found = quantize_weight(weight, layer, FORMATS[fmt], WeightSettings(granularity=granularity))
    step = dataclasses.replace(found, codes=np.ones_like(weight, dtype=np.int8)).dequantized()
    error = np.abs(found.dequantized() - weight)
    if FORMATS[fmt].weight.is_integer:
        assert (error <= 0.5001 * step).all()
    else:  # half a unit: with three mantissa bits 1/16 of the value, or half the least subnormal
        number = FORMATS[fmt].weight
        unit = 2.0 ** (number.exponent + 1 - number.bits)
        assert (error <= np.maximum(np.abs(weight) * unit / 2, 0.5 * unit * number.least_normal * step) * 1.001).all()
    assert found.codes.shape == weight.shape


def test_auto_granularity_follows_bits_and_channels() -> None:
    auto = WeightSettings()
    channel = dict.fromkeys(("depthwise", "transposed"), "per_channel")
    expected = {"conv": "block", "gemm": "block", "matmul": "block", **channel}
    for kind, layer in KINDS.items():
        assert resolve_granularity(layer, FORMATS["w4a16"], auto).value == expected[kind]
        assert resolve_granularity(layer, FORMATS["int8"], auto) is Granularity.PER_CHANNEL
    odd = dataclasses.replace(CONV, weight_shape=(16, 48, 3, 3))
    assert resolve_granularity(odd, FORMATS["w4a16"], auto) is Granularity.PER_CHANNEL


def test_bytes_are_those_of_packed_codes_and_of_scales() -> None:
    weight = _weight(CONV)
    w4 = quantize_weight(weight, CONV, FORMATS["w4a16"], WeightSettings())
    assert (w4.code_bytes, w4.scale_bytes(2)) == (weight.size // 2, 2 * 16 * 2 * 9)
    w8 = quantize_weight(weight, CONV, FORMATS["int8"], WeightSettings())
    assert (w8.code_bytes, w8.scale_bytes(4)) == (weight.size, 4 * 16)


def test_a_dead_channel_stays_exactly_zero() -> None:
    weight = _weight(CONV)
    weight[3] = 0.0
    for fmt in QUANTIZED:
        found = quantize_weight(weight, CONV, FORMATS[fmt], WeightSettings())
        assert np.isfinite(found.scale).all()
        assert (found.dequantized()[3] == 0.0).all()


@pytest.mark.parametrize("factor", [1.0, 1e-3, 1e3, 1e-7])
def test_two_levels_of_scales_are_stored_exactly(factor: float) -> None:
    weight = _weight(CONV) * np.float32(factor)
    weight[0] = 0.0
    found = quantize_weight(weight, CONV, FORMATS["nvfp4"], WeightSettings(block_size=32))
    assert found.block_size == 16 and found.scale.shape == (16, 4, 3, 3)
    assert (found.code_bytes, found.scale_bytes(4)) == (weight.size // 2, weight.size // 16 + 4)
    multiples = found.scale / np.float32(found.tensor_scale)
    assert np.log2(found.tensor_scale) % 1 == 0 and multiples.max() <= 448
    np.testing.assert_array_equal(multiples.astype(ml_dtypes.float8_e4m3fn).astype(np.float32), multiples)
    if factor > 1e-6:  # in float16 too: no rounding is left to the graph's type
        np.testing.assert_array_equal(found.scale.astype(np.float16), found.scale)
        np.testing.assert_array_equal(found.dequantized().astype(np.float16), found.dequantized())


def test_settings_are_checked() -> None:
    with pytest.raises(
        InputError, match=r"weights.method: 'rnt' is not one of auto, rtn, bias, gptq.*did you mean 'rtn'"
    ):
        WeightSettings(method="rnt")
    with pytest.raises(InputError, match="block_size: 0"):
        WeightSettings(block_size=0)
    with pytest.raises(InputError, match=r"weights.sequential: 0 must be at least 1"):
        WeightSettings(sequential=0)


def test_block_scales_are_halves_where_halves_can_hold_them() -> None:
    weight = _weight(CONV)
    weight[0] *= 1e-5  # its scales are raised to the least normal half
    found = quantize_weight(weight, CONV, FORMATS["w4a16"], WeightSettings())
    assert found.scale.dtype == np.float16 and found.scale.min() == np.finfo(np.float16).tiny
    for factor in (1e-4, 1e7):
        scaled = quantize_weight(_weight(CONV) * np.float32(factor), CONV, FORMATS["w4a16"], WeightSettings())
        assert scaled.scale.dtype == np.float32
        error = np.abs(scaled.dequantized() / factor - _weight(CONV)).max()
        assert error < 0.55 * np.abs(_weight(CONV)).max() / 7
