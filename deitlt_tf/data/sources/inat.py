"""Images that iNaturalist's or COCO's JSON lists: images, annotations, categories with their ranks."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from deitlt_tf.data import storage
from deitlt_tf.data.dataset import Complain, Splits, and_more, plain_name, raise_mistake, require_class_names
from deitlt_tf.data.sources.lists import ONE_CLASS, Listing, inside, listed_splits
from deitlt_tf.data.taxonomy import Taxonomy, from_lineages

# Fields of a category in iNaturalist's JSON, the finest first.
RANKS = ("genus", "family", "order", "class", "phylum", "kingdom")


def read(
    *,
    data_dir: str | None,
    train_list: str | None = None,
    val_list: str | None = None,
    test_list: str | None = None,
    image_root: str | None = None,
    complain: Complain = raise_mistake,
) -> Splits:
    """iNaturalist's or COCO's JSON: images, annotations (one category for each image), categories.

    Labels number the categories of the training file in the order of their ids.
    train_list, val_list, test_list: JSON files, relative to data_dir. With val_list but no test_list, val_list is the
        test set. Defaults: train2018.json, and val2018.json as the test set, since iNaturalist's test labels are not
        public.
    image_root: folder that the paths are relative to, itself relative to data_dir; default: data_dir.
    The ranks of the categories (genus, family, ...; or the supercategory) become the taxonomy.
    Raises ValueError or FileNotFoundError that names the file.
    """
    held_out = [file for file in (val_list, test_list) if file] or ["val2018.json"]
    files = [train_list or "train2018.json", *held_out]
    holds = f"{', '.join(files)} and the images, for iNaturalist 2018 in the folder train_val2018"
    root = storage.require_data_dir(data_dir, source="inat", holds=holds, files=files)
    files = [storage.join(root, file) for file in files]
    contents = [_read_json(file) for file in files]
    names = [_category_names(file, data) for file, data in zip(files, contents, strict=True)]
    if not names[0]:
        raise ValueError(f"{files[0]} is not an iNaturalist file: it has no categories")
    ids = sorted(names[0])
    class_names = tuple(names[0][key] for key in ids)
    require_class_names(class_names, [f"category {key} of {files[0]}" for key in ids])
    for file, others in zip(files[1:], names[1:], strict=True):
        if differing := [key for key in others if others[key] != names[0].get(key, others[key])]:
            key = differing[0]
            both = f"{names[0][key]!r} in {files[0]} and {others[key]!r} in {file}"
            raise ValueError(f"category {key} is {both}: the files need the same ids of categories")
    label_of = {key: label for label, key in enumerate(ids)}
    listings = [
        _json_listing(file, data, label_of, class_names, complain=complain)
        for file, data in zip(files, contents, strict=True)
    ]
    image_root = storage.join(root, image_root or "")
    splits = listed_splits(listings, root=image_root, class_names=class_names, complain=complain)
    return replace(splits, taxonomy=_category_taxonomy(files[0], contents[0], ids))


def _category_taxonomy(file: str, data: dict[str, Any], ids: Sequence[int]) -> Taxonomy | None:
    """The taxonomy of the categories with these ids, in this order; None where they state no ranks.

    Ranks are those of RANKS that a category has. Files of 2017 to 2019 and those of COCO have `supercategory` alone.
    Raises ValueError that names file and category for a rank that is not text.
    """
    of_id = {category["id"]: category for category in data["categories"]}
    ranks = [rank for rank in RANKS if any(of_id[key].get(rank) for key in ids)]
    if not ranks:
        ranks = [rank for rank in ("supercategory",) if any(of_id[key].get(rank) for key in ids)]
    if not ranks:
        return None
    lineages = []
    for key in ids:
        lineage = [of_id[key].get(rank) for rank in ranks]
        if wrong := [name for name in lineage if not (name is None or isinstance(name, str))]:
            raise ValueError(f"{file}: category {key} has a rank that is not text, {wrong[0]!r}.")
        lineages.append((str(of_id[key]["name"]), *(plain_name(name or "") for name in lineage)))
    places = [f"category {key} of {file}" for key in ids]
    return from_lineages(lineages, ("category" if ranks == ["supercategory"] else "species", *ranks), places=places)


def _category_names(file: str, data: dict[str, Any]) -> dict[int, str]:
    """{id of a category: its name}; {} where the file of a held-out split has none."""
    try:
        pairs = [(category["id"], str(category["name"])) for category in data.get("categories", ())]
        sorted(key for key, _ in pairs)  # ids of one type
    except (KeyError, TypeError) as error:
        raise ValueError(f"{file} is not an iNaturalist file: categories need {error}") from error
    names = dict(pairs)
    if again := [(key, name) for key, name in pairs if names[key] != name]:
        key, name = again[0]
        raise ValueError(f"{file}: category {key} is both {name!r} and {names[key]!r}: each id has one name")
    return names


def _json_listing(
    file: str, data: dict[str, Any], label_of: dict[int, int], class_names: Sequence[str], *, complain: Complain
) -> Listing:
    """data: the parsed content of `file`. label_of: {id of a category: its label}."""
    label_of_image: dict[Any, int] = {}
    differing: dict[Any, tuple[int, int]] = {}
    try:
        for item in data["annotations"]:
            image, label = item["image_id"], label_of[item["category_id"]]
            if label_of_image.setdefault(image, label) != label:
                differing[image] = label_of_image[image], label
        labels = [label_of_image[image["id"]] for image in data["images"]]
        paths = [inside(image["file_name"], file) for image in data["images"]]
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{file} is not an iNaturalist file or refers to an unknown image or category: {error}"
        ) from error
    if not paths:
        raise ValueError(f"{file} is empty: it lists no images")
    if several := [(image["file_name"], image["id"]) for image in data["images"] if image["id"] in differing]:
        path, key = several[0]
        first, second = (class_names[label] for label in differing[key])
        complain(
            ValueError(f"{file}: {path} is annotated as {first!r} and as {second!r}: {ONE_CLASS}{and_more(several)}")
        )
    return Listing(file, paths, np.array(labels, np.int32))


def _read_json(file: str) -> dict[str, Any]:
    try:
        content = json.loads(storage.read_text(file))
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} is not an iNaturalist file: it holds no object with images, annotations, categories")
    return content
