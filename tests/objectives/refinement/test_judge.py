"""The judge ranks schemes by how far they are, and changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

torch = pytest.importorskip("torch", reason="the torch extra is not installed")

from objectives.refinement.executor import Executor  # noqa: E402
from objectives.refinement.judge import Judge  # noqa: E402
from objectives.refinement.refine import last_tensors  # noqa: E402
from objectives.refinement.student import Student  # noqa: E402

if TYPE_CHECKING:
    from conftest import Scene


def test_fewer_bits_are_farther(scene: Scene) -> None:
    executor = Executor(scene.graph, "cpu")
    last = last_tensors(scene.graph)

    def image(number: int) -> torch.Tensor:
        return torch.from_numpy(scene.images.batch(number, number + 1))

    judge = Judge(executor, scene.detector, image, [3, 7], last)
    found = {}
    for fmt in ("w8a16", "w4a16"):
        student = Student(executor, scene.materializer, scene.uniform(fmt), scene.weights)
        before = student.state()
        found[fmt] = judge(student)
        assert judge(student) == found[fmt]
        assert all(torch.equal(one, other) for one, other in zip(before, student.state(), strict=True))
    assert 0.0 < found["w8a16"] < found["w4a16"] / 3
