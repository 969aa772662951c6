"""The flags of a network that is imported instead of trained here."""

from collections.abc import Mapping
from typing import Any

from deitlt_tf.recipes.recipe import Recipe
from deitlt_tf.recipes.student import Transformer
from deitlt_tf.recipes.teacher import Cnn


def stated(recipe: Recipe, *, teacher: bool) -> dict[str, Any]:
    """{model, mean, std, image_size or embed_dim, depth and activation: value}, those that explicit flags have set.
    teacher: whether it is the teacher's network, not the student's.
    """
    prefix = "teacher_" if teacher else ""
    network: Cnn | Transformer
    values: dict[str, Any]
    if teacher:
        network = recipe.teacher.network
        values = {"image_size": recipe.teacher.view.image_size}
    else:
        network = recipe.student.network
        values = {"embed_dim": network.embed_dim, "depth": network.depth, "activation": network.activation}
    values |= {"model": network.model, "mean": network.mean, "std": network.std}
    return {name: value for name, value in values.items() if prefix + name in recipe.explicit_flags}


def flags_of(name: str, options: Mapping[str, Any], *, mean: Any, std: Any, recipe: Recipe) -> dict[str, Any]:
    """{flag: value} of the flags that describe a network, as flags.cfg keeps them.

    name, options, mean, std: of `interop.torch_weights.Network`. recipe: the other settings.
    """
    teacher = not name.startswith(("deit_", "vit_"))
    prefix = "teacher_" if teacher else ""
    flags: dict[str, Any] = {f"{prefix}mean": list(map(str, mean)), f"{prefix}std": list(map(str, std))}
    flags |= {"data": "list"} if recipe.data.train_list else {}
    if not teacher:
        sizes = ("image_size", "patch_size", "depth", "embed_dim", "num_heads")
        method = recipe.student.method if "method" in recipe.explicit_flags else "deit_lt"
        flags |= {size: options.get(size, 0) for size in sizes}
        flags |= {name: options[name] for name in ("activation",) if name in options} | {"stem": "patch"}
        return flags | {"model": name.replace("vit_", "deit_"), "method": "vit" if name.startswith("vit_") else method}
    flags |= {"teacher_model": name, "teacher_classifier": options["classifier"]}
    if "teacher_eval_resize" not in recipe.explicit_flags:
        flags |= {"teacher_eval_resize": 0 if options["image_size"] <= 64 else 256}
    return flags | {"teacher_image_size": options["image_size"]}
