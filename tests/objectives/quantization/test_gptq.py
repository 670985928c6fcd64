"""The fast GPTQ against the paper's plain loop, and PyTorch's against NumPy's."""

import numpy as np
import pytest
from numpy.typing import NDArray
from output_error import output_error

from objectives.quantization.gptq import Activity, Means, Moments
from objectives.quantization.scales import Sharing
from objectives.quantization.weights import WeightSettings
from search_spaces.errors import InputError
from search_spaces.formats import Number


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
    ours = known.feed_back(weight.swapaxes(1, 2), unit.swapaxes(1, 2), Number.INT4).swapaxes(1, 2)
    np.testing.assert_array_equal(ours, _plain_loop(weight, unit, known))


def test_pivots_are_what_is_left_of_an_input_that_the_others_foretell() -> None:
    random = np.random.default_rng(2)
    hessian = np.cov(random.standard_normal((9, 6)) @ random.standard_normal((6, 6)), rowvar=False)[None]
    known = Activity.of(hessian)
    damped = hessian[0] + 0.01 * hessian[0].diagonal().mean() * np.eye(6)
    for place, column in enumerate(known.order[0]):
        later = known.order[0, place + 1 :]
        told = damped[column, later] @ np.linalg.pinv(damped[np.ix_(later, later)]) @ damped[later, column]
        assert known.pivots[0, column] == pytest.approx(damped[column, column] - told, rel=1e-4)


SHARED = [(1, 5, Sharing(1, 5, 1)), (1, 200, Sharing(5, 20, 2, number=Number.FP16)), (6, 9, Sharing(1, 9, 1))]


def _scales(weight: NDArray[np.float32], sharing: Sharing) -> NDArray[np.float32]:
    split = np.abs(weight).reshape(*weight.shape[:2], sharing.blocks, sharing.size, sharing.taps)
    scale = split.max(axis=3).reshape(*weight.shape[:2], -1) / 7
    return np.asarray(sharing.stored(np, scale), np.float32)


def test_searched_scales_leave_far_less_error_than_gptq_with_those_of_the_largest_weights() -> None:
    known = Moments(1, 200)
    known.add(_columns(1, 200))
    activity = known.activity(centred=True)
    weight, unit = _weight(1, 12, 200)
    codes = activity.feed_back(weight.swapaxes(1, 2), unit.swapaxes(1, 2), Number.INT4).swapaxes(1, 2)
    found, scale = activity.search(weight, unit[:, :, :1], Sharing(1, 200, 1), Number.INT4)
    ours, today = (output_error(one - weight, activity.hessian).sum() for one in (found * scale, codes * unit))
    assert ours < 0.8 * today


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize(("groups", "width", "sharing"), SHARED)
def test_pytorch_gives_numpys_weights_within_rounding(groups: int, width: int, sharing: Sharing, centred: bool) -> None:
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
    weight, _ = _weight(groups, 12, width)
    start = _scales(weight, sharing)
    results = [one.search(weight, start, sharing, Number.INT4) for one in (known, other)]
    (codes, scale), (twin, other_scale) = results
    same = (codes == twin).all(axis=2)
    assert (codes == twin).mean() > 0.95 and same.any()  # a sum in another order may turn a tie, and what follows it
    np.testing.assert_allclose(other_scale[same], scale[same], rtol=1e-3)
    errors = [
        output_error(codes * sharing.spread(scale.swapaxes(1, 2)).swapaxes(1, 2) - weight, known.hessian).sum()
        for codes, scale in results
    ]
    assert errors[1] == pytest.approx(errors[0], rel=0.01)


def test_a_device_that_is_not_there() -> None:
    torch = pytest.importorskip("torch", reason="needs the torch extra")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    from objectives.quantization.gptq_torch import check_device

    with pytest.raises(InputError, match=r"weights.device: 'cuda' is not there \(.*\); choose cpu"):
        check_device(WeightSettings(device="cuda").device)


def test_means_are_those_of_the_moments() -> None:
    random = np.random.default_rng(0)
    means, moments = Means(2, 5), Moments(2, 5)
    for _ in range(3):
        columns = random.normal(size=(2, 7, 5)).astype(np.float32)
        means.add(columns)
        moments.add(columns)
    np.testing.assert_array_equal(means.mean, moments.mean)
    assert means.finite
    means.add(np.full((2, 1, 5), np.nan, np.float32))
    assert not means.finite
