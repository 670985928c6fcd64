"""What ends a command's process is one line and exit code 2; real signals, real memory, real native crashes."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper

TUNER = [sys.executable, "-m", "tuner"]
WORK = """
import sys
from tuner.terminal.guard import watched
from search_spaces.limits import renew, scratch, step
def work():
    import ctypes, os, signal, time
    {body}
    return 7
sys.exit(watched(work))
"""


def _python(body: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WORK.format(body=body)]
    environment = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=environment)


def _tuner(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [*TUNER, *map(str, arguments)]
    environment = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=environment)


def assert_one_line(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    assert done.returncode == 2 and done.stdout == "", done
    lines = done.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("tuner: error: "), done.stderr
    for part in parts:
        assert part in lines[0]


def _model(path: Path, op: str, **attributes: object) -> Path:
    """A Conv and an operator of odd attributes behind it."""
    weight = numpy_helper.from_array(np.ones((8, 3, 3, 3), np.float32), "w")
    nodes = [helper.make_node("Conv", ["images", "w"], ["c"]), helper.make_node(op, ["c"], ["out"], **attributes)]
    borders = [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 64, 64])]
    outputs = [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "g", borders, outputs, [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def _doubling(path: Path, depth: int) -> Path:
    """A function that calls another twice, which calls another twice, and so on; -1: itself, for ever."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]

    def function(name: str, inner: str) -> onnx.FunctionProto:
        calls = [helper.make_node(inner, [a], [b], domain="f") for a, b in (("x", "a"), ("a", "y"))]
        return helper.make_function("f", name, ["x"], ["y"], calls, opsets)

    last = helper.make_function("f", f"F{depth}", ["x"], ["y"], [helper.make_node("Relu", ["x"], ["y"])], opsets)
    functions = [function("F0", "F0")] if depth < 0 else [function(f"F{i}", f"F{i + 1}") for i in range(depth)] + [last]
    borders = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 8, 8]) for name in ("images", "out")]
    graph = helper.make_graph([helper.make_node("F0", ["images"], ["out"], domain="f")], "g", borders[:1], borders[1:])
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9, functions=functions), path)
    return path


@pytest.mark.parametrize("attributes", [{"kernel_shape": [2, 2], "strides": [0, 0]}])
def test_a_native_crash_names_the_file_and_what_was_done_with_it(tmp_path: Path, attributes: dict[str, object]) -> None:
    path = _model(tmp_path / "m.onnx", "MaxPool", **attributes)
    for command in ("layers", "bench"):
        assert_one_line(_tuner(command, path), str(path), "reading its graph", "SIGFPE", "export")


def test_endless_recursion_in_native_code_is_oneassert_one_line(tmp_path: Path) -> None:
    path = _doubling(tmp_path / "m.onnx", -1)
    assert_one_line(_tuner("layers", path), str(path), "SIGSEGV", "export")


def test_a_model_without_end_is_given_up(tmp_path: Path) -> None:
    path = _doubling(tmp_path / "m.onnx", 40)
    assert_one_line(
        _tuner("layers", path, TUNER_STEP_SECONDS="3"), str(path), "not done after 3 s", "TUNER_STEP_SECONDS"
    )


def test_a_study_reads_its_model_under_the_same_watch(tmp_path: Path) -> None:
    _model(tmp_path / "m.onnx", "MaxPool", kernel_shape=[2, 2], strides=[0, 0])
    for name in ("a.json", "c.txt"):
        (tmp_path / name).touch()
    data = "data: {images: ., annotations: a.json, calibration: c.txt}"
    (tmp_path / "s.yaml").write_text(f"name: s\nmodel: {{path: m.onnx}}\n{data}\n")
    assert_one_line(_tuner("run", tmp_path / "s.yaml", "--run", tmp_path / "run"), "m.onnx", "SIGFPE")
    assert not (tmp_path / "run").exists()


def test_memory_beyond_the_limit_is_given_up_and_nothing_is_left(tmp_path: Path) -> None:
    body = "held = []; folder = scratch()\n    with step('m.onnx', 'loading it'):\n        "
    body += "while True: held.append(bytearray(b'1') * (16 << 20))"
    done = _python(body, TUNER_MEMORY_GIB="0.5", TMPDIR=str(tmp_path))
    assert_one_line(done, "m.onnx: loading it took 0.", "0.5 GiB is the limit", "TUNER_MEMORY_GIB")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("signum", [signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE, signal.SIGBUS, signal.SIGKILL])
def test_signals_of_a_crash(signum: signal.Signals) -> None:
    assert_one_line(_python(f"os.kill(os.getpid(), {signum.value})"), signum.name)


def test_a_hang_that_holds_the_interpreter_is_ended() -> None:
    body = "with step('m.onnx', 'running it', 0.5): ctypes.PyDLL(None).sleep(1000)"
    assert_one_line(_python(body), "m.onnx: running it is not done after")


def test_signs_of_life_are_believed() -> None:
    body = "\n    ".join(["with step('m', 'x', 1.5):", "  for _ in range(25): renew(); time.sleep(0.1)"])
    assert _python(body).returncode == 7


def test_results_and_errors_pass_through() -> None:
    done = _python("print('out'); print('err', file=sys.stderr)")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")
    done = _python("raise ValueError('a bug')")
    assert done.returncode == 1 and "ValueError: a bug" in done.stderr


def test_a_limit_that_is_no_number_is_refused() -> None:
    assert_one_line(_python("", TUNER_MEMORY_GIB="much"), "TUNER_MEMORY_GIB='much'")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_command_reaches_its_work(signum: signal.Signals) -> None:
    body = f"signal.signal({signum.value}, lambda *_: sys.exit(9)); print('up', flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", WORK.format(body=body)], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"up\n"
    process.send_signal(signum)
    assert process.wait(20) == 9


def test_native_code_that_hears_no_signal_is_ended_soon_after() -> None:
    body = "print(1, flush=True)\n    with step('m.onnx', 'running it'): sum(range(10**14))"
    command = [sys.executable, "-c", WORK.format(body=body)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline()
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and errors == "tuner: interrupted\n"


def test_without_a_handler_the_command_dies_of_the_signal() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WORK.format(body="print(1, flush=True); time.sleep(60)")], stdout=-1
    )
    assert process.stdout is not None and process.stdout.readline()
    process.terminate()
    assert process.wait(20) == -signal.SIGTERM


def test_the_work_ends_with_its_watcher() -> None:
    body = "print(os.getpid(), flush=True); ctypes.PyDLL(None).sleep(1000)"
    process = subprocess.Popen([sys.executable, "-c", WORK.format(body=body)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    child = psutil.Process(int(process.stdout.readline()))
    process.kill()
    process.wait()
    psutil.wait_procs([child], timeout=10)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_ctrl_c_in_a_terminal_comes_once() -> None:
    lines = ["def heard(*_): got.append(1); print('heard', flush=True)", "got = []", "signal.signal(2, heard)"]
    lines += ["print('up', flush=True)", "time.sleep(1) if not got else None", "time.sleep(1)", "return len(got)"]
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, "-c", WORK.format(body="\n    ".join(lines))])
    said = b""
    while b"up" not in said:
        said += os.read(terminal, 100)
    time.sleep(0.2)
    os.write(terminal, b"\x03")
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 1


def test_the_process_has_one_thread_when_it_forks() -> None:
    code = "import os, tuner.cli.app; print(len(os.listdir('/proc/self/task')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"
