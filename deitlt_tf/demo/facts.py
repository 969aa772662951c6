"""The facts about a network that the demo page needs."""

from deitlt_tf.evaluation import metrics, probes
from deitlt_tf.evaluation.tables import describe_groups
from deitlt_tf.runs.finished import Finished


def facts(
    network: Finished, *, run: str, weights: str, eval_resize: int, max_pixels: int, threshold: float | None = None
) -> dict:
    """The content of facts.json.

    run: name of the run. weights: key of `runs.finished.FILES`. eval_resize: short side before the centre crop of the
    evaluation view, pixels; 0: no crop. max_pixels: largest image that the page accepts.
    threshold: probability from which an answer at a rank of the taxonomy is sure at first; None without a taxonomy.
    """
    model, names, counts = network.model, network.class_names, network.class_counts
    heads = list(metrics.heads(model.output))
    notes, groups = [], None
    if counts is None:
        notes.append("The number of training images of each class is not known for this run.")
    else:
        groups = [""] * len(names)  # stays empty where there is no head and no tail
        for group, members in metrics.groups(counts, "paper").items():
            for c in members:
                groups[c] = group
        notes.append(describe_groups(counts, "paper").partition(": ")[2].capitalize() + ".")
    if len(heads) == 1:
        notes.append("This network has one head. Only a distilled student also has DIST.")
    if probes.has_attention(model):
        notes.append(
            "The maps show where a token looks: its attention rollout over all blocks. In each map, yellow is the "
            "highest value and violet the lowest."
        )
    else:
        notes.append("A convolutional network has no attention maps.")
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
        "taxonomy": network.taxonomy and network.taxonomy.to_dict(),
        "threshold": threshold,
    }
