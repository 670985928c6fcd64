"""Sensitivity on the ONNX graph itself: one layer, one format at a time, against the unquantized model."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

from objectives.quantization.materialize import Materializer
from objectives.sensitivity.journal import Journal
from objectives.sensitivity.meter import reference_meter
from objectives.tasks.detection.data.preprocessed import PreprocessedImages
from objectives.tasks.detection.detector import Detector
from search_spaces.allocation import Allocation
from search_spaces.errors import InputError, nearest
from search_spaces.formats import UNQUANTIZED, get_format
from search_spaces.model_graph import ModelGraph
from search_spaces.sensitivity import SensitivityEntry, SensitivityTable

DENSE_METRIC = "kl+iou"
FINAL_METRIC = "1-agreement"
_VERSION = "1"  # change it whenever the same artifact would get another score


def sweep(
    graph: ModelGraph,
    materializer: Materializer,
    detector: Detector,
    images: PreprocessedImages,
    pairs: Sequence[tuple[str, str]],
    cache: Path,
    *,
    settings: Mapping[str, str],
    threads: int = 1,
    cuda: bool = False,
    progress: Callable[[int], None] | None = None,
) -> SensitivityTable:
    """Measures pairs of layer and format.

    The score is the divergence of the class probabilities and boxes on the reference's best anchors; where a
    model has no dense outputs it is 1 - agreement of the final detections, and the table's
    metric says so.

    Args:
        graph: The model.
        materializer: Of this model; its weight settings and ranges apply.
        detector: Of this model.
        images: A few calibration images (8 are enough to rank layers).
        pairs: ``(layer, format)``; the unquantized format is skipped.
        cache: JSON-lines file of measured pairs; what it holds is not measured again.
        settings: Provenance that decides scores and that the model does not tell: weight method, granularity,
            calibration method and images, runtime.
        threads: Pairs measured at once, each on one thread.
        cuda: Run on the CUDA execution provider.
        progress: Called with the number of pairs done.

    Returns:
        The table, entries in the order of `pairs`. Pairs that ONNX Runtime cannot run are left out and named
        in its settings under ``failed``.

    Raises:
        InputError: A pair names an unknown layer or format, or no pair could be measured.
    """
    wanted = _checked(graph, pairs)
    metric = DENSE_METRIC if detector.dense(graph) is not None else FINAL_METRIC
    provenance = {
        **settings,
        "model": graph.digest,
        "images": images.digest,
        "metric": f"{metric}:{_VERSION}",
    }
    journal = Journal(cache, provenance)
    missing = [pair for pair in wanted if journal.get(*pair) is None]
    failed: dict[tuple[str, str], str] = {}
    if progress is not None:
        progress(len(wanted) - len(missing))
    if missing:
        meter = reference_meter(graph, materializer, detector, images, cuda)
        lock = threading.Lock()  # the materializer fills its weight cache

        def measure(pair: tuple[str, str]) -> None:
            started = time.perf_counter()
            with lock:
                artifact = materializer.materialize(Allocation.of(dict([pair])), meter.extra)
            try:
                score = max(0.0, meter.score(artifact.data))
            except (InputError, RuntimeError, ArithmeticError) as error:
                failed[pair] = str(error).splitlines()[0]
                return
            journal.add(SensitivityEntry(*pair, score, time.perf_counter() - started))

        _run_all(measure, missing, threads, len(wanted), progress)
    entries = [journal.get(*pair) for pair in wanted]
    found = tuple(entry for entry in entries if entry is not None)
    if wanted and not found:
        raise InputError(f"sensitivity: no pair could be measured; the first failure: {next(iter(failed.values()))}")
    notes = dict(settings)
    if failed:
        notes["failed"] = "; ".join(f"{layer} {fmt}: {reason}" for (layer, fmt), reason in failed.items())
    return SensitivityTable("onnx", metric, graph.digest, len(images), found, notes)


def _run_all(
    measure: Callable[[tuple[str, str]], None],
    pairs: Sequence[tuple[str, str]],
    threads: int,
    total: int,
    progress: Callable[[int], None] | None,
) -> None:
    """Measures pairs in a pool; an error or an interrupt stops it without starting further pairs."""
    with ThreadPoolExecutor(max_workers=max(1, threads), thread_name_prefix="sweep") as pool:
        waiting: set[Future[None]] = {pool.submit(measure, pair) for pair in pairs}
        try:
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for job in done:
                    job.result()
                if progress is not None:
                    progress(total - len(waiting))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _checked(graph: ModelGraph, pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    known = {layer.name for layer in graph.quantizable}
    for layer, fmt in pairs:
        get_format(fmt)
        if layer not in known:
            raise InputError(f"sensitivity: {layer!r} is not a quantizable layer of the model{nearest(layer, known)}")
    return [pair for pair in dict.fromkeys(pairs) if pair[1] != UNQUANTIZED]
