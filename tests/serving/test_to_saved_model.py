"""A SavedModel as a client sees it: TensorFlow Serving's real messages over gRPC, against the student and its view."""

import base64
import contextlib
import functools
import io
import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2
from helpers import ROOT, tiny_run
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tensorflow.core.protobuf import config_pb2

# isort: split
from deitlt_tf.training.views import evaluation_batches

from deitlt_tf import to_saved_model
from deitlt_tf.recipes import command_line
from deitlt_tf.runs.data import load_splits
from deitlt_tf.runs.models import load_model
from deitlt_tf.serving import saved_model, tf_serving
from deitlt_tf.serving.served import load_served

# not among the test extra's packages, because it would bring a second TensorFlow: install it with --no-deps
predict_pb2 = pytest.importorskip("tensorflow_serving.apis.predict_pb2")
prediction_log_pb2 = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
prediction_service_pb2_grpc = pytest.importorskip("tensorflow_serving.apis.prediction_service_pb2_grpc")
grpc = pytest.importorskip("grpc")
prediction_server = pytest.importorskip("helpers.prediction_server")

ANSWERS = {"logits_cls", "logits_dist", "logits_mean", "probabilities", "classes"}


def export(folder: Path, out: Path, *arguments: str) -> Path:
    """The newest version after one run of the program."""
    command = ["to_saved_model", f"--workdir={folder}", f"--out={out}", *arguments]
    to_saved_model.main(command_line.parse(command, from_workdir=True))
    return max(out.glob("[0-9]*"), key=lambda path: int(path.name))


@pytest.fixture
def run(program):
    """run(*arguments) -> (exit code, all that was printed)."""
    return functools.partial(program, to_saved_model, from_workdir=True, takes=to_saved_model.TAKES)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_run.finished(tmp_path_factory.mktemp("finished"))


@pytest.fixture(scope="module")
def base(tiny, tmp_path_factory):
    """models/tiny with version 1, which refuses images above 0.01 megapixels."""
    out = tmp_path_factory.mktemp("models") / "tiny"
    export(tiny, out, "--top_k=2", "--request_megapixels=0.01")
    return out


