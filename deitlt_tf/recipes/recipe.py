"""Settings of a run."""

from types import SimpleNamespace


def max_pixels_of(flags: SimpleNamespace) -> int:
    return int(flags.max_megapixels * 1e6)


def of_network(flags: SimpleNamespace, *, teacher: bool) -> SimpleNamespace:
    """The flags of one image as one network sees it: --teacher_X as X for the teacher."""
    names = ("image_size", "crop", "crop_min_scale", "padding", "flip", "randaugment", "erasing", "eval_resize")
    prefix = "teacher_" if teacher else ""
    return SimpleNamespace(**{name: getattr(flags, prefix + name) for name in names}, resize=flags.resize)


def mixing_of(flags: SimpleNamespace) -> dict[str, float]:
    """Keywords of `mixing.mix`."""
    return {
        "mixup_alpha": flags.mixup,
        "cutmix_alpha": flags.cutmix,
        "probability": flags.mix_prob,
        "switch_probability": flags.switch_prob,
        "smoothing": flags.smoothing,
    }


def reweight_epoch_of(flags: SimpleNamespace) -> int:
    """The epoch from which --method weighs the student's loss by class; -1: never."""
    return flags.reweight_epoch if flags.method in ("deit_lt", "vit_drw") else -1


def floats(values: list[str], *, flag: str) -> tuple[float, ...]:
    try:
        return tuple(float(value) for value in values)
    except ValueError:
        raise ValueError(f"--{flag}={','.join(values)} is not a list of numbers.") from None
