"""Readings: the heads that one training offers for its generic model and for each personal model.

FedAvg, its equal lengths and its prior differ after training only, and so do most parts of FedLoGe. So one run measures
all of them on the same weights, and its method says which one is saved.
"""

from numpy.typing import ArrayLike

from deitlt_tf.federated import heads
from deitlt_tf.federated.heads import Head
from deitlt_tf.recipes.federated import Federated

# {method: (reading of the generic model, reading of the personal models)}
SAVED = {
    "fedavg": ("plain", "masked"),
    "fedavg_rescaled": ("rescaled", "rescaled"),
    "fedavg_prior": ("plain", "prior"),
    "fedprox": ("plain", "masked"),
    "central": ("plain", "masked"),
    "local": (None, "masked"),
}


def generic(settings: Federated, *, aux: Head, fixed: Head | None) -> dict[str, Head]:
    """{reading: head} of the generic model. aux: the averaged head. fixed: SSE-C, or None."""
    if settings.method == "local":
        return {}
    if settings.method != "fedloge":
        return {"plain": aux, "rescaled": heads.rescaled(aux)}
    readings = {"SSE-C": fixed} if fixed else {}
    return readings | {"aux": aux, "GLA-FR": heads.rescaled(aux, length=settings.heads.length)}


def personal(
    settings: Federated, *, aux: Head, local: Head | None, local_counts: ArrayLike, global_counts: ArrayLike
) -> dict[str, Head]:
    """{reading: head} of a client's model; classes without training images there are masked in all of them.

    aux: the averaged head, or the client's own one where it trains alone. local: the client's head, or None.
    local_counts, global_counts: [C], training images.
    """
    if settings.method == "local":
        return {"masked": heads.masked(aux, local_counts)}
    prior = {"prior": heads.with_prior(aux, local_counts, global_counts)}
    if settings.method != "fedloge":
        readings = {"masked": aux, "rescaled": heads.rescaled(aux)}
    else:
        readings = {"aux": aux}
        if local is not None:
            readings |= {"local": local, "local + aux": heads.added(local, aux), "GLA-FR": heads.realigned(local, aux)}
    return {name: heads.masked(head, local_counts) for name, head in readings.items()} | prior


def saved(settings: Federated) -> tuple[str | None, str]:
    """(reading of the generic model, reading of the personal models) that the method stands for."""
    if settings.method != "fedloge":
        return SAVED[settings.method]
    parts = settings.heads
    shared = "GLA-FR" if parts.realign else "SSE-C" if parts.fixed else "aux"
    own = ("GLA-FR" if parts.realign else "local + aux") if parts.local else "aux"
    return shared, own
