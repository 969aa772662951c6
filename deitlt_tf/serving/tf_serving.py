"""What TensorFlow Serving needs around a SavedModel: numbered versions, warm-up requests, files to start a server."""

import contextlib
import importlib.metadata
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import tensorflow as tf

from deitlt_tf.runs.files import write_text

WARM_UP = Path("assets.extra", "tf_serving_warmup_requests")  # the path that the server expects
BATCHING, COMPOSE = (
    "batching.config",
    "docker-compose.yml",
)  # next to the versions; the server skips them because they are not numbers

MOST_BATCHED = 32  # images in a batch of the server
BATCHING_TEXT = """\
# BatchingParameters of TensorFlow Serving: requests that arrive together run in one batch.
# The server refuses a request of more images than max_batch_size. The limits of the export (--request_images and
# --request_megapixels) hold for a whole batch. Adapt the numbers to your machine: an export never overwrites this file.
max_batch_size {{ value: {images} }}
batch_timeout_micros {{ value: 2000 }}
num_batch_threads {{ value: 4 }}
max_enqueued_batches {{ value: 64 }}
"""

COMPOSE_TEXT = """\
# TensorFlow Serving of the newest version in this folder, for this machine only: gRPC on 8500, REST on 8501.
#
#   docker compose up             each request is a batch of its own: a bad image fails only its own request
#   docker compose up batching    requests are merged as batching.config says, which is faster on a GPU. A bad image
#                                 fails all requests of its batch: send only images that you trust to `bytes`
#
# The server loads a new version as soon as it exists. An export never overwrites this file.
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
    """The name that clients use for the model: that of the folder. Raises ValueError for a name that needs quoting."""
    name = out.resolve().name
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name, re.ASCII):
        raise ValueError(f"--out={out}: the folder's name becomes the model's; use letters, digits, '.', '_' and '-'.")
    return name


@contextlib.contextmanager
def unfinished(out: Path) -> Iterator[Path]:
    """A new folder inside `out` that the server ignores, to fill and then `publish`; else it is removed at the end.

    Raises OSError, in one sentence, where a file cannot be written.
    """
    temporary = out / f".exporting-{uuid.uuid4().hex}"
    try:
        temporary.mkdir(parents=True)
        yield temporary
    except tf.errors.InvalidArgumentError:  # of the network, and not of a file
        raise
    except (OSError, tf.errors.OpError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise OSError(f"--out={out} could not be written ({reason}); no version was added.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def publish(folder: Path, out: Path) -> Path:
    """Rename `folder` to OUT/<version>, one above the highest version, so the server sees all of it or nothing."""
    while True:
        version = 1 + max((int(path.name) for path in out.iterdir() if path.name.isdecimal()), default=0)
        try:
            return folder.rename(out / str(version))
        except OSError:
            if not (out / str(version)).exists():  # otherwise another export has just taken this number
                raise


def write_warm_up(folder: Path, *, model: str, requests: Iterable[tuple[str, Mapping[str, tf.Tensor]]]) -> None:
    """Write requests, (signature, inputs), as PredictionLog records. The server replays them before it takes others.

    model: the name from `model_name`. Raises ValueError where the package tensorflow-serving-api is missing.
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


def write_server_files(out: Path, *, model: str, most_images: int = MOST_BATCHED) -> None:
    """Write batching.config and docker-compose.yml next to the versions; existing files stay, because users edit them.

    most_images: the limit of `saved_model.views` for a request, which no batch may exceed.

    The release of the server is that of the installed tensorflow-serving-api, because an older one lacks operations.
    """
    tag = importlib.metadata.version("tensorflow-serving-api")
    batching = BATCHING_TEXT.format(images=min(MOST_BATCHED, most_images))
    texts = {BATCHING: batching, COMPOSE: COMPOSE_TEXT.format(name=model, tag=tag, batching=BATCHING)}
    for name, text in texts.items():
        if not (out / name).exists():
            write_text(out / name, text)
