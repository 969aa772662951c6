"""The settings of the data: which images, how they are divided, how they are read."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from deitlt_tf.recipes import values


@dataclass(frozen=True)
class Data:
    """Where the images are, which of them are used, and how they are read.

    max_pixels: largest height x width of an image. decoded_bytes: most memory for decoded training images.
    """

    name: str
    data_dir: str
    train_list: str
    val_list: str
    test_list: str
    image_root: str
    class_names_file: str
    taxonomy_file: str
    table: tuple[str, ...]
    rank: str
    keep: str
    min_images: int
    max_images: int
    split_by: str
    test_where: str
    test_fraction: float
    val_fraction: float
    split_seed: int
    imbalance: float
    imbalance_type: str
    imbalance_seed: int
    download: bool
    skip_bad_images: bool
    max_pixels: int
    decoded_bytes: float
    resize: str

    @classmethod
    def read(cls, flags: Mapping[str, Any]) -> Self:
        """The settings of the data for these flags."""
        other = {
            "name": flags["data"],
            "table": tuple(filter(None, flags["table"].split(","))),
            "max_pixels": int(flags["max_megapixels"] * 1e6),
            "decoded_bytes": flags["decoded_mb"] * 1e6,
        }
        return cls(**values.alike(cls, flags) | other)

    def source(self) -> dict[str, Any]:
        """Keywords of `data.sources.load`."""
        names = (
            *("data_dir", "train_list", "val_list", "test_list", "image_root", "class_names_file", "taxonomy_file"),
            *("table", "rank", "keep", "min_images", "max_images", "split_by", "test_where", "test_fraction"),
            *("val_fraction", "split_seed", "imbalance", "imbalance_type", "imbalance_seed", "download"),
        )
        return {name: getattr(self, name) for name in names}

    def loading(self) -> dict[str, Any]:
        """Keywords of `runs.data.load_splits`, except the folder."""
        reading = {"skip_bad_images": self.skip_bad_images, "max_pixels": self.max_pixels}
        return {"name": self.name} | reading | self.source()
