"""Plans in the user's cache: found by all that makes an engine, private, and bounded."""

import os
import stat
from pathlib import Path

import pytest

from objectives.runtimes import engine_cache
from objectives.runtimes.engine_cache import EngineCache, cache_home

GPU = "NVIDIA H200 sm90"


def test_a_plan_is_found_by_everything_that_makes_it(tmp_path: Path) -> None:
    cache = EngineCache("tensorrt-10.13", GPU, tmp_path)
    key = cache.key(b"model", {"optimization_level": 3}, [])
    assert cache.plan(key) is None
    cache.save(key, b"plan")
    found = cache.plan(key)
    assert found is not None and found.read_bytes() == b"plan"
    others = {
        cache.key(b"other", {"optimization_level": 3}, []),
        cache.key(b"model", {"optimization_level": 5}, []),
        cache.key(b"model", {"optimization_level": 3}, ["/a/Mul"]),
        EngineCache("tensorrt-10.14", GPU, tmp_path).key(b"model", {"optimization_level": 3}, []),
    }
    others.add(EngineCache("tensorrt-10.13", "NVIDIA H100 sm90", tmp_path).key(b"model", {"optimization_level": 3}, []))
    assert len(others) == 5 and key not in others
    assert EngineCache("tensorrt-10.14", GPU, tmp_path).plan(key) is None


def test_only_the_user_may_write_there(tmp_path: Path) -> None:
    cache = EngineCache("tensorrt-8.6.1", GPU, tmp_path)
    assert cache.folder.name == "tensorrt-8.6.1-nvidia-h200-sm90"
    assert stat.S_IMODE(cache.folder.stat().st_mode) == 0o700


def test_the_least_recently_used_plans_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_cache, "MAX_BYTES", 25)
    cache = EngineCache("tensorrt-8.6.1", GPU, tmp_path)
    for age, name in ((300, "a"), (200, "b")):
        path = cache.save(name, b"0123456789")
        os.utime(path, (path.stat().st_mtime - age,) * 2)
    assert cache.plan("a") is not None  # used: now younger than b
    cache.save("c", b"0123456789")
    assert cache.plan("b") is None and cache.plan("a") is not None and cache.plan("c") is not None


def test_where_the_cache_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TUNER_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_home() == tmp_path / "tuner"
    monkeypatch.setenv("TUNER_CACHE", str(tmp_path / "own"))
    assert cache_home() == tmp_path / "own"
