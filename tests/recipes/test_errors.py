"""An error of the system or of TensorFlow is one sentence: the file's name and what helps; a fault of ours is none."""

import errno
import os

import pytest
import tensorflow as tf

from deitlt_tf.recipes.errors import LESS_MEMORY, sentence_of
from deitlt_tf.runs.files import write_text


def raised(function, *arguments) -> Exception:
    with pytest.raises(Exception) as error:
        function(*arguments)
    return error.value


def system_error(number: int, *files: str) -> OSError:
    return OSError(number, os.strerror(number), *files[:1], *([None, files[1]] if len(files) > 1 else []))


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (errno.ENOENT, "runs/x: No such file or directory."),
        (errno.ENOSPC, "runs/x: No space left on device. Free some space there, then start the same command again."),
        (
            errno.EACCES,
            "runs/x: Permission denied. Change the permissions of that file or folder, or name another one.",
        ),
        (errno.EROFS, "runs/x: Read-only file system. Change the permissions of"),
        (errno.EEXIST, "runs/x: File exists. A file stands where a folder is needed: name another folder."),
        (errno.EMFILE, "runs/x: Too many open files. Raise the limit of open files"),
    ],
)
def test_the_systems_errors_name_the_file_and_what_helps(number, sentence):
    assert sentence_of(system_error(number, "runs/x")).startswith(sentence)


def test_two_files_of_a_renaming_are_both_named():
    assert sentence_of(system_error(errno.EXDEV, "a", "b")).startswith("a -> b: ")


def test_our_own_sentences_stay_and_get_what_helps(tmp_path, monkeypatch):
    assert sentence_of(OSError("the network is gone")) == "the network is gone"
    assert sentence_of(ValueError("lr=0 is wrong")) == "lr=0 is wrong"
    assert sentence_of(FloatingPointError("NaN")) == "NaN"

    def full(*_):
        raise system_error(errno.ENOSPC)

    monkeypatch.setattr(os, "fsync", full)
    sentence = sentence_of(raised(write_text, tmp_path / "x.txt", "text"))
    assert "x.txt could not be written (No space left on device)" in sentence and sentence.endswith("again.")


@pytest.mark.parametrize("error", [KeyError("x"), TypeError("x"), RuntimeError("x"), AssertionError()])
def test_a_fault_of_the_program_is_no_sentence(error):
    assert sentence_of(error) is None


def test_memory_of_the_machine():
    assert sentence_of(MemoryError("Unable to allocate 9 GiB")).startswith(
        "the memory of this machine is not enough (Un"
    )
    assert LESS_MEMORY in sentence_of(MemoryError())


GRAPH = """Graph execution error:

Detected at node student/mul defined at (most recent call last):
<stack traces unavailable>
{reason}
     [[{{{{node student/mul}}}}]]
Hint: If you want to see a list of allocated tensors when OOM happens, add report_tensor_allocations_upon_oom. [Op:f]"""


@pytest.mark.parametrize(
    ("error", "reason", "sentence"),
    [
        (
            tf.errors.ResourceExhaustedError,
            "OOM when allocating tensor with shape[9,9]",
            f"the memory of the device is not enough (OOM when allocating tensor with shape[9,9]). {LESS_MEMORY}",
        ),
        (
            tf.errors.InternalError,
            "CUDA_ERROR_OUT_OF_MEMORY",
            f"the memory of the device is not enough (CUDA_ERROR_OUT_OF_MEMORY). {LESS_MEMORY}",
        ),
        (
            tf.errors.ResourceExhaustedError,
            "runs/x/tensorboard; No space left on device",
            "runs/x/tensorboard; No space left on device. Free some space there, then start the same command again.",
        ),
        (
            tf.errors.PermissionDeniedError,
            "runs/x; Permission denied",
            "runs/x; Permission denied. Change the permissions of that file or folder, or name another one.",
        ),
        (
            tf.errors.InvalidArgumentError,
            "Incompatible shapes.",
            "Incompatible shapes. TensorFlow calls this InvalidArgumentError; --traceback shows where it was.",
        ),
    ],
)
def test_tensorflows_errors_are_the_line_that_says_what_is_wrong(error, reason, sentence):
    for message in (reason, GRAPH.format(reason=reason)):
        assert sentence_of(error(None, None, message)) == sentence


def test_a_real_error_of_tensorflow_names_its_file(tmp_path):
    sentence = sentence_of(raised(tf.io.gfile.GFile(str(tmp_path / "none.txt")).read))
    assert "none.txt" in sentence and "\n" not in sentence
