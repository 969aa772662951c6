"""A SavedModel as a client sees it: TensorFlow Serving's real messages over gRPC, against the student and its view."""

import contextlib
import functools
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from helpers import tiny_run
from helpers.saved_models import ANSWERS, SHAPES, bad_files, check_answers, encoded, evaluated
from PIL import Image
from tensorflow.core.protobuf import config_pb2

from deitlt_tf import to_saved_model
from deitlt_tf.recipes import command_line
from deitlt_tf.recipes.flags import FLAGS
from deitlt_tf.serving import saved_model
from deitlt_tf.serving.served import load_served

# The extra [test] does not bring these, because they would bring a second TensorFlow: install them with --no-deps.
predict_pb2 = pytest.importorskip("tensorflow_serving.apis.predict_pb2")
prediction_log_pb2 = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
prediction_service_pb2_grpc = pytest.importorskip("tensorflow_serving.apis.prediction_service_pb2_grpc")
grpc = pytest.importorskip("grpc")

from helpers import prediction_server  # noqa: E402  it needs those


def export(folder: Path, out: Path, *arguments: str) -> Path:
    """The newest version after one run of the program."""
    command = ["to_saved_model", f"--workdir={folder}", f"--out={out}", *arguments]
    recipe = command_line.recipe_of(command, from_workdir=True)
    to_saved_model.main(recipe, **{name: FLAGS[name].value for name in to_saved_model.TAKES})
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


@pytest.mark.slow
def test_a_client_gets_what_evaluation_computes(tiny, predict):
    ours = evaluated(tiny)
    check_answers(predict, ours)
    assert predict("bytes", image_bytes=ours.files[:0])["probabilities"].shape == (0, 3)
    assert set(predict("bytes", image_bytes=ours.files[:1], only=("top_labels",))) == {"top_labels"}


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


@pytest.mark.slow
def test_a_request_of_too_much_is_refused_whole(tiny, predict):
    small = encoded(Image.new("RGB", (60, 60)), "png")
    for number, message in ((65, "65 images are more than the limit of 64"), (3, "the images have 10800 pixels")):
        code, said = refusal(predict, "bytes", image_bytes=np.array([small] * number, object))
        assert code == grpc.StatusCode.INVALID_ARGUMENT and message in said
    assert len(predict("bytes", image_bytes=np.array([small] * 2, object))["classes"]) == 2


@pytest.mark.slow
def test_an_export_for_one_image_a_request_warms_up_and_batches_accordingly(tiny, tmp_path):
    out = tmp_path / "single"
    version = export(tiny, out, "--request_images=1")
    assert "max_batch_size { value: 1 }" in (out / "batching.config").read_text()
    answer = tf.saved_model.load(str(version)).signatures["bytes"]
    with pytest.raises(tf.errors.InvalidArgumentError, match="2 images are more than the limit of 1"):
        answer(image_bytes=tf.constant(evaluated(tiny).files[:2]))


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
        outputs = predict(request.model_spec.signature_name, **inputs)
        assert {len(value) for value in outputs.values()} == sizes


@pytest.mark.slow
def test_class_names_are_an_asset_and_no_traces_are_left(base):
    assert (base / "1" / "assets" / "class_names.txt").read_text().split() == list(tiny_run.CLASS_NAMES)
    assert {path.name for path in base.iterdir()} == {"1", "batching.config", "docker-compose.yml"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out={tmp}/my models"], "--out={tmp}/my models: the folder's name becomes the model's"),
        (["--out={tmp}/file"], "--out={tmp}/file could not be written ("),
        (["--out={tmp}/new", "--weights=ema"], "student_ema.keras: this run has no such finished model"),
        (["--out={tmp}/new", "--top_k=0"], "--top_k=0"),
        (["--out={tmp}/new", "--quantize=int8"], "--quantize is a flag of another command"),
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
    wishes = {"heads": "dist", "prior": "uniform"} if "--prior=uniform" in arguments else {}
    expected = load_served(tiny_run.recipe_of(folder), weights="student", **wishes)(ours.images)
    answers = loaded["bytes"](image_bytes=tf.constant(ours.files))
    assert set(answers) == outputs | {"top_labels", "top_probabilities"}
    for name, value in expected.items():
        np.testing.assert_allclose(answers[name], value, atol=1e-5)
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
