"""The fast GPTQ against the paper's plain loop, and PyTorch's against NumPy's."""

import numpy as np
import pytest
from numpy.typing import NDArray

from objectives.quantization.gptq import Activity, Moments, gptq, output_error
from objectives.quantization.weights import WeightSettings
from search_spaces.errors import InputError


def _columns(groups: int, width: int, seed: int = 0) -> NDArray[np.float32]:
    random = np.random.default_rng(seed)
    mixed = random.standard_normal((groups, 700, width)) @ random.standard_normal((groups, width, width)) + 1.0
    mixed[:, :, 0] = 0  # a dead input
    return mixed.astype(np.float32)


def _weight(groups: int, rows: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    weight = np.random.default_rng(1).standard_normal((groups, rows, width)).astype(np.float32)
    unit = np.broadcast_to(np.abs(weight).max(axis=2, keepdims=True) / 7, weight.shape)
    return weight, np.ascontiguousarray(unit)


def _plain_loop(weight: NDArray[np.float32], unit: NDArray[np.float32], known: Activity) -> NDArray[np.int8]:
    """Algorithm 1 of the paper, with its inverse and no batching: every error moves all columns that follow at once."""
    codes = np.zeros(weight.shape, np.int8)
    for group, order in enumerate(known.order):
        hessian = known.hessian[group].astype(np.float64)
        diagonal = hessian.diagonal()
        hessian += np.diag(np.where(diagonal > 0, 0.01, 1.0) * diagonal.mean())
        upper = np.linalg.cholesky(np.linalg.inv(hessian[np.ix_(order, order)])).T
        rest = weight[group].astype(np.float64)
        for place, column in enumerate(order):
            step = unit[group, :, column].astype(np.float64)
            code = np.clip(np.rint(rest[:, column] / step), -8, 7)
            error = (rest[:, column] - code * step) / upper[place, place]
            rest[:, order[place + 1 :]] -= error[:, None] * upper[place, place + 1 :]
            codes[group, :, column] = code
    return codes


@pytest.mark.parametrize(("groups", "width"), [(1, 5), (1, 200), (6, 9), (2, 130)])
def test_halves_of_halves_round_as_the_plain_loop(groups: int, width: int) -> None:
    columns = _columns(groups, width)
    moments = Moments(groups, width)
    for part in np.split(columns, [100, 350], axis=1):
        moments.add(part)
    known = moments.activity(centred=False)
    exact = columns.astype(np.float64)
    second = exact.transpose(0, 2, 1) @ exact / 700
    np.testing.assert_allclose(known.hessian, second, rtol=1e-4, atol=1e-4 * second.max())
    weight, unit = _weight(groups, 12, width)
    ours, plain = gptq(weight, unit, (-8, 7), known), _plain_loop(weight, unit, known)
    worse = output_error(plain * unit - weight, known.hessian) > output_error(
        np.rint(weight / unit) * unit - weight, known.hessian
    )
    np.testing.assert_array_equal(ours[~worse], plain[~worse])
    assert not worse.all()


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize(("groups", "width"), [(1, 5), (1, 200), (6, 9)])
def test_pytorch_gives_numpys_weights_within_rounding(groups: int, width: int, centred: bool) -> None:
    pytest.importorskip("torch", reason="needs the torch extra")
    from objectives.quantization.gptq_torch import TorchMoments

    columns = _columns(groups, width)
    ours, theirs = Moments(groups, width), TorchMoments("cpu", groups, width)
    for part in np.split(columns, [100, 350], axis=1):
        ours.add(part)
        theirs.add(part)
    assert ours.finite and theirs.finite
    np.testing.assert_allclose(theirs.mean, ours.mean, rtol=1e-6, atol=1e-6)
    known, other = ours.activity(centred), theirs.activity(centred)
    weight, unit = _weight(groups, 12, width)
    codes, twin = known.round(weight, unit, (-8, 7)), other.round(weight, unit, (-8, 7))
    assert (codes == twin).mean() > 0.99  # a sum in another order may turn a tie
    errors = [output_error(found * unit - weight, known.hessian).sum() for found in (codes, twin)]
    assert errors[1] == pytest.approx(errors[0], rel=0.01)


def test_a_device_that_is_not_there() -> None:
    torch = pytest.importorskip("torch", reason="needs the torch extra")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    from objectives.quantization.gptq_torch import check_device

    with pytest.raises(InputError, match=r"weights.device: 'cuda' is not there \(.*\); choose cpu"):
        check_device(WeightSettings(device="cuda").device)
