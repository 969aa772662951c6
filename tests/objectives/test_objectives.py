"""objectives.build: every name leads to its class, and every class keeps the contract of an objective."""

import keras
import pytest

from deitlt_tf import models, objectives
from deitlt_tf.objectives.glmc import Glmc
from deitlt_tf.objectives.labels import FromLabels
from deitlt_tf.objectives.mdcs import Mdcs
from deitlt_tf.objectives.paco import Paco

COUNTS = [9, 5, 2]
# Name: class, network, what its class needs besides.
OBJECTIVES = {
    "ce": (FromLabels, "resnet8", {}),
    "ldam": (FromLabels, "resnet8", {"max_margin": 0.4}),
    "balanced_softmax": (FromLabels, "resnet8", {}),
    "paco": (Paco, "resnet8", {"queue": 8}),
    "mdcs": (Mdcs, "mdcs_resnet8", {"ramp_steps": 3}),
    "glmc": (Glmc, "resnet8", {"epochs": 2, "steps_per_epoch": 3}),
}


def network(name: str) -> keras.Model:
    return models.build(name, num_classes=3, image_size=8)


@pytest.mark.parametrize("loss", OBJECTIVES)
def test_a_name_leads_to_its_class_and_that_keeps_the_contract(loss):
    kind, name, settings = OBJECTIVES[loss]
    net = network(name)
    objective = objectives.build(loss, net, COUNTS, **settings)
    assert type(objective) is kind
    assert objective.views == (2 if loss in objectives.TWO_VIEWS else 1)
    own = {id(v) for v in objective.trainable}
    assert {id(v) for v in net.trainable_variables} <= own
    assert not own & {id(v) for v in objective.state}
    for method in ("prepare", "losses", "finish"):
        assert callable(getattr(objective, method))
    assert objective.ascent_losses is None or loss == "glmc"


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="loss=focal is unknown: choose one of ce, ldam, balanced_softmax"):
        objectives.build("focal", network("resnet8"), COUNTS)
