"""What flags.cfg has to say of a network that was imported and not trained here."""

from collections.abc import Mapping
from typing import Any

from deitlt_tf.recipes.recipe import Recipe


def stated(recipe: Recipe, *, teacher: bool) -> dict[str, Any]:
    """What a person or a flag file has stated of the network: model, mean, std, sizes; nothing else is in the dict."""
    if teacher:
        network, prefix = recipe.teacher.network, "teacher_"
        values = {"model": network.model, "image_size": recipe.teacher.view.image_size}
    else:
        network, prefix = recipe.student.network, ""
        values = {"model": network.model, "embed_dim": network.embed_dim, "depth": network.depth}
    values |= {"mean": network.mean, "std": network.std}
    return {name: value for name, value in values.items() if prefix + name in recipe.given}


def flags_of(name: str, options: Mapping[str, Any], *, mean: Any, std: Any, recipe: Recipe) -> dict[str, Any]:
    """The flags that describe a network. name, options, mean, std: those of `interop.torch_weights.Network`."""
    teacher = name.startswith("res")
    prefix = "teacher_" if teacher else ""
    flags = {f"{prefix}mean": list(map(str, mean)), f"{prefix}std": list(map(str, std))}
    flags |= {"data": "list"} if recipe.data.train_list else {}
    if not teacher:
        sizes = ("image_size", "patch_size", "depth", "embed_dim", "num_heads")
        method = recipe.student.method if "method" in recipe.given else "deit_lt"
        flags |= {size: options.get(size, 0) for size in sizes}
        return flags | {"model": name.replace("vit_", "deit_"), "method": "vit" if name.startswith("vit_") else method}
    flags |= {"teacher_model": name, "teacher_classifier": options["classifier"]}
    if "teacher_eval_resize" not in recipe.given:
        flags |= {"teacher_eval_resize": 0 if options["image_size"] <= 64 else 256}
    return flags | {"teacher_image_size": options["image_size"]}
