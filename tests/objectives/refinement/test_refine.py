"""Refinement comes nearer on images that it did not learn on, keeps the size, and drops what gains nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from objectives.quantization.materialize import Materializer
from objectives.runtimes.onnxruntime.dialect import ONNXRUNTIME
from search_spaces.errors import InputError

torch = pytest.importorskip("torch", reason="the torch extra is not installed")

from objectives.refinement.refine import RefinementSettings, refine  # noqa: E402

if TYPE_CHECKING:
    from conftest import Scene

FEW = RefinementSettings(minutes=5, block_steps=20, steps=20, batch=4, block_batch=4)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Learning beside other tests must not wait for their threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("fmt", ["w4a16", "int8"])
def test_it_comes_nearer(scene: Scene, fmt: str) -> None:
    allocation, lines = scene.uniform(fmt), list[str]()
    found = refine(scene.materializer, scene.weights, allocation, scene.detector, scene.images, FEW, lines.append)
    assert (found.learnt_on, found.judged_on) == (14, 2)
    assert [stage.name for stage in found.stages] == ["reconstruction", "distillation"]
    best = found.best
    assert best is not None and best.divergence < found.divergence
    assert found.stages[1].divergence <= found.stages[0].divergence, "distillation ends with the best that it saw"
    assert any(line.startswith("block 1 of") for line in lines) and "held-back" in lines[0]
    refined = {"r": best.refined}
    made = Materializer(scene.graph, scene.ranges, ONNXRUNTIME, scene.weights, refined=refined)
    before, after = made.materialize(allocation), made.materialize(replace(allocation, numbers="r"))
    after.check()
    assert before.size == after.size and before.digest != after.digest
    assert before.digest == scene.materializer.materialize(allocation).digest, "the scheme itself stays"


def test_a_seed_repeats(scene: Scene) -> None:
    once, again = (
        refine(
            scene.materializer,
            scene.weights,
            scene.uniform("w4a16"),
            scene.detector,
            scene.images,
            replace(FEW, block_steps=0, steps=5),
        )
        for _ in range(2)
    )
    assert once.stages[0].divergence == again.stages[0].divergence
    for key, entry in once.stages[0].refined.weights.items():
        np.testing.assert_array_equal(entry.weight.codes, again.stages[0].refined.weights[key].weight.codes)


def test_without_time_nothing_is_kept(scene: Scene) -> None:
    settings = replace(FEW, minutes=0.0)
    allocation = scene.uniform("w4a16")
    found = refine(scene.materializer, scene.weights, allocation, scene.detector, scene.images, settings)
    assert found.best is None
    assert {stage.divergence for stage in found.stages} == {found.divergence}


@pytest.mark.parametrize("rate", [3000.0, float("nan")])
def test_learning_that_harms_is_dropped(scene: Scene, rate: float) -> None:
    settings = replace(FEW, block_rate=rate, steps=0)
    allocation = scene.uniform("int8")
    found = refine(scene.materializer, scene.weights, allocation, scene.detector, scene.images, settings)
    assert not found.stages[0].divergence < found.divergence
    assert found.best is None
    then = refine(
        scene.materializer, scene.weights, allocation, scene.detector, scene.images, replace(settings, steps=5)
    )
    assert then.stages[1].divergence <= then.divergence, "distillation begins anew"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("fmt", ["w4a16", "int8"])
def test_it_comes_nearer_on_a_gpu(scene: Scene, fmt: str) -> None:
    settings = replace(FEW, device="cuda", steps=60)
    found = refine(scene.materializer, scene.weights, scene.uniform(fmt), scene.detector, scene.images, settings)
    assert found.best is not None and found.best.divergence < found.divergence


def test_by_itself_it_distils_alone(scene: Scene) -> None:
    settings = RefinementSettings(minutes=5, steps=3, batch=4)
    found = refine(scene.materializer, scene.weights, scene.uniform("w4a16"), scene.detector, scene.images, settings)
    assert [stage.name for stage in found.stages] == ["distillation"]


def test_too_few_images_and_nothing_to_learn_are_refused(scene: Scene) -> None:
    few = scene.images.first(4)
    with pytest.raises(InputError, match="4 images are too few; give at least 8"):
        refine(scene.materializer, scene.weights, scene.uniform("int8"), scene.detector, few, FEW)
    with pytest.raises(InputError, match="quantizes no weight"):
        refine(scene.materializer, scene.weights, scene.uniform("fp16"), scene.detector, scene.images, FEW)
