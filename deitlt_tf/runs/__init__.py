"""The folder of a run: flags.cfg, metrics.jsonl, checkpoints, finished models. May import data, models, devices."""

import importlib
from typing import Any

# {name: its module}. Imported when they are asked for, because `files` and `lock` need no TensorFlow and others do.
_MODULE_OF = {
    **dict.fromkeys(("Checkpoints", "Journal"), "checkpoints"),
    **dict.fromkeys(("replacing", "write_json", "write_text"), "files"),
    **dict.fromkeys(("claim", "has_begun", "refuse_other"), "folder"),
    "locked": "lock",
    **dict.fromkeys(("load_model", "load_weights", "same_classes", "save_model", "save_weights"), "models"),
}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(importlib.import_module(f"deitlt_tf.runs.{_MODULE_OF[name]}"), name)
    raise AttributeError(f"module 'deitlt_tf.runs' has no attribute {name!r}")
