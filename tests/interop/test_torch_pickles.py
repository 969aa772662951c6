"""torch's older file format without PyTorch: equal to torch's reader, and nothing of a file is called."""

import collections
import io
import os
import pickle
import struct

import numpy as np
import pytest

from deitlt_tf.interop import torch_files, torch_pickles


class Storage:
    """What a file says of a storage; pickled as a persistent id."""

    def __init__(self, count: int, key: str = "0", kind: str = "FloatStorage"):
        self.count, self.key, self.kind = count, key, kind


class Pickler(pickle._Pickler):
    """Writes names of torch and of anything else without having them."""

    def persistent_id(self, value):
        return None

    def save_names(self, value):
        if isinstance(value, Name):
            self.write(pickle.GLOBAL + f"{value.module}\n{value.name}\n".encode())
        elif isinstance(value, Call):
            self.save(value.function)
            self.save(value.arguments)
            self.write(pickle.REDUCE)
        elif isinstance(value, Storage):
            self.save(("storage", Name("torch", value.kind), value.key, "cpu", value.count, None))
            self.write(pickle.BINPERSID)
        else:
            return False
        return True

    def save(self, value, save_persistent_id=True):
        return None if self.save_names(value) else super().save(value, save_persistent_id)


class Name:
    def __init__(self, module: str, name: str):
        self.module, self.name = module, name


class Call:
    def __init__(self, function: Name, *arguments):
        self.function, self.arguments = function, arguments


def tensor(storage, shape, strides, offset=0) -> Call:
    hooks = Call(Name("collections", "OrderedDict"))
    return Call(Name("torch._utils", "_rebuild_tensor_v2"), storage, offset, shape, strides, False, hooks)


def write(path, content, *, keys=("0",), numbers=None, magic=torch_pickles.MAGIC, little_endian=True):
    """A file of the older format. numbers: arrays, one for each key."""
    numbers = [np.arange(6, dtype="<f4")] if numbers is None else numbers
    file = io.BytesIO()
    for value in (magic, torch_pickles.VERSION, {"little_endian": little_endian}, content, list(keys)):
        Pickler(file, 2).dump(value)
    for array in numbers:
        file.write(struct.pack("<q", array.size) + array.tobytes())
    path.write_bytes(file.getvalue())
    return path


def test_every_type_of_number_and_every_layout_is_read_as_torch_reads_it(torch, tmp_path):
    whole = torch.arange(24).reshape(2, 3, 4)
    types = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32)
    types += (torch.int16, torch.int8, torch.uint8, torch.bool)
    state = collections.OrderedDict((str(dtype), whole.to(dtype)) for dtype in types)
    state |= {"transposed": whole.float().transpose(0, 2), "part": whole.float()[1, 1:, ::2], "scalar": torch.tensor(3)}
    state |= {"empty": torch.zeros(0, 3), "parameter": torch.nn.Parameter(torch.ones(2))}
    beside = {"epoch": 3, "list": [1, 2.5, None, True, "text"], "large": 2**70, "again": state}
    path = tmp_path / "file.pth"
    torch.save({"model": state} | beside, path, _use_new_zipfile_serialization=False)
    content = torch_pickles.read(path)
    for name, value in state.items():
        expected = value.detach()
        expected = expected.float() if expected.dtype == torch.bfloat16 else expected
        np.testing.assert_array_equal(content["model"][name], expected.numpy(), strict=True)
    assert {name: content[name] for name in ("epoch", "list", "large")} == {
        name: beside[name] for name in ("epoch", "list", "large")
    }
    assert content["again"] is content["model"]


