"""ClassMatch: which category of the labels each class of a model is."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

from objectives.tasks.detection.data.coco_json import Category
from search_spaces.errors import InputError, nearest

_REMEDY = "give the labels' names in the model's order: --classes (in a study: model.classes)"


@dataclass(frozen=True)
class ClassMatch:
    """Classes and categories that belong together.

    Attributes:
        categories: Category id per class; None for classes without a labelled object.
        joined: ``{category id: the id that it counts as}`` for categories that are one class of the model.
        notes: What a person should know of it, in words.
    """

    categories: tuple[int | None, ...]
    joined: Mapping[int, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def match_classes(
    categories: Sequence[Category], used: Set[int], classes: Sequence[str], class_count: int, source: Path
) -> ClassMatch:
    """Matches by name, as written or else whatever the case and the characters between words.

    Where the model or the labels have no names, classes are the categories in the order of their ids, if there are as
    many of both, with or without those that only group others. Categories that fit one class are joined.

    Args:
        categories: Of the labels.
        used: Ids of those that have a box.
        classes: Class names by index; may be empty.
        class_count: Number of classes; 0 where unknown.
        source: Where the labels are from, for messages.

    Raises:
        InputError: A labelled category is no class of the model, or fits several; or counts disagree.
    """
    ordered = sorted(categories, key=lambda category: category.id)
    if not classes or not any(category.name for category in categories):
        return _by_order(ordered, used, classes, class_count, source)
    if [category.name for category in ordered] == list(classes):  # in one order, even where a name is there twice
        return ClassMatch(tuple(category.id if category.id in used else None for category in ordered))
    fitting: dict[int, list[Category]] = {}
    strange = []
    for category in (category for category in categories if category.id in used):
        same = [index for index, name in enumerate(classes) if name == category.name]
        alike = same or [index for index, name in enumerate(classes) if _plain(name) == _plain(category.name)]
        if len(alike) > 1:
            pair = " and ".join(f"{index} {classes[index]!r}" for index in alike[:2])
            raise InputError(
                f"{source}: category {category.name!r} fits several classes of the model: {pair}; {_REMEDY}"
            )
        if alike:
            fitting.setdefault(alike[0], []).append(category)
        else:
            strange.append(category.name)
    if strange:
        more = f" ({len(strange) - 1} more are not)" if len(strange) > 1 else ""
        raise InputError(
            f"{source}: category {strange[0]!r} is not one of the model's {len(classes)} "
            f"classes{more}{nearest(strange[0], classes)}; labels: {len(categories)}; {_REMEDY}"
        )
    found: list[int | None] = [None] * len(classes)
    joined: dict[int, int] = {}
    notes = []
    for index, members in fitting.items():
        first = min(members, key=lambda category: (category.name != classes[index], category.id))
        found[index] = first.id
        others = [category for category in members if category.id != first.id]
        joined |= {category.id: first.id for category in others}
        if others:
            named = ", ".join(f"{category.id} {category.name!r}" for category in (first, *others))
            notes.append(f"{source}: categories {named} count as one: class {index} {classes[index]!r} of the model")
    return ClassMatch(tuple(found), joined, tuple(notes))


def _by_order(
    ordered: Sequence[Category], used: Set[int], classes: Sequence[str], class_count: int, source: Path
) -> ClassMatch:
    count = len(classes) or class_count
    notes = []
    groups = [category for category in ordered if category.groups and category.id not in used]
    if groups and count == len(ordered) - len(groups):
        ordered = [category for category in ordered if category not in groups]
        left = ", ".join(f"{category.id} {category.name!r}" for category in groups)
        notes.append(f"{source}: left out, as it has no box and the model no class for it: category {left}")
    if count != len(ordered):
        named = "" if classes else " without names"
        raise InputError(
            f"{source}: the labels have {len(ordered)} categories, the model has {count or 'an unknown number of'} "
            f"classes{named}; {_REMEDY}"
        )
    pairs = [f"{index} = {category.id} {category.name!r}" for index, category in enumerate(ordered)]
    shown = ", ".join(pairs if len(pairs) <= 4 else [*pairs[:2], "...", pairs[-1]])
    who = "the labels have" if classes else "the model has"
    notes.append(
        f"{source}: {who} no class names; the classes are taken for the categories in the order of their ids: {shown}"
    )
    return ClassMatch(tuple(category.id for category in ordered), {}, tuple(notes))


def _plain(name: str) -> str:
    """A name without what tools change in it: case, width of characters, ``_`` and ``-`` for a space."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    return " ".join(folded.replace("_", " ").replace("-", " ").split())
