"""Where engines and timing caches of this user lie: outside of all run folders, one folder per device and version.

A plan is code: TensorRT trusts it when it is deserialized. So plans are read from here alone, a folder that only
this user can write, and never from a run folder that may have come from somebody else.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from search_spaces.durable import durable_file

#: Least recently used plans beyond this many bytes are dropped.
MAX_BYTES = 20 * 2**30


def cache_home() -> Path:
    """The user's folder: ``TUNER_CACHE``, else ``XDG_CACHE_HOME/tuner``, else ``~/.cache/tuner``."""
    named = os.environ.get("TUNER_CACHE")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "tuner"


class EngineCache:
    """Plans of one builder's version for one kind of GPU; timing caches and probes are kept alike.

    Args:
        builder: With its version, e.g. ``tensorrt-10.13``.
        target: What it builds for, e.g. ``NVIDIA H200 sm90``.
        home: In place of `cache_home`.
    """

    def __init__(self, builder: str, target: str, home: Path | None = None) -> None:
        name = re.sub(r"[^a-z0-9]+", "-", target.lower()).strip("-")
        self.folder = (home or cache_home()) / f"{builder}-{name}"
        self.plans = self.folder / "plans"
        self.plans.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder.chmod(0o700)
        self.timing_cache = self.folder / "timing.cache"
        self.builder, self.target = builder, target

    def key(self, model: bytes, *choices: Any) -> str:
        """Digest of everything that makes an engine, hex.

        Args:
            model: Serialized ONNX.
            choices: Of the builder, as JSON takes them.
        """
        facts = json.dumps([self.builder, self.target, *choices], sort_keys=True)
        return hashlib.sha256(hashlib.sha256(model).digest() + facts.encode()).hexdigest()

    def plan(self, key: str) -> Path | None:
        """The plan of that key, if it is there."""
        path = self.plans / f"{key}.plan"
        if not path.is_file():
            return None
        path.touch()
        return path

    def save(self, key: str, plan: bytes) -> Path:
        """Keeps a plan that was just built, whole or not at all."""
        path = self.plans / f"{key}.plan"
        with durable_file(path, mode=0o600) as draft:
            draft.write_bytes(plan)
        self._trim()
        return path

    def _trim(self) -> None:
        """Drops the least recently used plans beyond `MAX_BYTES`."""
        kept = 0
        for path in sorted(self.plans.glob("*.plan"), key=lambda p: p.stat().st_mtime, reverse=True):
            kept += path.stat().st_size
            if kept > MAX_BYTES:
                path.unlink(missing_ok=True)
