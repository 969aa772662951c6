"""Print what a bug report needs: versions of this package, of Python, the system and the libraries; the GPUs.

python -m deitlt_tf.versions
"""

import importlib.metadata
import os
import platform

import deitlt_tf

PACKAGES = (
    *("tensorflow", "tensorflow-cpu", "keras", "numpy", "tensorflow-datasets", "absl-py", "scikit-learn", "pyarrow"),
    *("matplotlib", "tensorboard", "jinja2", "requests", "urllib3", "tqdm", "importlib_resources"),
    *("onnx", "onnxruntime", "ai-edge-litert", "tensorflow-serving-api", "torch"),
)


def version(package: str) -> str:
    """The version of an installed package, or "not installed"."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def main() -> None:
    print(f"deitlt_tf {deitlt_tf.__version__}")
    print(f"Python {platform.python_version()}, {platform.platform()}, {os.cpu_count()} CPU cores")
    for package in PACKAGES:
        print(f"{package} {version(package)}")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        import tensorflow as tf
    except ImportError as error:
        print(f"TensorFlow cannot be imported: {error}")
        return
    gpus = tf.config.list_physical_devices("GPU")
    print(f"{len(gpus)} GPUs" + "".join(f"; {tf.config.experimental.get_device_details(gpu)}" for gpu in gpus))
    print(f"KERAS_BACKEND={os.environ.get('KERAS_BACKEND', '')}")


if __name__ == "__main__":
    main()