@contextlib.contextmanager
def client_of(port: int, *, model: str):
    """predict(signature, **inputs) -> {output: array}, over the wire."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

        def predict(signature: str, *, only: tuple[str, ...] = (), **inputs: np.ndarray) -> dict[str, np.ndarray]:
            request = predict_pb2.PredictRequest(output_filter=only)
            request.model_spec.name, request.model_spec.signature_name = model, signature
            for name, value in inputs.items():
                request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
            answer = stub.Predict(request, timeout=60)
            return {name: tf.make_ndarray(value) for name, value in answer.outputs.items()}

        yield predict


@pytest.fixture(scope="module")
def predict(base):
    server, port = prediction_server.start(base)
    with client_of(port, model="tiny") as client:
        yield client
    server.stop(grace=None).wait()


def refusal(call, *arguments, **inputs) -> tuple["grpc.StatusCode", str]:
    with pytest.raises(grpc.RpcError) as error:
        call(*arguments, **inputs)
    return error.value.code(), error.value.details()


def evaluated(folder: Path, *arguments: str) -> SimpleNamespace:
    """The test set as `evaluate` sees it: files, views (uint8), and what student.keras says of them."""
    flags = command_line.parse(["evaluate", f"--workdir={folder}", *arguments], from_workdir=True)
    source = load_splits(flags, folder=folder).test
    images = next(iter(evaluation_batches(source, flags, batch=len(source))))[0].numpy()
    model, _ = load_model(folder / "student.keras")
    files = np.array([Path(path).read_bytes() for path in source.images], object)
    return SimpleNamespace(files=files, images=images, model=model, logits=model(images, training=False))


def encoded(image: Image.Image, kind: str, **settings) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return file.getvalue()


def check_answers(call, ours: SimpleNamespace) -> None:
    """call(signature, **inputs) -> {output: array} is what `evaluated` is, with the two likeliest labels."""
    mean = (ours.logits["cls"] + ours.logits["dist"]) / 2
    pixels, files = call("serving_default", images=ours.images), call("bytes", image_bytes=ours.files)
    assert set(pixels) == ANSWERS and set(files) == ANSWERS | {"top_labels", "top_probabilities"}
    for found in (pixels, files):
        np.testing.assert_allclose(found["logits_cls"], ours.logits["cls"], atol=1e-5)
        np.testing.assert_allclose(found["logits_dist"], ours.logits["dist"], atol=1e-5)
        np.testing.assert_allclose(found["logits_mean"], mean, atol=1e-5)
        np.testing.assert_allclose(found["probabilities"], tf.nn.softmax(mean), atol=1e-5)
        np.testing.assert_array_equal(found["classes"], np.argmax(mean, -1))
    assert len(set(files["classes"].tolist())) > 1  # else the labels below would prove little
    order = np.argsort(-mean.numpy(), -1)[:, :2]
    names = np.array(tiny_run.CLASS_NAMES)[order]
    assert [[label.decode() for label in row] for row in files["top_labels"].tolist()] == names.tolist()
    likeliest = np.take_along_axis(tf.nn.softmax(mean).numpy(), order, -1)
    np.testing.assert_allclose(files["top_probabilities"], likeliest, atol=1e-5)
    tokens = keras.Model(ours.model.input, ours.model.get_layer("norm").output)(ours.images).numpy()
    features = call("features", images=ours.images)
    assert set(features) == {"features_cls", "features_dist"}
    np.testing.assert_allclose(features["features_cls"], tokens[:, 0], atol=1e-5)
    np.testing.assert_allclose(features["features_dist"], tokens[:, 1], atol=1e-5)


def test_the_signatures_compute_what_evaluation_does_and_refuse_what_they_should(tiny):
    """The functions themselves, run eagerly; the slow tests below send the same through an export and a server."""
    ours = evaluated(tiny)
    served = load_served(command_line.parse(["export", f"--workdir={tiny}"], from_workdir=True))
    functions = saved_model.signatures(served, top_k=2, max_pixels=10_000)
    tf.config.run_functions_eagerly(True)
    try:

        def call(signature, **inputs):
            found = functions[signature](**{name: tf.constant(value) for name, value in inputs.items()})
            return {name: value.numpy() for name, value in found.items()}

        check_answers(call, ours)
        for signature, inputs in SHAPES:
            with pytest.raises(tf.errors.InvalidArgumentError, match="is not compatible with expected shape"):
                call(signature, **inputs)
        for file, message in bad_files().values():
            with pytest.raises(tf.errors.InvalidArgumentError, match=message):
                call("bytes", image_bytes=np.array([ours.files[0], file], object))
    finally:
        tf.config.run_functions_eagerly(False)


def test_the_readmes_rest_request_is_what_the_signature_takes(tiny, tmp_path):
    """`{"b64": ...}` is how TensorFlow Serving's REST front end is told of bytes; its `instances` are by input name."""
    readme = (ROOT / "README.md").read_text()
    command = re.search(r"^ +(\(printf .*?)\| curl ", readme, re.MULTILINE | re.DOTALL)[1]
    (tmp_path / "cat.jpg").write_bytes(bytes(range(256)))
    made = subprocess.run(["bash", "-c", command], cwd=tmp_path, stdout=subprocess.PIPE, check=True)
    request = json.loads(made.stdout)
    served = load_served(command_line.parse(["export", f"--workdir={tiny}"], from_workdir=True))
    functions = saved_model.signatures(served, top_k=2, max_pixels=10_000)
    (taken,) = functions[request["signature_name"]].input_signature
    assert taken.dtype == tf.string
    ((name, value),) = request["instances"][0].items()
    assert name == taken.name and base64.b64decode(value["b64"]) == bytes(range(256))


@pytest.mark.slow
def test_a_client_gets_what_evaluation_computes(tiny, predict):
    ours = evaluated(tiny)
    check_answers(predict, ours)
    assert predict("bytes", image_bytes=ours.files[:0])["probabilities"].shape == (0, 3)
    assert set(predict("bytes", image_bytes=ours.files[:1], only=("top_labels",))) == {"top_labels"}


