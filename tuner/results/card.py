"""The model card of an exported scheme: what it is, how good, how that was measured, and how it is run."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence

import onnx

from objectives.objective import milliseconds
from objectives.scores import Scores
from objectives.tasks.detection.data.preprocessing import Fit, Preprocessing
from search_spaces.formats import FORMATS, UNQUANTIZED
from search_spaces.markdown import code, plain, table
from tuner.prepare.calibration import read_calibration
from tuner.results.loaded import LoadedRun
from tuner.results.snippet import snippet
from tuner.results.targets.target import Laid, Shipment
from tuner.search.records import TrialRecord

_FITS = {
    Fit.CENTRED: "scaled to fit, in the middle of a padding of level {0}",
    Fit.TOP_LEFT: "scaled to fit, at the top left of a padding of level {0}",
    Fit.STRETCHED: "stretched to the whole input, each axis by its own factor",
}


def model_card(loaded: LoadedRun, record: TrialRecord, shipment: Shipment | None, laid: Laid, refused: str) -> str:
    """Returns the card, Markdown.

    Args:
        loaded: The run.
        record: The trial; it has scores.
        shipment: The scheme; None of a run without artifacts.
        laid: What was made of it.
        refused: Why ONNX Runtime cannot run the ONNX file; empty where it can.
    """
    parts = [f"# {plain(loaded.config.name)}, trial {record.name}", _what(loaded, record)]
    parts += ["## Figures", _figures(loaded, record), _measured(loaded, record)]
    if laid.usage:
        parts += ["## How to run it", laid.usage]
    if shipment is not None:
        parts += ["## Input and outputs", _contract(shipment)]
        if laid.onnx:
            parts += [_example(shipment, laid, refused)]
    parts += ["## Formats", _formats(record, loaded.space.layers)]
    if shipment is not None:
        parts += ["## Calibration and licence", _origins(loaded, shipment)]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _what(loaded: LoadedRun, record: TrialRecord) -> str:
    quantized = sum(FORMATS[fmt].quantizes_weight for _, fmt in record.allocation.items)
    version = loaded.manifest["identity"].get("versions.tuner", "")
    return (
        f"A detector with {quantized} of {len(loaded.space.layers)} layers quantized, each to the format that a search "
        f"found for it. Made by tuner {version}; `scheme.json` holds the scheme for programs."
    )


def _figures(loaded: LoadedRun, record: TrialRecord) -> str:
    """This scheme beside the unquantized model."""
    scores, reference, accuracy = record.scores, loaded.reference, loaded.config.objective_set.maximised
    assert scores is not None
    rescore = loaded.rescores.get(record.allocation.digest)

    def points(found: Scores) -> str:
        return f"{accuracy.text(accuracy.value(found))} on {found.accuracy.images} images"

    rows = [[f"{accuracy.label}, in the search", points(reference) if reference else "", points(scores)]]
    if rescore is not None:
        for title, found, change, bounds in (
            ("all images", rescore.full, rescore.difference, rescore.interval),
            ("images that the search never saw", rescore.unseen, rescore.unseen_difference, rescore.unseen_interval),
        ):
            if found is None or change is None or bounds is None:
                continue
            value = found.figure(accuracy.name)
            low, high = (100 * bound for bound in bounds)
            rows.append(
                [
                    f"{accuracy.label}, {title}",
                    f"{accuracy.text(value - change)} on {found.images} images",
                    f"{accuracy.text(value)}: {100 * change:+.2f} points (95 % interval {low:+.2f} to {high:+.2f})",
                ]
            )
    if scores.latency is not None and reference is not None:
        ratio, interval, how = scores.latency.ratio, scores.latency.interval, "95 % interval"
        if rescore is not None and rescore.latency_ratio is not None:
            ratio, interval = rescore.latency_ratio, (min(rescore.ratios), max(rescore.ratios))
            how = f"least and most of {len(rescore.ratios)} rounds"
        spread = f" ({how} {1 / interval[1]:.2f} to {1 / interval[0]:.2f})" if interval else ""
        ours = f"{milliseconds(reference.latency_ms * ratio)} ms: {1 / ratio:.2f} times as fast{spread}"
        rows.append(["latency of one inference", f"{milliseconds(reference.latency_ms)} ms", ours])
    before = f"{reference.size.weight_bytes / 2**20:.2f} MiB" if reference else ""
    bits = scores.size.average_weight_bits
    rows.append(["weights", before, f"{scores.size.weight_bytes / 2**20:.2f} MiB, {bits:.2f} bits a weight"])
    return table(["", "unquantized", "this scheme"], rows)


def _measured(loaded: LoadedRun, record: TrialRecord) -> str:
    """Machine, versions and command."""
    facts, config = loaded.manifest["identity"], loaded.config
    device = {key.removeprefix("device."): value for key, value in facts.items() if key.startswith("device.")}
    machine = ", ".join(value if isinstance(value, str) else f"{value} {key}" for key, value in device.items())
    versions = ", ".join(
        f"{key.removeprefix('versions.')} {value}" for key, value in facts.items() if key.startswith("versions.")
    )
    runtime = f"{config.runtime.name}, {config.runtime.threads} thread(s), batch {config.runtime.batch}"
    if not config.runtime_type.artifacts:
        return f"These figures were replayed with {plain(runtime)}: no model was made or measured."
    lines = [
        f"Measured on {plain(machine)}, started {loaded.manifest['started']}, with {plain(runtime)}",
        f"({plain(versions)}), by",
        "`tuner run study.yaml`; the run's own copy of that file holds every setting. The scheme was proposed by",
        f"{code(record.origin)} and exported with `tuner export RUN --trial {record.name}`.",
    ]
    if record.scores is not None and record.scores.latency is not None:
        lines.append("Latency is the median of pairs with the unquantized model, timed in turn in one process.")
    if facts.get("runtime.emulated"):
        lines.append("Accuracy is that of the same graph in ONNX Runtime: no engine ran on that machine.")
    return "\n".join(lines) + "\n"


def _contract(shipment: Shipment) -> str:
    how, graph = shipment.detector.preprocessing, shipment.model.graph
    rows = [["input", code(graph.input[0].name), _shape(graph.input[0]), _preprocessing(how)]]
    read = set(shipment.detector.head.outputs)
    meaning = plain((inspect.getdoc(sys.modules[type(shipment.detector.head).__module__]) or "").partition("\n\n")[0])
    for value in graph.output:
        says = f"read by the head {code(shipment.detector.name)}" if value.name in read else "not read"
        rows.append(["output", code(value.name), _shape(value), says])
    names = shipment.classes
    listed = ", ".join(plain(name) for name in names[:100]) + (", ..." if len(names) > 100 else "")
    text = table(["", "name", "type and shape", ""], rows) + f"\n{meaning}\n"
    return text + (f"\n{len(names)} classes, from index 0: {listed}.\n" if names else "")


def _shape(value: onnx.ValueInfoProto) -> str:
    kind = value.type.tensor_type
    sizes = ", ".join(str(dim.dim_value or "?") for dim in kind.shape.dim)
    return f"{onnx.TensorProto.DataType.Name(kind.elem_type).lower()} ({sizes})"


def _preprocessing(how: Preprocessing) -> str:
    colours = "red, green, blue" if how.channels == "rgb" else "blue, green, red"
    value = f"level / {how.divisor:g}" if how.divisor != 1 else "levels 0 to 255"
    if any(how.mean):
        value = f"({value}) - {list(how.mean)}"
    if how.std != (1.0, 1.0, 1.0):
        value = f"({value}) / {list(how.std)}"
    return f"planes of {colours}; {value}; the image {_FITS[how.fit].format(how.padding)}"


def _example(shipment: Shipment, laid: Laid, refused: str) -> str:
    if refused:
        return f"\nONNX Runtime does not run `{laid.onnx}`: {plain(refused)}\n"
    value = shipment.model.graph.input[0]
    text = snippet(
        laid.onnx,
        value.name,
        shipment.detector.preprocessing,
        shipment.batch,
        len(value.type.tensor_type.shape.dim) == 4,
    )
    return f"\nWith ONNX Runtime alone (`pip install onnxruntime opencv-python-headless`):\n\n```python\n{text}```\n"


def _formats(record: TrialRecord, layers: Sequence[str]) -> str:
    chosen = record.allocation.formats
    counts: dict[str, int] = {}
    for layer in layers:
        fmt = chosen.get(layer, UNQUANTIZED)
        counts[fmt] = counts.get(fmt, 0) + 1
    totals = [[code(fmt), FORMATS[fmt].words, str(count)] for fmt, count in counts.items()]
    rows = [[code(layer), FORMATS[chosen.get(layer, UNQUANTIZED)].words] for layer in layers]
    return table(["format", "in words", "layers"], totals) + "\n" + table(["layer", "computes with"], rows)


def _origins(loaded: LoadedRun, shipment: Shipment) -> str:
    facts, settings, lines = loaded.manifest["identity"], loaded.config.calibration, []
    if loaded.run.calibration.exists():
        ranges = read_calibration(loaded.run)
        seen = f"of {ranges.images} images by the method `{ranges.method}`"
        digest = str(facts.get("digest.calibration") or "")[:16]
        lines.append(f"Ranges of activations were taken {seen}" + (f" (images' digest {digest})." if digest else "."))
    else:
        lines.append(f"Calibration: {settings.images or 'all'} images, method `{settings.method}`.")
    weights = loaded.config.weights
    lines.append(f"Weights: method `{weights.method}`, scales `{weights.granularity}`.")
    licence = shipment.metadata.get("license") or "not stated"
    lines.append(f"Licence of the weights, as the model file says: {plain(licence)}.")
    source = str(facts.get("digest.model", ""))[:16]
    lines.append(f"Made from the model with the SHA-256 {source}...")
    return "\n".join(lines) + "\n"
