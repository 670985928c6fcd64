"""What the GPU's driver says, as data; no GPU is needed to read it."""

import os
import subprocess
import sys

from objectives.devices.gpu import family, foreign, throttle_reasons, visible_devices


def test_visible_devices_are_counted_as_cuda_does() -> None:
    assert visible_devices(None, 2) == ["0", "1"]
    assert visible_devices("1,0", 2) == ["1", "0"]
    assert visible_devices("", 2) == []
    assert visible_devices("0,-1,1", 2) == ["0"]  # an invalid name hides all that follow
    assert visible_devices("GPU-aa", 1) == ["GPU-aa"]


def test_throttle_reasons_in_plain_words() -> None:
    known = {"nvmlClocksThrottleReasonSwPowerCap": 4, "nvmlClocksThrottleReasonHwThermalSlowdown": 64}
    assert throttle_reasons(4 | 64, known) == ("power cap", "thermal slowdown (hardware)")
    assert throttle_reasons(1, known) == ()  # 1: idle, which disturbs nothing
    assert throttle_reasons(4, {"nvmlClocksThrottleReasonSwPowerCap": 0}) == ()  # a driver without that constant


def test_strangers_are_living_processes_of_others() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert {os.getpid(), child.pid} <= family()
        assert foreign([os.getpid(), child.pid], family()) == ()
        assert foreign([child.pid], {os.getpid()}) == (child.pid,)
    finally:
        child.communicate(b"\n")
