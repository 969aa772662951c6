"""What the demo's page has to know of the network that it runs."""

from deitlt_tf.evaluation import metrics, probes
from deitlt_tf.evaluation.tables import describe_groups
from deitlt_tf.runs.finished import Finished


def facts(network: Finished, *, run: str, weights: str, eval_resize: int, max_pixels: int) -> dict:
    """The facts, as JSON can hold them. run: its name. weights, eval_resize, max_pixels: as for the exports."""
    model, names, counts = network
    heads = list(metrics.heads(model.output))
    notes, groups = [], None
    if counts is None:
        notes.append("This run does not say how many training images each class has.")
    else:
        members = metrics.groups(counts, "paper")
        groups = [next(group for group, classes in members.items() if c in classes) for c in range(len(names))]
        notes.append(describe_groups(counts, "paper").removeprefix("paper: ").capitalize() + ".")
    if len(heads) == 1:
        notes.append("This network has one head: DIST belongs to students.")
    if probes.has_attention(model):
        notes.append(
            "Where a token looks: its attention rollout over all blocks, stretched to its own range; yellow is most, "
            "violet least."
        )
    else:
        notes.append("A convolutional network has no attention to show.")
    return {
        "run": run,
        "model": f"{model.name}, {model.count_params():,} weights, {len(names)} classes ({weights})",
        "heads": heads,
        "class_names": list(names),
        "class_counts": None if counts is None else counts.tolist(),
        "groups": groups,
        "image_size": model.input_shape[1],
        "eval_resize": eval_resize,
        "max_pixels": max_pixels,
        "notes": notes,
    }
