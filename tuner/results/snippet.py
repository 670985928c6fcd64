"""A few lines of Python that run an exported model, with its preprocessing, on ONNX Runtime alone."""

from __future__ import annotations

from objectives.tasks.detection.data.preprocessing import Fit, Preprocessing


def snippet(model: str, tensor: str, how: Preprocessing, batch: int, batched: bool = True) -> str:
    """Returns the lines; `image.jpg` is read, `outputs` are the model's.

    Args:
        model: Path of the ONNX file.
        tensor: Name of its input.
        how: Its preprocessing; the lines compute what `letterbox` and `Preprocessing.feed` do.
        batch: Images of one inference: the one image is given that often.
        batched: Whether the input has an axis for them.
    """
    height, width = how.size
    lines = [
        "import cv2, numpy as np, onnxruntime",
        "",
        f"session = onnxruntime.InferenceSession({model!r}, providers=['CPUExecutionProvider'])",
        "image = cv2.imread('image.jpg')  # blue, green, red",
    ]
    if how.fit is Fit.STRETCHED:
        lines += [f"canvas = cv2.resize(image, ({width}, {height}))"]
    else:
        lines += [
            f"scale = min({height} / image.shape[0], {width} / image.shape[1])",
            "h, w = max(1, round(image.shape[0] * scale)), max(1, round(image.shape[1] * scale))",
            f"canvas = np.full(({height}, {width}, 3), {how.padding}, np.uint8)",
        ]
        top = left = "0"
        if how.fit is Fit.CENTRED:
            top, left = "top", "left"
            lines += [f"top, left = round(({height} - h) / 2 - 0.1), round(({width} - w) / 2 - 0.1)"]
        lines += [f"canvas[{top}:{top} + h, {left}:{left} + w] = cv2.resize(image, (w, h))"]
    planes = "canvas[:, :, ::-1]" if how.channels == "rgb" else "canvas"
    value = f"{planes}.transpose(2, 0, 1).astype(np.float32)"
    value += f" / np.float32({how.divisor:g})" if how.divisor != 1 else ""
    for operator, values, neutral in (("-", how.mean, 0.0), ("/", how.std, 1.0)):
        if any(each != neutral for each in values):
            value = f"({value} {operator} np.array({list(values)}, np.float32)[:, None, None])"
    lines += [f"planes = {value}"]
    fed = f"np.stack([planes] * {batch})" if batched else "np.ascontiguousarray(planes)"
    lines += [f"outputs = session.run(None, {{{tensor!r}: {fed}}})"]
    return "\n".join(lines) + "\n"
