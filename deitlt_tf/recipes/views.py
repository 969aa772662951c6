"""The settings of views and batches, which student and teacher share."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from deitlt_tf.recipes import values


@dataclass(frozen=True)
class View:
    """The views of an image for one network. image_size: side of the input, pixels. randaugment: timm's notation."""

    image_size: int
    crop: str
    crop_min_scale: float
    padding: int
    flip: bool
    randaugment: str
    erasing: float
    eval_resize: int

    @classmethod
    def read(cls, flags: Mapping[str, Any], *, prefix: str = "") -> Self:
        """The views of the network whose flags begin with this prefix: "" for the student, "teacher_"."""
        return cls(**values.alike(cls, flags, prefix))

    def training(self, *, resize: str) -> dict[str, Any]:
        """Keywords of `data.augment.training_view`."""
        names = ("image_size", "crop", "crop_min_scale", "padding", "flip", "randaugment", "erasing")
        return {name: getattr(self, name) for name in names} | {"resize": resize}


@dataclass(frozen=True)
class Batch:
    """The batch of one optimiser step.

    size: images, over all devices and parts. sampling: shares of the classes, see `data.pipeline.train`.
    accumulation: parts that each device computes one after the other. repeats: views of one image.
    """

    size: int
    sampling: str
    accumulation: int = 1
    repeats: int = 1
