"""The folder of a run: flags.cfg, metrics.jsonl, checkpoints, finished models. May import data, models, devices."""

from deitlt_tf.runs.checkpoints import Checkpoints, Journal
from deitlt_tf.runs.files import replacing, write_json, write_text
from deitlt_tf.runs.folder import claim, has_begun, refuse_other
from deitlt_tf.runs.lock import locked
from deitlt_tf.runs.models import load_model, load_weights, same_classes, save_model, save_weights

__all__ = [
    "Checkpoints",
    "Journal",
    "claim",
    "has_begun",
    "load_model",
    "load_weights",
    "locked",
    "refuse_other",
    "replacing",
    "same_classes",
    "save_model",
    "save_weights",
    "write_json",
    "write_text",
]
