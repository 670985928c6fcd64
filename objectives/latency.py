"""The timing protocol: candidate and reference alternate in one process, and the ratio is what counts.

A machine's clock, its caches and its other users change from minute to minute; they hit two neighbouring iterations
alike. So the objective is ``reference_ms x median(candidate / reference)`` and trials of different hours compare.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from objectives.devices.gpu import GpuState
from objectives.runners.runner import DeviceTimed, Runner, Ticket
from objectives.scores import Failure, Latency
from search_spaces.limits import renew

_DRAWS = 1000  # of the bootstrap


@dataclass(frozen=True)
class TimingProtocol:
    """Bounds of one measurement.

    Attributes:
        warmup_ms: Least warm-up time, milliseconds; it goes on until two neighbouring halves of it agree.
        min_seconds: Least time of the timed iterations of the candidate and the reference together, seconds.
        min_iterations: Least number of timed iterations of each.
        max_cov: Largest coefficient of variation of the paired ratio's kept iterations (its middle 80 %) that counts as
            steady.
        attempts: Measurements before the machine counts as noisy.
        strict: Whether a latency that is not steady is a failure; otherwise it is kept, from all attempts, as noisy.
    """

    warmup_ms: float = 200.0
    min_seconds: float = 2.0
    min_iterations: int = 15
    max_cov: float = 0.15
    attempts: int = 3
    strict: bool = False


def measure(
    candidate: Runner,
    reference: Runner | None,
    image: NDArray[np.float32],
    protocol: TimingProtocol | None = None,
    clock: Callable[[], float] = time.perf_counter,
    observe: Callable[[], GpuState | None] = lambda: None,
) -> Latency | Failure:
    """Times one inference of one batch.

    A runner whose device times itself (`DeviceTimed`) is asked for bursts of inferences, so that the device is never
    idle and the host's launches do not count; the pairs are then the medians of neighbouring bursts. Any other runner
    is timed by the clock, one inference at a time.

    Args:
        candidate: The model to time.
        reference: Timed alternately with it; None times the candidate alone.
        image: The batch, ``(N, 3, H, W)`` float32; a real image, as sparsity changes the time of some kernels.
        protocol: The bounds.
        clock: Monotonic seconds; tests pass their own.
        observe: Looks at the device after each measurement; one that other processes disturbed does not count.

    Returns:
        The latency; noisy, and by the pairs of all attempts, where none was steady. A failure of kind ``unstable`` in
        its place where the protocol is strict.
    """
    rules = protocol or TimingProtocol()
    runners = [candidate] if reference is None else [candidate, reference]
    launches = [_launcher(runner, image, clock) for runner in runners]
    burst = candidate.burst if isinstance(candidate, DeviceTimed) else 1
    method = candidate.method if isinstance(candidate, DeviceTimed) else "clock"
    problem, alone, disturbed = "", [], []
    for attempt in range(1, rules.attempts + 1):
        for launch in launches:
            _warm_up(launch, rules.warmup_ms / 1000, clock)
        times = _alternate(launches, burst, rules, clock)
        state = observe()
        if state is not None and state.foreign:
            problem = f"other processes use the GPU (pid {', '.join(map(str, state.foreign))})"
            disturbed.append(times)
            continue
        found = replace(_latency(times, paired=reference is not None), attempts=attempt, method=method, state=state)
        if found.cov <= rules.max_cov:
            return found
        problem = f"the paired ratio varies by {found.cov:.1%} (bound {rules.max_cov:.1%})"
        alone.append(times)
    if rules.strict:
        return Failure(
            "unstable",
            f"{problem} in each of {rules.attempts} measurements; free the machine, or leave timing.max_cov out in "
            "another run, which keeps such latencies and marks them",
        )
    pooled = _latency(np.concatenate(alone or disturbed), paired=reference is not None)
    return replace(pooled, attempts=rules.attempts, method=method, state=state, noisy=True)


def _latency(times: NDArray[np.float64], *, paired: bool) -> Latency:
    """What seconds ``(pairs, runners, inferences)`` come to."""
    blocks = np.median(times, axis=2)
    ratios = blocks[:, 0] / (blocks[:, -1] if paired else np.median(blocks[:, 0]))
    kept = _middle(ratios)
    low, high = _median_interval(ratios)
    milliseconds = times[:, 0].ravel() * 1000
    return Latency(
        p50_ms=float(np.percentile(milliseconds, 50)),
        p90_ms=float(np.percentile(milliseconds, 90)),
        p99_ms=float(np.percentile(milliseconds, 99)),
        mean_ms=float(milliseconds.mean()),
        cov=float(kept.std() / kept.mean()),
        iterations=milliseconds.size,
        ratio=float(np.median(ratios)) if paired else 1.0,
        reference_p50_ms=float(np.median(times[:, -1]) * 1000),
        ratio_low=low,
        ratio_high=high,
    )


def _median_interval(ratios: NDArray[np.float64]) -> tuple[float, float]:
    """95 % interval of the median of a series, by the percentiles of a moving-block bootstrap.

    Neighbouring pairs suffer from the same disturbance, so blocks of them are drawn (Künsch, "The jackknife and the
    bootstrap for general stationary observations", 1989), n ** (1/3) long as Hall, Horowitz and Jing advise (1995).
    """
    count = len(ratios)
    length = max(1, round(count ** (1 / 3)))
    draw, steps = np.random.default_rng(0), np.arange(length)
    medians = []
    for _ in range(_DRAWS):  # one at a time: all at once would take a thousand times the memory of the series
        starts = draw.integers(0, count - length + 1, -(-count // length))
        medians.append(np.median(ratios[(starts[:, None] + steps).ravel()[:count]]))
    low, high = np.percentile(medians, [2.5, 97.5])
    return float(low), float(high)


def _launcher(runner: Runner, image: NDArray[np.float32], clock: Callable[[], float]) -> Callable[[], Ticket]:
    """Starts one inference; a runner that cannot do so without waiting is run and timed at once."""
    if isinstance(runner, DeviceTimed):
        return runner.launcher(image)

    def launch() -> Ticket:
        start = clock()
        runner.infer(image)
        spent = clock() - start
        return lambda: spent

    return launch


def _alternate(
    launches: list[Callable[[], Ticket]], burst: int, rules: TimingProtocol, clock: Callable[[], float]
) -> NDArray[np.float64]:
    """Seconds ``(pairs, runners, inferences)``; the order flips each time, so that none always follows the other.

    Each runner takes `burst` inferences in a row, for switching between two CUDA graphs costs time of its own (the
    ratio of one engine to another varied by 8 % where they took turns at every launch). A quarter of them settles the
    device's caches and fills its queue, and does not count.
    """
    pairs: list[list[list[float]]] = []
    settle = burst // 4
    begin = clock()
    while len(pairs) * (burst - settle) < rules.min_iterations or clock() - begin < rules.min_seconds:
        order = range(len(launches)) if len(pairs) % 2 else reversed(range(len(launches)))
        # A launch of a runner that has no device returns when it is done; all others are queued before any is awaited.
        tickets = {index: [launches[index]() for _ in range(burst)] for index in order}
        renew()
        pairs.append([[ticket() for ticket in tickets[index]][settle:] for index in range(len(launches))])
    return np.array(pairs)


def _warm_up(launch: Callable[[], Ticket], seconds: float, clock: Callable[[], float]) -> None:
    """Runs until the time is over and the last two iterations agree within 10 %, at most ten times as long."""
    begin, previous = clock(), np.inf
    while True:
        last = launch()()
        renew()
        spent = clock() - begin
        if (spent >= seconds and abs(last - previous) <= 0.1 * previous) or spent >= 10 * seconds:
            return
        previous = last


def _middle(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The middle 80 %: a shared machine's rare long pauses are not the model's."""
    low, high = np.percentile(values, [10, 90])
    kept: NDArray[np.float64] = values[(values >= low) & (values <= high)]
    return kept
