"""PyTorch files as arrays: what is read, and what is refused without running it (extra [torch])."""

import argparse
import os
import pathlib
import pickle

import numpy as np
import pytest
from helpers.state_dicts import tensors

from deitlt_tf.interop import torch_files


class Program:
    """Pickled as a call of os.system."""

    def __init__(self, command: str):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("zipped", [True, False])
def test_an_official_checkpoint_is_read_with_what_lies_beside_its_weights(torch, states, tmp_path, zipped):
    arguments = argparse.Namespace(
        output_dir=pathlib.PosixPath("out"),
        cls_num_list=[np.int64(5), np.int64(2)],
        class_map=[1, 0],
        data_set="INAT18",
    )
    weights = tensors(torch, states["student"])
    beside = {"optimizer": {"state": {}}, "epoch": 3, "args": arguments, "best_acc_avg": np.float64(87.5), "scaler": {}}
    averaged = {name: value.double() for name, value in tensors(torch, states["ema"]).items()}
    path = tmp_path / "student.pth"
    torch.save({"model": weights, "model_ema": averaged} | beside, path, _use_new_zipfile_serialization=zipped)
    read, settings = torch_files.read(path)
    for key, name in (("", "student"), ("_ema", "ema")):
        assert read[key].keys() == states[name].keys()
        assert all(
            np.array_equal(read[key][n], v) and read[key][n].dtype == np.float32 for n, v in states[name].items()
        )
    assert settings["class_map"] == [1, 0] and settings["cls_num_list"] == [5, 2] and settings["data_set"] == "INAT18"


def test_code_is_refused_and_not_run(torch, states, tmp_path):
    trap = tmp_path / "trap"
    content = {"model": tensors(torch, states["student"]), "epoch": Program(f"touch {trap}")}
    torch.save(content, tmp_path / "new.pth")
    torch.save(content, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(Program(f"touch {trap}"), protocol=2))
    torch.save(torch.nn.Linear(2, 3), tmp_path / "module.pth")
    for name, what in {
        "new": "(posix.system)",
        "old": "(posix.system)",
        "module": "Linear",
        "bare": "than weights",
    }.items():
        with pytest.raises(ValueError, match="refused, and none of its code was run") as error:
            torch_files.read(tmp_path / f"{name}.pth")
        assert str(tmp_path / f"{name}.pth") in str(error.value) and what in str(error.value)
    assert not trap.exists()
    content["epoch"].__reduce__()[0](f"touch {trap}")  # it would have
    assert trap.exists()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_a_file_that_is_cut_off_is_named(torch, states, tmp_path, zipped, share):
    path = tmp_path / "cut.pth"
    torch.save({"model": tensors(torch, states["student"])}, path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match=r"cut\.pth (is not a complete PyTorch file|.*, or is cut off)"):
        torch_files.read(path)


def test_what_is_no_checkpoint_is_named(torch, tmp_path):
    (tmp_path / "text.pth").write_text("these are no weights")
    torch.save([torch.zeros(2)], tmp_path / "list.pth")
    torch.save({"epoch": 3, "model": {"a": 1}}, tmp_path / "without.pth")
    for name, message in {
        "none": "there is no such checkpoint",
        "text": "is not a complete PyTorch file",
        "list": "holds a list, not named weights",
        "without": "has no weights under model or state_dict: it holds epoch, model",
    }.items():
        with pytest.raises((ValueError, FileNotFoundError), match=rf"{name}.pth:? {message}"):
            torch_files.read(tmp_path / f"{name}.pth")