@functools.cache
def bad_files() -> dict[str, tuple[bytes, str]]:
    """What a client may send instead of an image, and what the answer has to say."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8))
    png, jpeg, webp = (encoded(noise, kind) for kind in ("png", "jpeg", "webp"))
    animation = encoded(noise, "webp", save_all=True, append_images=[noise.rotate(90)])
    return {
        "text": (b"hello", "image 1: not a JPEG, PNG, BMP or"),
        "nothing": (b"", "image 1: not a JPEG, PNG, BMP or"),
        "gif": (encoded(noise, "gif"), "image 1: not a JPEG, PNG, BMP or"),
        "animation": (animation, "image 1: not a JPEG, PNG, BMP or"),
        "too large": (encoded(Image.new("RGB", (101, 100)), "png"), "image 1: 101 x 100 pixels are more than the"),
        "bomb": (encoded(Image.new("1", (10_000, 10_000)), "png"), "image 1: 10000 x 10000 pixels are more than"),
        "header only": (png[:20], "Invalid PNG"),
        "half a PNG": (png[: len(png) // 2], "Invalid PNG"),
        "half a JPEG": (jpeg[: len(jpeg) // 2], "Invalid JPEG"),
        "half a WebP": (webp[: len(webp) // 2], "Failed to decode WebP"),
    }


@pytest.mark.slow
def test_a_bad_image_is_an_error_of_its_request_alone(tiny, predict):
    good = evaluated(tiny).files[:2]
    before = predict("bytes", image_bytes=good)["probabilities"]
    bad = bad_files()
    with ThreadPoolExecutor(8) as pool:  # good and bad requests at the same time, and in between
        wrong = [
            pool.submit(refusal, predict, "bytes", image_bytes=np.array([good[0], file], object))
            for file, _ in bad.values()
        ]
        right = [pool.submit(predict, "bytes", image_bytes=good) for _ in bad]
        for call, (name, (_, message)) in zip(wrong, bad.items(), strict=True):
            code, said = call.result()
            assert code == grpc.StatusCode.INVALID_ARGUMENT and message in said, (name, code, said)
        for call in right:
            np.testing.assert_array_equal(call.result()["probabilities"], before)


# Without the graph's own check, pixels of three dimensions end the server's process, and those of 16 x 16 count as four
# images of 8 x 8.
SHAPES = [
    ("serving_default", {"images": np.zeros((1, 16, 16, 3), np.uint8)}),
    ("serving_default", {"images": np.zeros((8, 8, 3), np.uint8)}),
    ("features", {"images": np.zeros((8, 8, 3), np.uint8)}),
    ("features", {"images": np.zeros((1, 8, 8, 4), np.uint8)}),
    ("bytes", {"image_bytes": np.array(b"hello", object)}),
    ("bytes", {"image_bytes": np.array([[b"hello"]], object)}),
]


@pytest.mark.slow
def test_inputs_of_another_shape_or_type_are_refused(predict):
    for signature, inputs in SHAPES:
        code, said = refusal(predict, signature, **inputs)
        assert code == grpc.StatusCode.INVALID_ARGUMENT and "is not compatible with expected shape" in said
    for inputs in ({"images": np.zeros((1, 8, 8, 3), np.float32)}, {"pixels": np.zeros((1, 8, 8, 3), np.uint8)}, {}):
        assert refusal(predict, "serving_default", **inputs)[0] == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.slow
def test_a_session_as_the_real_server_runs_it_answers_and_refuses_the_same(tiny, base):
    """TensorFlow Serving feeds a session, with no Python between: here one that checks no more than it does."""
    ours = evaluated(tiny)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        signatures = tf.compat.v1.saved_model.load(session, ["serve"], str(base / "1")).signature_def

        def call(signature, **inputs):
            feed = [signatures[signature].inputs[name].name for name in inputs]
            outputs = signatures[signature].outputs
            fetch = config_pb2.CallableOptions(feed=feed, fetch=[info.name for info in outputs.values()])
            return dict(zip(outputs, session._make_callable_from_options(fetch)(*inputs.values()), strict=True))

        np.testing.assert_allclose(
            call("serving_default", images=ours.images)["logits_cls"], ours.logits["cls"], atol=1e-5
        )
        np.testing.assert_allclose(call("bytes", image_bytes=ours.files)["logits_cls"], ours.logits["cls"], atol=1e-5)
        for signature, inputs in SHAPES:
            with pytest.raises(tf.errors.InvalidArgumentError, match="is not compatible with expected shape"):
                call(signature, **inputs)
        for file, message in bad_files().values():
            with pytest.raises(tf.errors.InvalidArgumentError, match=message):
                call("bytes", image_bytes=np.array([ours.files[0], file], object))


@pytest.mark.slow
def test_the_warm_up_requests_are_answered_when_they_are_replayed(base, predict):
    path = base / "1" / "assets.extra" / "tf_serving_warmup_requests"
    logs = [prediction_log_pb2.PredictionLog.FromString(r.numpy()) for r in tf.data.TFRecordDataset(str(path))]
    assert [log.WhichOneof("log_type") for log in logs] == ["predict_log"] * 3
    requests = [log.predict_log.request for log in logs]
    assert [r.model_spec.signature_name for r in requests] == ["serving_default", "bytes", "features"]
    for request in requests:
        assert request.model_spec.name == "tiny"
        inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
        sizes = {len(value) for value in inputs.values()}
        found = predict(request.model_spec.signature_name, **inputs)
        assert {len(value) for value in found.values()} == sizes


@pytest.mark.slow
def test_class_names_are_an_asset_and_no_traces_are_left(base):
    assert (base / "1" / "assets" / "class_names.txt").read_text().split() == list(tiny_run.CLASS_NAMES)
    assert {path.name for path in base.iterdir()} == {"1", "batching.config", "docker-compose.yml"}


def batching_parameters():
    """The message that the server reads the file as, in the fields we use; the installed package does not bring it.

    Source: tensorflow/serving, servables/tensorflow/session_bundle_config.proto.
    """
    file = descriptor_pb2.FileDescriptorProto(name="batching.proto", package="test", syntax="proto3")
    file.dependency.append(wrappers_pb2.DESCRIPTOR.name)
    message = file.message_type.add(name="BatchingParameters")
    fields = ("max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads")
    for number, name in enumerate(fields, start=1):
        field = message.field.add(name=name, number=number, type=11, label=1)
        field.type_name = ".google.protobuf.Int64Value"
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("test.BatchingParameters"))()


def test_the_server_files_are_read_as_they_should_and_are_the_users_to_edit(tmp_path):
    tf_serving.write_server_files(tmp_path, model="tiny")
    parameters = text_format.Parse((tmp_path / tf_serving.BATCHING).read_text(), batching_parameters())
    assert parameters.max_batch_size.value == 32 and parameters.num_batch_threads.value >= 1
    compose = (tmp_path / tf_serving.COMPOSE).read_text()
    mounted, config = re.search(r"- \.:(/models/tiny):ro", compose), re.search(r"_file=(/models/tiny)/(\S+)\]", compose)
    assert mounted and config and config[1] == mounted[1] and (tmp_path / config[2]).is_file()
    assert 'MODEL_NAME: "tiny"' in compose and re.search(r"tensorflow/serving:\d+\.\d+\.\d+\n", compose)
    assert all(port.startswith("127.0.0.1:") for port in re.findall(r"- (\S+:850\d)$", compose, re.MULTILINE))
    (tmp_path / tf_serving.COMPOSE).write_text("mine")
    tf_serving.write_server_files(tmp_path, model="tiny")
    assert (tmp_path / tf_serving.COMPOSE).read_text() == "mine"


@settings(max_examples=20, deadline=None)
@given(
    taken=st.sets(st.integers(0, 10**6)),
    other=st.sets(st.sampled_from(["7b", "x", ".1", "1.5", "-3"])),
    files=st.booleans(),
)
def test_a_version_is_new_and_above_all_others(tmp_path_factory, taken, other, files):
    out = tmp_path_factory.mktemp("versions")
    for name in [*map(str, taken), *other]:
        (out / name).mkdir()
        if files:
            (out / name / "saved_model.pb").write_text(name)
    with tf_serving.unfinished(out) as folder:
        (folder / "saved_model.pb").write_text("new")
        version = tf_serving.publish(folder, out)
    assert int(version.name) == max(taken, default=0) + 1 and (version / "saved_model.pb").read_text() == "new"
    assert {path.name for path in out.iterdir()} == {*map(str, taken), *other, version.name}
    assert all((out / name / "saved_model.pb").read_text() == name for name in other if files)


def test_two_exports_at_once_get_two_numbers(tmp_path):
    def one(_):
        with tf_serving.unfinished(tmp_path) as folder:
            (folder / "saved_model.pb").write_text("")
            return int(tf_serving.publish(folder, tmp_path).name)

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(one, range(16))) == list(range(1, 17))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out={tmp}/my models"], "--out={tmp}/my models: the folder's name becomes the model's"),
        (["--out={tmp}/file"], "--out={tmp}/file could not be written ("),
        (["--out={tmp}/new", "--weights=ema"], "student_ema.keras: this run has no such finished model"),
        (["--out={tmp}/new", "--top_k=0"], "--top_k=0"),
        (["--out={tmp}/new", "--quantize=int8"], "--quantize is a flag of another program"),
    ],
)
def test_a_mistake_is_one_sentence(run, tiny, tmp_path, arguments, message):
    (tmp_path / "file").write_text("")
    code, printed = run(f"--workdir={tiny}", *(argument.format(tmp=tmp_path) for argument in arguments))
    assert code == 1 and message.format(tmp=tmp_path) in printed and "Traceback" not in printed, printed
    assert printed.count("\n") == 1 and [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_failure_leaves_no_version(run, tiny, tmp_path, monkeypatch):
    def full(functions, folder, *, served):
        (folder / "saved_model.pb").write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saved_model, "write", full)
    code, printed = run(f"--workdir={tiny}", f"--out={tmp_path}/tiny")
    assert code == 1 and "could not be written (No space left on device); no version was added" in printed
    assert not list((tmp_path / "tiny").iterdir())
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis", None)
    code, printed = run(f"--workdir={tiny}", f"--out={tmp_path}/tiny")
    assert code == 1 and "pip install --no-deps tensorflow-serving-api" in printed
    assert not list((tmp_path / "tiny").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "outputs"),
    [
        (["--eval_resize=10"], ANSWERS),
        (["--heads=dist", "--prior=uniform"], {"logits_dist", "probabilities", "classes"}),
        (["--method=vit"], {"logits_cls", "probabilities", "classes"}),
    ],
)
def test_every_kind_of_network_and_view(tmp_path, arguments, outputs):
    of_run = [a for a in arguments if a.split("=")[0] in ("--eval_resize", "--method")]
    folder = tiny_run.finished(tmp_path, *of_run)
    version = export(folder, tmp_path / "models" / "kind", *arguments)
    ours = evaluated(folder, *of_run)
    loaded = tf.saved_model.load(str(version)).signatures
    flags = command_line.parse(["kind", f"--workdir={folder}", *arguments], from_workdir=True)
    expected = load_served(flags)(ours.images)
    found = loaded["bytes"](image_bytes=tf.constant(ours.files))
    assert set(found) == outputs | {"top_labels", "top_probabilities"}
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-5)
        np.testing.assert_allclose(loaded["serving_default"](images=tf.constant(ours.images))[name], value, atol=1e-5)
    plain = "--method=vit" in arguments
    assert set(loaded["features"].structured_outputs) == {"features_cls"} | (set() if plain else {"features_dist"})


@pytest.mark.slow
def test_a_convolutional_teacher_has_no_features(tmp_path):
    folder = tiny_run.finished(tmp_path, teacher=True)
    version = export(folder, tmp_path / "teacher", "--weights=teacher")
    assert set(tf.saved_model.load(str(version)).signatures) == {"serving_default", "bytes"}


@pytest.mark.slow
def test_a_server_of_its_own_survives_and_serves_the_next_version(tiny, tmp_path):
    """In another process, which never decodes what it refuses: its memory does not grow by a bomb's 300 MB."""
    out = tmp_path / "models" / "tiny"
    assert export(tiny, out).name == "1"
    ours = evaluated(tiny)

    @contextlib.contextmanager
    def serving():
        command = [sys.executable, prediction_server.__file__, str(out)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                with client_of(int(process.stdout.readline()), model="tiny") as client:
                    yield process, client
            finally:
                process.kill()

    def peak(process) -> int:
        return int(re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())[1])

    with serving() as (process, predict):
        before = predict("bytes", image_bytes=ours.files)["probabilities"]
        memory = peak(process)
        bomb = encoded(Image.new("L", (10_000, 10_000)), "png")
        bad = [file for name, (file, _) in bad_files().items() if name != "too large"]  # it is not, by default
        for file in [bomb] * 5 + bad:
            code, _ = refusal(predict, "bytes", image_bytes=np.array([file], object))
            assert code == grpc.StatusCode.INVALID_ARGUMENT
        assert peak(process) - memory < 100_000
        np.testing.assert_array_equal(predict("bytes", image_bytes=ours.files)["probabilities"], before)
        assert process.poll() is None
    first = {path: path.read_bytes() for path in (out / "1").rglob("*") if path.is_file()}
    assert export(tiny, out, "--prior=uniform").name == "2"
    assert {path: path.read_bytes() for path in (out / "1").rglob("*") if path.is_file()} == first
    with serving() as (_, predict):
        assert np.abs(predict("bytes", image_bytes=ours.files)["probabilities"] - before).max() > 1e-3
