import numpy as np
import pytest
from tiny_detectors import build_detector, write_dataset

from objectives.tasks.detection.data.dataset import load_dataset
from objectives.tasks.detection.data.preprocessed import PreprocessedImages
from objectives.tasks.detection.metrics.coco import match_table
from objectives.tasks.detection.metrics.comparison import bootstrap_difference
from objectives.tasks.detection.metrics.scoring import score
from objectives.tasks.detection.predictions import Predictions
from objectives.tasks.detection.thresholds import Thresholds
from search_spaces.errors import InputError


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scored")
    return load_dataset(*write_dataset(folder, build_detector(folder / "m.onnx"), 12))


def _perfect(dataset, classes=("apple", "boat", "cat")):
    rows = []
    for image in dataset.images:
        found = [
            [x, y, x + w, y + h, 0.9 - 0.01 * i, a.category_id - 10]
            for i, a in enumerate(a for a in dataset.annotations if a.image_id == image.id)
            for x, y, w, h in [a.bbox]
        ]
        rows.append(np.array(found, np.float32).reshape(-1, 6))
    return Predictions(tuple(image.id for image in dataset.images), tuple(rows), classes, 3)


def _worse(predictions, seed, shift=4.0):
    random = np.random.default_rng(seed)
    rows = []
    for found in predictions.detections:
        moved = found.copy()
        moved[:, :4] += random.normal(0, shift, (len(found), 4)).astype(np.float32)
        extra = moved.copy()
        extra[:, :2] -= 7
        both = np.concatenate([moved, extra])
        both[:, 4] = random.uniform(0, 1, len(both))
        rows.append(both[np.argsort(-both[:, 4])][random.uniform(0, 1, len(both)) < 0.8])
    return Predictions(predictions.ids, tuple(rows), predictions.classes, predictions.class_count)


def test_perfect_predictions_score_one(dataset):
    accuracy = score(dataset, _perfect(dataset))
    assert accuracy.map_50_95 == pytest.approx(1)
    assert accuracy.map_50 == pytest.approx(1)
    assert accuracy.images == 12
    assert accuracy.metrics["map_large"] == -1


def test_nothing_found_scores_zero(dataset):
    nothing = Predictions((), (), ("apple", "boat", "cat"), 3)
    assert score(dataset, nothing).map_50_95 == 0
    assert match_table(dataset, nothing).mean_average_precision(np.ones((12, 1))) == [0]


def test_unnamed_classes_map_by_order(dataset):
    assert score(dataset, _perfect(dataset, ())).map_50_95 == pytest.approx(1)


def test_classes_must_fit(dataset):
    with pytest.raises(InputError, match="not one of the model's 3 classes"):
        score(dataset, _perfect(dataset, ("a", "b", "c")))


def test_nothing_is_printed(dataset, capsys):
    score(dataset, _perfect(dataset))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("seed", range(3))
def test_point_estimate_is_that_of_pycocotools(dataset, seed):
    first, second = _worse(_perfect(dataset), seed), _worse(_perfect(dataset), seed + 10, 6)
    difference, (low, high) = bootstrap_difference(dataset, first, second, samples=200, seed=1)
    expected = score(dataset, first).map_50_95 - score(dataset, second).map_50_95
    assert difference == pytest.approx(expected, abs=1e-12)
    assert low < difference < high


@pytest.mark.parametrize("seed", range(3))
def test_a_resample_is_that_of_pycocotools(dataset, seed):
    """Images drawn twice are copied under new ids and scored by pycocotools itself."""
    predictions = _worse(_perfect(dataset), seed)
    counts = np.random.default_rng(seed).multinomial(12, np.full(12, 1 / 12))
    images, annotations, ids, rows = [], [], [], []
    for position, count in enumerate(counts):
        image = dataset.images[position]
        for copy in range(count):
            number = 1000 * (position + 1) + copy
            images.append(type(image)(number, image.path, image.width, image.height, image.sha256))
            ids.append(number)
            rows.append(predictions.detections[position])
            for box in (a for a in dataset.annotations if a.image_id == image.id):
                annotation = {**vars(box), "id": len(annotations) + 1, "image_id": number}
                annotations.append(type(box)(**annotation))
    resampled = type(dataset)(tuple(images), tuple(annotations), dataset.categories, dataset.source)
    expected = score(resampled, Predictions(tuple(ids), tuple(rows), predictions.classes, 3)).map_50_95
    found = match_table(dataset, predictions).mean_average_precision(counts[:, None].astype(float))
    assert found[0] == pytest.approx(expected, abs=1e-9)


def test_bootstrap_is_reproducible_and_zero_for_equal_models(dataset):
    found = _worse(_perfect(dataset), 0)
    assert bootstrap_difference(dataset, found, found, 50) == (0, (0, 0))
    other = _worse(_perfect(dataset), 1)
    assert bootstrap_difference(dataset, found, other, 50, 3) == bootstrap_difference(dataset, found, other, 50, 3)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "expected"), [("yolov8n", 0.366), ("yolov10s", 0.432)])
def test_real_models_score_what_ultralytics_gives(shared_data, tmp_path, model, expected):
    from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner
    from objectives.tasks.detection.detector import recognise
    from objectives.tasks.detection.predict import predict
    from search_spaces.model_graph import ModelGraph

    path = shared_data / "models" / f"{model}.onnx"
    dataset = load_dataset(shared_data / "coco" / "val", shared_data / "coco" / "instances_val.json")
    contract = recognise(ModelGraph(path))
    images = PreprocessedImages.build(dataset.images, contract.preprocessing, tmp_path)
    with OnnxRuntimeRunner(path) as runner:
        found = predict(runner, images, contract, Thresholds(), workers=2)
    assert score(dataset, found).map_50_95 == pytest.approx(expected, abs=0.002)
