"""A small server of TensorFlow Serving's gRPC PredictionService around an exported SavedModel; a stand-in for tests.

Like the real server it serves the highest version of a folder and applies an output filter; errors of the graph become
gRPC errors of the same code. `python tests/helpers/prediction_server.py models/NAME` prints its port, and serves until
it is killed.
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import grpc
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

CODES = {code.value[0]: code for code in grpc.StatusCode}


class Predictor(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, base: Path):
        self.name, self.version = base.name, max(int(path.name) for path in base.iterdir() if path.name.isdecimal())
        self.model = tf.saved_model.load(str(base / str(self.version)))

    def Predict(self, request, context):
        if request.model_spec.name != self.name:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no model {request.model_spec.name!r} here")
        name = request.model_spec.signature_name or "serving_default"
        if name not in self.model.signatures:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"no signature {name!r}")
        try:
            inputs = {key: tf.constant(tf.make_ndarray(value)) for key, value in request.inputs.items()}
            outputs = self.model.signatures[name](**inputs)
        except (tf.errors.OpError, TypeError, ValueError) as error:  # the last two: shapes or types not declared
            code = CODES.get(getattr(error, "error_code", None), grpc.StatusCode.INVALID_ARGUMENT)
            context.abort(code, str(error)[:2000])
        names = list(request.output_filter) or list(outputs)
        answer = predict_pb2.PredictResponse(outputs={key: tf.make_tensor_proto(outputs[key].numpy()) for key in names})
        answer.model_spec.CopyFrom(request.model_spec)
        answer.model_spec.signature_name, answer.model_spec.version.value = name, self.version
        return answer


def start(base: Path) -> tuple[grpc.Server, int]:
    """The server, already answering, and its port on the loopback interface."""
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", -1)])
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Predictor(base), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port


if __name__ == "__main__":
    server, port = start(Path(sys.argv[1]))
    print(port, flush=True)
    server.wait_for_termination()
