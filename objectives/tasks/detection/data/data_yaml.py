"""Data yamls as Ultralytics and Roboflow write them: class names, and which images each split has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from objectives.tasks.detection.data.coco_json import Category
from objectives.tasks.detection.data.image_files import SUFFIXES, images_in, listed_images, located
from search_spaces.errors import InputError
from search_spaces.reading import is_file, is_folder, read_yaml

YAML_SUFFIXES = frozenset({".yaml", ".yml"})
_MOST_ENTRIES = 1000  # of a split; each may be a folder that is searched
#: Splits, each with the keys that name it.
SPLITS: Mapping[str, tuple[str, ...]] = {"train": ("train",), "val": ("val", "validation", "valid"), "test": ("test",)}


@dataclass(frozen=True)
class DataYaml:
    """A data yaml.

    Attributes:
        path: The file.
        categories: Ids are the class indices; names are empty where the file only counts the classes.
        keypoint_values: Numbers behind the box of a label row that has keypoints; 0 without.
        keypoint_dimensions: Numbers of a keypoint: x, y and perhaps visibility.
        root: The folder that paths in it are relative to.
        entries: ``{split: image folders, lists or images}`` as written.
    """

    path: Path
    categories: tuple[Category, ...]
    keypoint_values: int
    keypoint_dimensions: int
    root: Path
    entries: Mapping[str, tuple[str, ...]]

    def images(self, split: str) -> tuple[Path, ...]:
        """Image files of a split, sorted within each folder, each once.

        Raises:
            InputError: There is no such split, or it names what is not there or holds no image.
        """
        entries = self.entries.get(split, ())
        if not entries:
            has = ", ".join(name for name, found in self.entries.items() if found) or "none"
            raise InputError(f"{self.path}: has no {split!r} split (it has: {has}); name its images as {split!r}")
        files = tuple(dict.fromkeys(file for entry in entries for file in self._files(entry, split)))
        if not files:
            raise InputError(f"{self.path}: no image in {', '.join(entries)}; {split!r} must name images")
        return files

    def _files(self, entry: str, split: str) -> list[Path]:
        # Roboflow writes ../valid/images for the folder valid/images beside the yaml.
        names = [entry, *([entry[3:]] if entry.startswith(("../", "..\\")) else [])]
        names += [name.replace("\\", "/") for name in names if "\\" in name]
        tried = [self.root / name for name in names]
        for path in tried:
            if is_folder(path):
                return images_in(path.resolve())
            if is_file(path):
                return [path] if path.suffix.lower() in SUFFIXES else self._listed(path.resolve())
        raise InputError(f"{self.path}: {split!r} {str(tried[0])!r} is neither an image folder nor an image list")

    def _listed(self, path: Path) -> list[Path]:
        places = (path.parent, self.root, Path())
        found = []
        for _, name in listed_images(path):
            files = [located(place, name) for place in places]
            if not files[0].name.startswith("._"):
                found.append(next((file for file in files if is_file(file)), files[0]))
        return found


def data_yaml_in(path: Path) -> Path:
    """The data yaml itself, also where the folder is named that an export lies in.

    Raises:
        InputError: The folder holds none, or several.
    """
    if not is_folder(path):
        return path
    found = [file for file in sorted(path.iterdir()) if file.suffix.lower() in YAML_SUFFIXES and is_file(file)]
    named = [file for file in found if file.stem in ("data", "dataset")] or found
    if len(named) != 1:
        listed = ", ".join(file.name for file in named) or "no yaml"
        raise InputError(f"--data {str(path)!r}: this folder holds {listed}; name its data yaml")
    return named[0]


def read_data_yaml(path: Path) -> DataYaml:
    """Reads a data yaml.

    Paths in it are relative to its ``path``, which is relative to the yaml or else to the working folder. Where that is
    not there, because the set was moved, they are relative to the yaml.

    Raises:
        InputError: It is missing or of the wrong structure.
    """
    data = read_yaml(path, "data yaml")
    folder = data.get("path") or "."
    if not isinstance(folder, str):
        raise InputError(f"{path}: 'path' must name the folder of the set")
    home = path.resolve().parent
    places = [place / name for place in (home, Path.cwd()) for name in (folder, folder.replace("\\", "/"))]
    root = next((place for place in places if is_folder(place)), home)
    return DataYaml(path, _categories(data, path), *_keypoint_values(data, path), root, _entries(data, path))


def _entries(data: Mapping[str, Any], path: Path) -> Mapping[str, tuple[str, ...]]:
    found = {}
    for split, keys in SPLITS.items():
        key = next((key for key in keys if data.get(key)), None)
        value = data[key] if key is not None else []
        entries = value if isinstance(value, list) else [value]
        if len(entries) > _MOST_ENTRIES:
            raise InputError(
                f"{path}: {key!r} has {len(entries)} entries (at most {_MOST_ENTRIES}); name a list in a file"
            )
        if not all(isinstance(entry, str) and entry for entry in entries):
            raise InputError(f"{path}: {key!r} must name an image folder or an image list, or be a list of such")
        found[split] = tuple(entries)
    return found


def _categories(data: Mapping[str, Any], path: Path) -> tuple[Category, ...]:
    names, count = data.get("names"), data.get("nc")
    if isinstance(count, (str, float)) and str(count).strip().removesuffix(".0").isdecimal():
        count = int(float(count))
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or not 0 < count < 1 << 16):
        raise InputError(f"{path}: 'nc' is {count!r}; it must be the number of classes, or left out")
    if names is None and count is not None:
        return tuple(Category(index, "") for index in range(count))
    if isinstance(names, list):
        names = dict(enumerate(names))
    if isinstance(names, dict):  # class indices may be written as texts
        names = {int(key) if str(key).isdecimal() and len(str(key)) < 9 else key: name for key, name in names.items()}
    if not isinstance(names, dict) or not names or set(names) != set(range(len(names))):
        raise InputError(f"{path}: 'names' must list the class names, or map 0, 1, ... to them")
    if not all(isinstance(name, (str, int, float)) for name in names.values()):
        raise InputError(f"{path}: 'names' must be texts")
    if count is not None and count != len(names):
        raise InputError(f"{path}: 'nc' is {count} but 'names' has {len(names)}; correct one of them")
    return tuple(Category(index, str(names[index])) for index in range(len(names)))


def _keypoint_values(data: Mapping[str, Any], path: Path) -> tuple[int, int]:
    shape = data.get("kpt_shape")
    if shape is None:
        return 0, 3
    if not isinstance(shape, list) or len(shape) != 2 or not all(isinstance(n, int) and 0 <= n < 4096 for n in shape):
        raise InputError(f"{path}: 'kpt_shape' is {shape!r}; it must be [keypoints, 2 or 3]")
    return prod(shape), shape[1]
