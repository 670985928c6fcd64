"""Steps, and how much memory a process may have."""

from __future__ import annotations

import os

import pytest

from search_spaces.errors import InputError
from search_spaces.limits import GIB, Board, memory_limit, memory_used, pause, step


class Particular(InputError):
    """An error of its own kind."""


def test_an_error_within_a_step_names_the_file() -> None:
    with pytest.raises(Particular, match=r"^m\.onnx: it cannot be run$"), step("m.onnx", "running it"):
        raise Particular("it cannot be run")
    with pytest.raises(InputError, match=r"^layer 3 of m\.onnx is wrong$"), step("m.onnx", "running it"):
        raise InputError("layer 3 of m.onnx is wrong")


def test_a_board_shows_the_last_step_and_counts_signs() -> None:
    board = Board()
    first = board.read()
    assert first.text == "" and first.seconds == float("inf")
    board.write(3.0, "m.onnx: " + "x" * 10_000)
    board.renew()
    found = board.read()
    assert found.seconds == 3.0 and found.text.startswith("m.onnx: xxx") and found.signs == first.signs + 2


def test_memory_of_a_process_is_what_it_holds_alone() -> None:
    before = memory_used(os.getpid())
    held = bytearray(b"1") * (64 << 20)
    assert 60 << 20 < memory_used(os.getpid()) - before < 80 << 20
    del held
    assert memory_used(2**22 + 1) == 0


def test_the_limit_is_a_share_of_the_machine_or_what_the_user_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TUNER_MEMORY_GIB", raising=False)
    assert 0 < memory_limit() < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    monkeypatch.setenv("TUNER_MEMORY_GIB", "1.5")
    assert memory_limit() == 1.5 * GIB
    for unlimited in ("inf", "1e400", "1e300"):
        monkeypatch.setenv("TUNER_MEMORY_GIB", unlimited)
        assert memory_limit() > 2**62
    for wrong in ("0", "-1", "nan", "all"):
        monkeypatch.setenv("TUNER_MEMORY_GIB", wrong)
        with pytest.raises(InputError, match="TUNER_MEMORY_GIB"):
            memory_limit()


def test_the_nearer_the_limit_the_sooner_it_is_looked_at() -> None:
    assert pause(0, 100 * GIB) == 0.5 > pause(0, 2 * GIB) > pause(GIB, 2 * GIB) > pause(2 * GIB, 2 * GIB) > 0
