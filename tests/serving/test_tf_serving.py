"""What lies around a SavedModel: numbered versions, the server's files, requests to warm up with."""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest
import tensorflow as tf
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from deitlt_tf.serving import tf_serving

# The extra [test] does not bring this package, because it would bring a second TensorFlow: install it with --no-deps.
prediction_log_pb2 = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")


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
    tf_serving.write_server_files(tmp_path / "few", model="tiny", most_images=7)
    few = text_format.Parse((tmp_path / "few" / tf_serving.BATCHING).read_text(), batching_parameters())
    assert few.max_batch_size.value == 7
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
    versions=st.sets(st.integers(0, 10**6)),
    other=st.sets(st.sampled_from(["7b", "x", ".1", "1.5", "-3"])),
    files=st.booleans(),
)
def test_a_version_is_new_and_above_all_others(tmp_path_factory, versions, other, files):
    out = tmp_path_factory.mktemp("versions")
    for name in [*map(str, versions), *other]:
        (out / name).mkdir()
        if files:
            (out / name / "saved_model.pb").write_text(name)
    with tf_serving.unfinished(out) as folder:
        (folder / "saved_model.pb").write_text("new")
        version = tf_serving.publish(folder, out)
    assert int(version.name) == max(versions, default=0) + 1 and (version / "saved_model.pb").read_text() == "new"
    assert {path.name for path in out.iterdir()} == {*map(str, versions), *other, version.name}
    assert all((out / name / "saved_model.pb").read_text() == name for name in other if files)


def test_two_exports_at_once_get_two_numbers(tmp_path):
    def one(_):
        with tf_serving.unfinished(tmp_path) as folder:
            (folder / "saved_model.pb").write_text("")
            return int(tf_serving.publish(folder, tmp_path).name)

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(one, range(16))) == list(range(1, 17))


@pytest.mark.parametrize("name", ["first", "v1.2_b-3"])
def test_the_folder_names_the_model(tmp_path, name):
    assert tf_serving.model_name(tmp_path / name) == name


@pytest.mark.parametrize("name", ["my models", ".hidden", "größe", "a'b"])
def test_a_name_that_would_need_quotes_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match=f"out={tmp_path / name}: the folder's name becomes the model's"):
        tf_serving.model_name(tmp_path / name)


def test_nothing_is_left_of_an_export_that_failed(tmp_path):
    with (
        pytest.raises(OSError, match=r"could not be written \(No space left on device\)"),
        tf_serving.unfinished(tmp_path),
    ):
        raise OSError(28, "No space left on device")
    assert not list(tmp_path.iterdir())


def test_warm_up_requests_are_what_the_server_replays(tmp_path):
    inputs = {"images": tf.zeros([1, 2, 2, 3], tf.uint8)}
    tf_serving.write_warm_up(tmp_path, model="first", requests=[("serving_default", inputs), ("features", inputs)])
    records = tf.data.TFRecordDataset(str(tmp_path / tf_serving.WARM_UP))
    requests = [prediction_log_pb2.PredictionLog.FromString(r.numpy()).predict_log.request for r in records]
    assert [r.model_spec.signature_name for r in requests] == ["serving_default", "features"]
    for request in requests:
        assert request.model_spec.name == "first"
        assert tf.make_ndarray(request.inputs["images"]).shape == (1, 2, 2, 3)
