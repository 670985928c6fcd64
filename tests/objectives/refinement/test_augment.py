"""Images made of images keep their shape and range, differ, and are the same for the same seed."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the torch extra is not installed")

from objectives.refinement import augment  # noqa: E402


def _images(count: int = 6) -> torch.Tensor:
    flat = torch.linspace(0, 1, count).reshape(-1, 1, 1, 1).expand(count, 3, 32, 48)
    return flat + 0.1 * torch.rand(count, 3, 32, 48, generator=torch.Generator().manual_seed(0))


def test_they_keep_shape_and_range_and_a_seed_repeats() -> None:
    images = _images()
    once, again = (augment.augmented(images, torch.Generator().manual_seed(3)) for _ in range(2))
    other = augment.augmented(images, torch.Generator().manual_seed(4))
    assert once.shape == images.shape
    assert torch.equal(once, again) and not torch.equal(once, other)
    assert once.min() >= images.min() - 1e-3 and once.max() <= images.max() + 1e-3
    assert all((one - own).abs().mean() > 0.01 for one, own in zip(once, images, strict=True))


def test_normalised_images_stay_within_their_range_too() -> None:
    images = (_images() - 0.45) / 0.22
    found = augment.augmented(images, torch.Generator().manual_seed(0))
    assert bool(torch.isfinite(found).all()) and found.min() < -0.5
    assert found.min() >= images.min() - 1e-2 and found.max() <= images.max() + 1e-2


def test_tiles_keep_their_place_in_the_image() -> None:
    images = torch.arange(8.0).reshape(-1, 1, 1, 1) * 100 + torch.arange(64.0).reshape(1, 1, 8, 8)
    found = augment._tiled(images, torch.Generator().manual_seed(0))
    assert torch.equal(found % 100, images % 100), "every pixel comes from its own place of some image"
    others = (found // 100 != images // 100).flatten(1).any(1)
    assert others.any() and not others.all()


def test_one_image_alone_is_no_failure() -> None:
    assert augment.augmented(_images(1), torch.Generator().manual_seed(0)).shape == (1, 3, 32, 48)
