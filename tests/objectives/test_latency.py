"""The timing protocol on a fake clock: runners advance it by what an inference is meant to take."""

from collections.abc import Iterator

import numpy as np
import pytest

from objectives.devices.gpu import GpuState
from objectives.devices.lock import DeviceTimeout, device_lock
from objectives.latency import TimingProtocol, measure
from objectives.scores import Failure, Latency

IMAGE = np.zeros((1, 3, 8, 8), np.float32)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class TimedRunner:
    """Takes the next of `seconds` for every inference."""

    input_shape = (1, 3, 8, 8)
    output_names = ("y",)

    def __init__(self, clock: Clock, seconds: Iterator[float]) -> None:
        self.clock, self.seconds, self.calls = clock, seconds, 0

    def infer(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        self.calls += 1
        self.clock.now += next(self.seconds)
        return (images,)


def _steady(seconds: float) -> Iterator[float]:
    while True:
        yield seconds


def _drifting(clock: Clock, seconds: float) -> Iterator[float]:
    """A machine that slows down by half over ten seconds: both models suffer alike."""
    while True:
        yield seconds * (1 + 0.05 * clock.now)


def test_the_ratio_survives_a_drifting_machine() -> None:
    clock = Clock()
    found = measure(
        TimedRunner(clock, _drifting(clock, 0.03)), TimedRunner(clock, _drifting(clock, 0.1)), IMAGE, clock=clock
    )
    assert isinstance(found, Latency)
    assert found.ratio == pytest.approx(0.3, rel=0.02)
    assert found.p50_ms > 30.5  # the drift is in the milliseconds, not in the ratio
    assert found.iterations >= 15


def test_at_least_the_asked_seconds_and_iterations() -> None:
    clock = Clock()
    runner = TimedRunner(clock, _steady(0.01))
    found = measure(runner, None, IMAGE, TimingProtocol(min_seconds=2.0, min_iterations=15), clock)
    assert isinstance(found, Latency)
    assert found.iterations >= 199 and found.ratio == 1.0 and found.cov == pytest.approx(0.0, abs=1e-6)
    slow = TimedRunner(clock, _steady(1.0))
    again = measure(slow, None, IMAGE, TimingProtocol(min_seconds=2.0, min_iterations=15), clock)
    assert isinstance(again, Latency) and again.iterations == 15


def test_rare_pauses_do_not_count() -> None:
    clock = Clock()
    pauses = (0.5 if index % 14 == 13 else 0.05 for index in range(10_000))
    found = measure(TimedRunner(clock, pauses), TimedRunner(clock, _steady(0.1)), IMAGE, clock=clock)
    assert isinstance(found, Latency)
    assert found.ratio == pytest.approx(0.5) and found.attempts == 1
    assert found.p99_ms > 400


def _noisy(seed: int, low: float = 0.01, high: float = 0.2) -> Iterator[float]:
    draw = np.random.default_rng(seed)
    return (float(x) for x in draw.uniform(low, high, 100_000))


def test_a_noisy_machine_fails_a_bound_that_the_user_set() -> None:
    clock, strict = Clock(), TimingProtocol(strict=True)
    found = measure(TimedRunner(clock, _noisy(0)), TimedRunner(clock, _steady(0.1)), IMAGE, strict, clock)
    assert isinstance(found, Failure)
    assert found.kind == "unstable" and "each of 3 measurements" in found.message


def test_a_noisy_machine_gives_the_median_of_all_attempts_and_an_interval() -> None:
    clock = Clock()
    runner = TimedRunner(clock, _noisy(0, 0.03, 0.17))
    found = measure(runner, TimedRunner(clock, _steady(0.1)), IMAGE, clock=clock)
    assert isinstance(found, Latency) and found.noisy and found.attempts == 3
    once = measure(runner, TimedRunner(clock, _steady(0.1)), IMAGE, TimingProtocol(attempts=1), clock)
    assert isinstance(once, Latency) and once.noisy and found.iterations > 2 * once.iterations


def test_the_interval_holds_the_true_ratio_as_often_as_it_says() -> None:
    held = 0
    for seed in range(40):
        clock = Clock()
        noisy, steady = TimedRunner(clock, _noisy(seed, 0.03, 0.17)), TimedRunner(clock, _steady(0.1))
        found = measure(noisy, steady, IMAGE, clock=clock)
        assert isinstance(found, Latency)
        low, high = found.interval or (0, 0)
        assert low <= found.ratio <= high
        held += low < 1.0 < high
    assert 32 <= held < 40, "95 % of 40 is 38; blocks of so few pairs hold a little less"


def test_a_steady_latency_has_an_interval_too() -> None:
    clock = Clock()
    found = measure(
        TimedRunner(clock, _noisy(1, 0.049, 0.051)), TimedRunner(clock, _noisy(2, 0.095, 0.105)), IMAGE, clock=clock
    )
    assert isinstance(found, Latency) and not found.noisy and found.attempts == 1
    low, high = found.interval or (0, 0)
    assert 0.47 < low < found.ratio < high < 0.53


def test_a_noisy_reference_alone_has_the_interval_of_its_median() -> None:
    clock = Clock()
    found = measure(TimedRunner(clock, _noisy(3)), None, IMAGE, clock=clock)
    assert isinstance(found, Latency) and found.noisy and found.ratio == 1.0
    low, high = found.interval or (0, 0)
    assert low < 1 < high and found.p50_ms * low < 105 < found.p50_ms * high, "the true median is 105 ms"


def test_the_interval_knows_that_neighbours_are_alike() -> None:
    """A load that comes and goes disturbs many pairs at once: they say less than as many independent ones."""
    draw = np.random.default_rng(0)
    apart = draw.uniform(0.05, 0.15, 400)

    def width(order: np.ndarray) -> float:
        clock = Clock()
        protocol = TimingProtocol(warmup_ms=0, min_seconds=0, min_iterations=400, attempts=1)
        warm, reference = [0.1, 0.1], TimedRunner(clock, _steady(0.1))
        found = measure(TimedRunner(clock, iter([*warm, *order])), reference, IMAGE, protocol, clock)
        assert isinstance(found, Latency)
        low, high = found.interval or (0, 0)
        return high - low

    assert width(np.repeat(apart[::8], 8)) > 1.5 * width(apart)


def test_one_measurement_at_a_time() -> None:
    from concurrent.futures import ThreadPoolExecutor

    def enter() -> str:
        try:
            with device_lock("test-device", timeout=0.1):
                return "entered"
        except DeviceTimeout:
            return "refused"

    with ThreadPoolExecutor(1) as other, device_lock("test-device"):
        assert other.submit(enter).result() == "refused"
        assert enter() == "entered"  # the holder itself: candidate and reference are open at once
    with ThreadPoolExecutor(1) as other:
        assert other.submit(enter).result() == "entered"


class DeviceTimedRunner:
    """Answers like an engine: launches return at once, tickets tell the device's seconds."""

    input_shape = (1, 3, 8, 8)
    output_names = ("y",)
    burst = 16
    method = "cuda graph"

    def __init__(self, clock: Clock, seconds: float, order: list[str], name: str) -> None:
        self.clock, self.seconds, self.order, self.name, self.open = clock, seconds, order, name, 0

    def infer(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        raise AssertionError("a device-timed runner is not timed by the host's clock")

    def launcher(self, image: np.ndarray):
        def launch():
            self.open += 1
            assert self.open <= self.burst
            self.order.append(self.name)

            def ticket() -> float:
                self.open -= 1
                self.clock.now += self.seconds + 0.01  # the host is slower than the device
                return self.seconds

            return ticket

        return launch


def test_a_device_times_itself_in_bursts_that_take_turns() -> None:
    clock, order = Clock(), []
    candidate, reference = (DeviceTimedRunner(clock, s, order, n) for s, n in ((0.0004, "c"), (0.0005, "r")))
    found = measure(candidate, reference, IMAGE, TimingProtocol(min_iterations=100), clock)
    assert isinstance(found, Latency)
    assert found.method == "cuda graph" and found.iterations % 12 == 0 and found.iterations >= 100
    assert found.p50_ms == pytest.approx(0.4) and found.ratio == pytest.approx(0.8)
    timed = "".join(order[-64:])
    first, second = ("c", "r") if timed[0] == "c" else ("r", "c")
    assert timed == 16 * first + 32 * second + 16 * first


def test_the_first_inferences_of_a_burst_do_not_count() -> None:
    """Another engine ran before: its weights are in the caches."""
    clock, order = Clock(), []

    class Cold(DeviceTimedRunner):
        def launcher(self, image: np.ndarray):
            launch = super().launcher(image)

            def cold():
                ticket = launch()
                late = 0.001 if order[-4:].count(self.name) < 4 else 0.0
                return lambda: ticket() + late

            return cold

    candidate, reference = Cold(clock, 0.0004, order, "c"), Cold(clock, 0.0005, order, "r")
    found = measure(candidate, reference, IMAGE, TimingProtocol(min_iterations=100), clock)
    assert isinstance(found, Latency) and found.p99_ms == pytest.approx(0.4) and found.cov == pytest.approx(0, abs=1e-6)


def _state(*foreign: int) -> GpuState:
    return GpuState(1980, 2619, 40, 120.0, (), tuple(foreign))


def test_a_measurement_that_others_disturbed_does_not_count() -> None:
    clock = Clock()
    states = iter([_state(4242), _state()])
    runner, base = TimedRunner(clock, _steady(0.05)), TimedRunner(clock, _steady(0.1))
    found = measure(runner, base, IMAGE, clock=clock, observe=lambda: next(states))
    assert isinstance(found, Latency) and found.attempts == 2 and found.state == _state()


def test_others_that_stay_make_a_latency_noisy_or_break_the_users_bound() -> None:
    clock = Clock()
    runner, base = TimedRunner(clock, _steady(0.05)), TimedRunner(clock, _steady(0.1))
    busy = measure(runner, base, IMAGE, clock=clock, observe=lambda: _state(4242))
    assert isinstance(busy, Latency) and busy.noisy and busy.attempts == 3 and busy.state == _state(4242)
    assert busy.ratio == pytest.approx(0.5)
    failed = measure(runner, base, IMAGE, TimingProtocol(strict=True), clock, observe=lambda: _state(4242))
    assert isinstance(failed, Failure) and failed.kind == "unstable" and "4242" in failed.message


def test_only_undisturbed_attempts_count_where_there_are_any() -> None:
    clock, own = Clock(), _noisy(4)
    states = [_state(), _state(), _state(4242)]
    seconds = (10.0 if len(states) == 3 else next(own) for _ in range(10_000))  # ten beside the other process
    rules = TimingProtocol(warmup_ms=1, min_seconds=0.1, min_iterations=20)
    found = measure(TimedRunner(clock, seconds), TimedRunner(clock, _steady(0.1)), IMAGE, rules, clock, states.pop)
    assert isinstance(found, Latency) and found.noisy and found.state == _state()
    assert found.iterations == 40 and found.p99_ms < 201