def test_nothing_that_a_file_names_is_called(tmp_path, monkeypatch):
    trap = tmp_path / "trap"
    for name in (Name("os", "system"), Name("builtins", "eval"), Name("torch", "load"), Name("torch.storage", "x")):
        path = write(tmp_path / "code.pth", {"a": Call(name, f"touch {trap}")})
        with pytest.raises(torch_pickles.Refused, match=f"{name.module}.{name.name}"):
            torch_pickles.read(path)
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(os.system, protocol=2))
    with pytest.raises(torch_pickles.Refused, match=r"posix\.system|nt\.system"):
        torch_pickles.read(tmp_path / "bare.pth")
    (tmp_path / "stack.pth").write_bytes(pickle.dumps(os.system, protocol=4))
    with pytest.raises(torch_pickles.Refused, match="the opcode"):
        torch_pickles.read(tmp_path / "stack.pth")
    with pytest.raises(ValueError, match=r"bare\.pth holds more than weights .*none of its code was run"):
        torch_files.old_format(tmp_path / "bare.pth")
    assert not trap.exists()


def storage_twice() -> dict:
    return {"a": tensor(Storage(6), (6,), (1,)), "b": tensor(Storage(600), (600,), (1,))}


@pytest.mark.parametrize(
    "content",
    [
        {"a": tensor(Storage(6), (7,), (1,))},
        {"a": tensor(Storage(6), (2, 3), (4, 1))},
        {"a": tensor(Storage(6), (6,), (1,), offset=1)},
        {"a": tensor(Storage(6), (2,), (-1,), offset=3)},
        {"a": tensor(Storage(6), (10**9, 6), (0, 1))},  # would be copied as 24 GB
        {"a": tensor(Storage(6), (1,) * 40, (1,) * 40)},
        {"a": tensor(Storage(6), (2.0,), (1,))},
        {"a": tensor(Storage(10**12), (10**12,), (1,))},
        {"a": tensor(Storage(6, "other"), (6,), (1,))},
        {"a": tensor(Storage(6, kind="DoubleStorage"), (6,), (1,))},
        {"a": tensor("storage", (6,), (1,))},
        storage_twice(),
    ],
)
def test_a_tensor_that_leaves_its_storage_is_refused(tmp_path, content):
    with pytest.raises(ValueError, match="cut off, or of another kind"):
        torch_pickles.read(write(tmp_path / "lies.pth", content))


def test_a_file_of_another_kind_is_refused(tmp_path):
    good = {"a": tensor(Storage(6), (2, 3), (3, 1))}
    np.testing.assert_array_equal(torch_pickles.read(write(tmp_path / "a.pth", good))["a"], np.arange(6).reshape(2, 3))
    for changes in ({"magic": 7}, {"little_endian": False}, {"keys": ()}, {"keys": ("0", "1")}, {"numbers": []}):
        with pytest.raises(ValueError, match="another kind"):
            torch_pickles.read(write(tmp_path / "b.pth", good, **changes))
    (tmp_path / "empty.pth").write_bytes(b"")
    with pytest.raises(ValueError, match="empty"):
        torch_pickles.read(tmp_path / "empty.pth")
    with pytest.raises(FileNotFoundError, match="there is no such checkpoint"):
        torch_pickles.read(tmp_path / "none.pth")


def test_a_file_that_is_cut_off_anywhere_is_refused(tmp_path):
    path = write(tmp_path / "a.pth", {"a": tensor(Storage(6), (2, 3), (3, 1)), "b": [1, 2]})
    whole = path.read_bytes()
    for length in range(1, len(whole), 5):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="cut off, or of another kind"):
            torch_pickles.read(path)


def test_parts_that_hold_each_other_a_billion_times_take_no_time(tmp_path):
    part: list = [tensor(Storage(6), (6,), (1,))]
    for _ in range(60):
        part = [part, part]
    content = torch_pickles.read(write(tmp_path / "nested.pth", {"a": part}))
    assert content["a"][0] is content["a"][1]
    circle: list = []
    circle.append(circle)
    with pytest.raises(ValueError, match="another kind"):
        torch_pickles.read(write(tmp_path / "circle.pth", {"a": circle}))
