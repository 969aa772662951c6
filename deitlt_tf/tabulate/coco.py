"""JSON with images, annotations and categories: iNaturalist 2017 to 2021, COCO Camera Traps."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from deitlt_tf.data.table.columns import RANKS
from deitlt_tf.tabulate.json_stream import elements
from deitlt_tf.tabulate.rows import Report, Row, ranks_of

SAYS = "a list of categories, or an object with images, annotations and categories"


@dataclass
class _Labels:
    """What a file says apart from its images. several: {image: (one category, another)}."""

    category_of: dict[Any, Any] = field(default_factory=dict)
    several: dict[Any, tuple[Any, Any]] = field(default_factory=dict)
    licenses: dict[Any, str] = field(default_factory=dict)
    keys: Counter[str] = field(default_factory=Counter)


def rows(files: Sequence[str], report: Report) -> Iterator[Row]:
    """A row for each annotated image of JSON files of any name, and of categories that a file of their own lists.

    Raises ValueError that names the file for other JSON, unknown categories, and images of several species.
    """
    categories: dict[Any, dict[str, Any]] = {}
    own: list[tuple[dict[Any, dict[str, Any]], str]] = []
    labels = {file: _labels(file, categories, own) for file in files}
    for found, file in own:  # a list of categories says more than what stands in the files with images
        _agree(categories, found, file)
    with_images = [file for file in files if labels[file].keys["images"]]
    if not with_images:
        raise ValueError(f"{files[0]} has no images: the input needs {SAYS}.")
    columns = {key: _columns_of(category) for key, category in categories.items()}
    _require_names(files, columns)
    for file in with_images:
        yield from _images(file, labels[file], columns, report, split=len(with_images) > 1)


def _agree(categories: dict[Any, dict[str, Any]], found: dict[Any, dict[str, Any]], file: str) -> None:
    """Take the categories of a list into those of the files with images."""
    for key, category in found.items():
        before = categories.get(key, {})
        categories[key] = {**before, **{name: value for name, value in category.items() if value not in (None, "")}}


def _labels(file: str, categories: dict[Any, dict[str, Any]], own: list) -> _Labels:
    labels = _Labels()
    listed: dict[Any, dict[str, Any]] = {}
    try:
        for key, item in elements(file):
            labels.keys[key] += 1
            if key == "annotations":
                image, category = _id(item, "image_id"), _id(item, "category_id")
                if labels.category_of.setdefault(image, category) != category:
                    labels.several.setdefault(image, (labels.category_of[image], category))
            elif key == "categories":
                before = categories.setdefault(_id(item, "id"), item)
                if str(_id(before, "name")) != str(_id(item, "name")):
                    both = f"{before['name']!r} and {item['name']!r}"
                    raise ValueError(f"{file}: category {item['id']} is both {both}: each id has one name")
            elif key == "licenses":
                number = _id(item, "id")
                labels.licenses[number] = str(item.get("name") or item.get("url") or "")
            elif key == "":
                listed[_id(item, "id")] = {**item, "name": _id(item, "name")}
    except TypeError as error:
        raise ValueError(f"{file} is not what tabulate reads, {SAYS}: {error}.") from None
    if listed:
        own.append((listed, file))
    elif not labels.keys["images"]:
        raise ValueError(f"{file} has no images: the input needs {SAYS}.")
    return labels


def _id(item: Any, key: str) -> str | int | float:
    """The value of an id or a name. Raises TypeError if there is none, or if it is no number and no text."""
    if not isinstance(item, dict) or item.get(key) in (None, ""):
        raise TypeError(f"it lacks {key!r} in {str(item)[:80]}")
    if not isinstance(item[key], str | int | float):
        raise TypeError(f"{key!r} is no number and no text in {str(item)[:80]}")
    return item[key]


def _image(image: Any, file: str) -> tuple[Any, str, Any]:
    """(id, path, id of the licence or None). Raises ValueError that names the file."""
    try:
        number, path = _id(image, "id"), str(_id(image, "file_name"))
        return number, path, _id(image, "license") if image.get("license") else None
    except TypeError as error:
        raise ValueError(f"{file}: an image cannot be read, {error}.") from None


def _require_names(files: Sequence[str], columns: dict[Any, dict[str, Any]]) -> None:
    """Raises ValueError for two categories that the table could not tell apart."""
    first: dict[tuple, Any] = {}
    for key, of_category in columns.items():
        told_by = tuple(of_category[name] for name in ("label", *(RANKS if of_category["species"] else ())))
        if (other := first.setdefault(told_by, key)) != key:
            raise ValueError(
                f"{files[0]}: categories {other} and {key} have the same name, {of_category['label']!r}: give each "
                "class a name of its own, or make them one class."
            )


def _images(
    file: str, labels: _Labels, columns: dict[Any, dict[str, Any]], report: Report, *, split: bool
) -> Iterator[Row]:
    several = []
    stem = os.path.splitext(os.path.basename(file))[0]
    if labels.several:  # before any row is written, because they may be refused
        for key, image in elements(file):
            if key == "images" and (found := _image(image, file))[0] in labels.several:
                one, other = (columns.get(x, {}).get("label", str(x)) for x in labels.several[found[0]])
                several.append((file, found[1], one, other))
        report.several(several)
    for key, image in elements(file):
        if key != "images":
            continue
        number, path, license_id = _image(image, file)
        if number in labels.several:
            continue
        if number not in labels.category_of:
            report.left_out["without an annotation"] += 1
            continue
        category = labels.category_of[number]
        if category not in columns:
            raise ValueError(f"{file}: {path} has the category {category}, which no file of the input lists.")
        yield {
            "image_id": number,
            "path": path,
            **columns[category],
            "observation_id": image.get("seq_id"),
            "camera": image.get("location"),
            "latitude": image.get("latitude"),
            "longitude": image.get("longitude"),
            "observed_on": image.get("datetime") or image.get("date_captured") or image.get("date"),
            "license": labels.licenses.get(license_id),
            "rights_holder": image.get("rights_holder"),
            "split": stem if split else None,
        }


def _columns_of(category: dict[str, Any]) -> dict[str, Any]:
    """The columns that all images of a category have."""
    name = str(category["name"])
    return {
        "label": name,
        "scientific_name": name if category.get("genus") else None,
        "common_name": category.get("common_name"),
        "supercategory": category.get("supercategory"),
        **ranks_of(category, name=name),
    }
