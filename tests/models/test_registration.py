"""What an import of the package does: nothing heavy by itself, and Keras knows our layers, whichever comes first."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from helpers.tiny_models import pixels, tiny

import deitlt_tf
from deitlt_tf import models

# Keras' own way of reading a variable for a file, under NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

# A process of its own finds the package where this one did, installed or not.
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(deitlt_tf.__file__).parents[1])}


def test_import_alone_loads_no_tensorflow():
    code = "import sys, deitlt_tf; print(sorted({'tensorflow', 'keras', 'numpy'} & sys.modules.keys()))"
    run = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


def test_names_are_imported_lazily():
    assert deitlt_tf.models is models
    assert set(deitlt_tf.MODULES) <= set(dir(deitlt_tf))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = deitlt_tf.nonsense


@pytest.mark.parametrize(
    "orders",
    [
        ["import deitlt_tf, keras"],
        # TensorFlow imports Keras as its own last act, so our layers register with a TensorFlow not quite finished.
        pytest.param(["import keras, deitlt_tf", "import deitlt_tf, tensorflow, keras"], marks=pytest.mark.slow),
    ],
)
def test_load_model_in_a_process_that_only_imports_deitlt_tf(orders, tmp_path):
    model, images = tiny("deit"), pixels()
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "pixels.npy", images)
    code = """
        import numpy, sys
        model = keras.models.load_model("model.keras")
        deitlt_tf.models.vit.with_tokens(model)  # Keras numbers names anew in this process: none may come twice
        numpy.save(sys.argv[1], model(numpy.load("pixels.npy"))["dist"])
        assert not [f for f in sys.meta_path if type(f).__module__ == "deitlt_tf"], "the import hook outlived its use"
    """
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", order + textwrap.dedent(code), f"{i}.npy"],
            cwd=tmp_path,
            env=ENVIRONMENT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i, order in enumerate(orders)
    ]
    for i, run in enumerate(runs):
        _, errors = run.communicate()
        assert run.returncode == 0, errors
        np.testing.assert_allclose(np.load(tmp_path / f"{i}.npy"), model(images)["dist"], rtol=1e-5, atol=1e-5)
