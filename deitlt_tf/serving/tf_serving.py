"""What TensorFlow Serving wants around a SavedModel: numbered versions, requests to warm up with, how to start it."""

import contextlib
import importlib.metadata
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import tensorflow as tf

from deitlt_tf.runs.files import write_text

WARM_UP = Path("assets.extra", "tf_serving_warmup_requests")  # where the server looks for it
BATCHING, COMPOSE = "batching.config", "docker-compose.yml"  # beside the versions; no numbers, so the server skips them

BATCHING_TEXT = """\
# BatchingParameters of TensorFlow Serving: requests that come together are worked off in one batch.
# A request of more images than max_batch_size is refused. Tune to the machine; this file is never overwritten.
max_batch_size { value: 32 }
batch_timeout_micros { value: 2000 }
num_batch_threads { value: 4 }
max_enqueued_batches { value: 64 }
"""

COMPOSE_TEXT = """\
# TensorFlow Serving of the newest version in this folder, on this machine only: gRPC on 8500, REST on 8501.
#
#   docker compose up             each request is a batch of its own: a bad image is an error for its request alone
#   docker compose up batching    requests are merged as batching.config says, which pays off on a GPU. The server
#                                 gives all merged requests one error: send `bytes` only images that you trust
#
# A new version is taken up as soon as it is there. This file is never overwritten.
services:
  serving: &serving
    image: tensorflow/serving:{tag}
    environment:
      MODEL_NAME: "{name}"
    volumes:
      - .:/models/{name}:ro
    ports:
      - 127.0.0.1:8500:8500
      - 127.0.0.1:8501:8501
    restart: unless-stopped
  batching:
    <<: *serving
    profiles: [batching]
    command: [--enable_batching, --batching_parameters_file=/models/{name}/{batching}]
"""


def model_name(out: Path) -> str:
    """The name that clients ask for: the folder's own. Raises ValueError for one that would need quoting somewhere."""
    name = out.resolve().name
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name, re.ASCII):
        raise ValueError(f"--out={out}: the folder's name becomes the model's; use letters, digits, '.', '_' and '-'.")
    return name


@contextlib.contextmanager
def unfinished(out: Path) -> Iterator[Path]:
    """A new folder inside `out` that the server does not see, to be filled and then published; else it is removed."""
    temporary = out / f".exporting-{uuid.uuid4().hex}"
    try:
        temporary.mkdir(parents=True)
        yield temporary
    except (OSError, tf.errors.OpError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise OSError(f"--out={out} could not be written ({reason}); no version was added.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def publish(folder: Path, out: Path) -> Path:
    """Renames `folder` to OUT/<version>, one above the highest there: the server sees it whole or not at all."""
    while True:
        version = 1 + max((int(path.name) for path in out.iterdir() if path.name.isdecimal()), default=0)
        try:
            return folder.rename(out / str(version))
        except OSError:
            if not (out / str(version)).exists():  # else another export has just taken the number
                raise


def write_warm_up(folder: Path, *, model: str, requests: Iterable[tuple[str, Mapping[str, tf.Tensor]]]) -> None:
    """The requests, (signature, inputs), as PredictionLog records, which the server replays before it takes any other.

    Raises ValueError where the package with the messages' definitions is missing.
    """
    try:
        from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_log_pb2
    except ImportError as error:
        advice = "run `python -m pip install --no-deps tensorflow-serving-api`"
        raise ValueError(f"the package tensorflow-serving-api is missing ({error}): {advice}.") from error
    path = folder / WARM_UP
    path.parent.mkdir()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, inputs in requests:
            request = predict_pb2.PredictRequest(
                model_spec=model_pb2.ModelSpec(name=model, signature_name=signature),
                inputs={name: tf.make_tensor_proto(value.numpy()) for name, value in inputs.items()},
            )
            log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
            writer.write(log.SerializeToString())


def write_server_files(out: Path, *, model: str) -> None:
    """batching.config and docker-compose.yml beside the versions, unless they are there: they are the user's to edit.

    The server's release is that of the installed tensorflow-serving-api: an older one lacks operations.
    """
    tag = importlib.metadata.version("tensorflow-serving-api")
    texts = {BATCHING: BATCHING_TEXT, COMPOSE: COMPOSE_TEXT.format(name=model, tag=tag, batching=BATCHING)}
    for name, text in texts.items():
        if not (out / name).exists():
            write_text(out / name, text)
