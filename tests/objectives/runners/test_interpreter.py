"""Another Python asked by a line of code."""

import sys

import pytest

from objectives.runners.interpreter import ask, environment
from objectives.runners.runner import RuntimeUnavailable


def test_the_last_line_is_the_answer() -> None:
    assert ask("print('a'); print('b')") == "b"
    assert ask("pass") == ""


@pytest.mark.parametrize(
    ("code", "said"), [("import os; os._exit(3)", "exit code 3"), ("import nothing_of_that_name", "No module named")]
)
def test_a_failure_says_why(code: str, said: str) -> None:
    with pytest.raises(RuntimeUnavailable, match=said):
        ask(code)


def test_one_that_takes_too_long_is_ended() -> None:
    with pytest.raises(RuntimeUnavailable, match=r"takes longer than 0\.1 s"):
        ask("import time; time.sleep(60)", seconds=0.1)


def test_a_variable_names_an_environment_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOME_PYTHON", raising=False)
    with pytest.raises(RuntimeUnavailable, match=r"a\.key: missing; make an environment \(how\) .* in SOME_PYTHON"):
        environment(None, "a.key", "SOME_PYTHON", "pass", "how")
    monkeypatch.setenv("SOME_PYTHON", sys.executable)
    assert str(environment(None, "a.key", "SOME_PYTHON", "pass", "how")) == sys.executable
    with pytest.raises(RuntimeUnavailable, match=r"a\.key '/nowhere': cannot be started .*; make it by: how"):
        environment("/nowhere", "a.key", "SOME_PYTHON", "pass", "how")
