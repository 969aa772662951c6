"""State dicts of torch's older, non-zip file format, without PyTorch and without unpickling.

    four pickles (magic number, version, byte order, named tensors), the keys of the storages, the storages' numbers

Python's unpickler calls whatever a file names. This reader is no unpickler: it knows the 30 opcodes that a dict of
tensors needs, and calls nothing but `_tensor` below, whatever the file says. Anything else is refused by its name.
A file of numbers cannot take more memory than its own size.
Source: torch/serialization.py, _legacy_save; Python's pickletools.
"""

import math
import mmap
import pickletools
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import numpy as np

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001
# {name of a storage's class in torch: type of its numbers}. BFloat16 is read as the upper half of a float32.
STORAGES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": "<u2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
ORDERED_DICT, TENSOR, PARAMETER = (
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
)
MOST_AXES = 32
KNOWN = {ORDERED_DICT, TENSOR, PARAMETER, *(f"torch {name}" for name in STORAGES)}
# Opcodes that push their argument.
CONSTANTS = {
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE", "BININT", "BININT1", "BININT2", "INT"),
    *("LONG", "LONG1", "BINFLOAT", "FLOAT"),
}
VALUES = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}


class Refused(ValueError):
    """The file holds something other than tensors. The argument is its name."""


class _Global(NamedTuple):
    """A name that the file refers to. It is never looked up."""

    name: str


class _Storage(NamedTuple):
    """Numbers that several tensors may share. kind: a key of STORAGES. size: how many numbers."""

    kind: str
    key: str
    size: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


_MARK = object()


def read(path: Path) -> Any:
    """What the file holds: dicts, lists and plain values, each tensor a NumPy array (bfloat16 as float32).

    Raises FileNotFoundError, Refused for a file that holds anything but tensors and plain values, and ValueError for
    one that is cut off or of another format.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such checkpoint.")
    with path.open("rb") as file:
        if not path.stat().st_size:
            raise ValueError("it is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            try:
                return _file(content)
            except Refused:
                raise
            except (ValueError, IndexError, KeyError, TypeError, StopIteration, RecursionError) as error:
                raise ValueError("cut off, or of another kind") from error


def _file(content: mmap.mmap) -> Any:
    if _pickle(content) != MAGIC or _pickle(content) != VERSION:
        raise ValueError("another format")
    system = _pickle(content)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ValueError("another byte order")
    tree, keys = _pickle(content), _of(list, _pickle(content))
    storages: dict[str, _Storage] = {}
    for storage in _storages(tree, set()):
        if storages.setdefault(storage.key, storage) != storage:
            raise ValueError("two storages of one key")
    numbers = {key: _numbers(content, storages[key]) for key in keys}
    return _arrays(tree, numbers, {})


def _numbers(content: mmap.mmap, storage: _Storage) -> np.ndarray:
    """The numbers of the next storage of the file, 1-D and read-only."""
    dtype = np.dtype(STORAGES[storage.kind])
    length = storage.size * dtype.itemsize
    if int.from_bytes(content.read(8), "little") != storage.size or content.tell() + length > len(content):
        raise ValueError("the file ends too early")
    flat = np.frombuffer(content.read(length), dtype)
    return (flat.astype("<u4") << 16).view("<f4") if storage.kind == "BFloat16Storage" else flat


def _storages(tree: Any, seen: set[int]) -> Iterator[_Storage]:
    """The storages of all tensors. seen: ids of the parts that have been visited, because a part may occur often."""
    if isinstance(tree, _Tensor):
        yield tree.storage
    elif isinstance(tree, dict | list | tuple) and id(tree) not in seen:
        seen.add(id(tree))
        for value in tree.values() if isinstance(tree, dict) else tree:
            yield from _storages(value, seen)


def _arrays(tree: Any, numbers: dict[str, np.ndarray], done: dict[int, Any]) -> Any:
    """The tree with arrays instead of tensors: views, so that tensors of one storage share its memory.

    done: {id of a part: its result}, because a part may occur often.
    """
    if isinstance(tree, _Tensor):
        flat = numbers[tree.storage.key]
        strides = tuple(stride * flat.itemsize for stride in tree.strides)
        return np.lib.stride_tricks.as_strided(flat[tree.offset :], tree.shape, strides, writeable=False)
    if not isinstance(tree, dict | list | tuple):
        return tree
    if id(tree) not in done:
        if isinstance(tree, dict):
            done[id(tree)] = {key: _arrays(value, numbers, done) for key, value in tree.items()}
        else:
            done[id(tree)] = [_arrays(value, numbers, done) for value in tree]
    return done[id(tree)]


def _pickle(content: mmap.mmap) -> Any:
    """The value of the next pickle. Nothing in it is looked up or called."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}

    def to_mark() -> list[Any]:
        at = next(i for i in range(len(stack) - 1, -1, -1) if stack[i] is _MARK)
        values = stack[at + 1 :]
        del stack[at:]
        return values

    argument: Any
    for opcode, argument, _ in pickletools.genops(cast(IO[bytes], content)):
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case name if name in CONSTANTS:
                stack.append(argument)
            case name if name in VALUES:
                stack.append(VALUES[name])
            case "MARK":
                stack.append(_MARK)
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE":
                stack.append(tuple(to_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3" as name:
                count = int(name[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "APPEND":
                value = stack.pop()
                _of(list, stack[-1]).append(value)
            case "APPENDS":
                values = to_mark()
                _of(list, stack[-1]).extend(values)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _of(dict, stack[-1])[key] = value
            case "SETITEMS":
                values = to_mark()
                _of(dict, stack[-1]).update(zip(values[::2], values[1::2], strict=True))
            case "BINPUT" | "LONG_BINPUT" | "PUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET" | "GET":
                stack.append(memo[argument])
            case "GLOBAL":
                if argument not in KNOWN:
                    raise Refused(argument.replace(" ", "."))
                stack.append(_Global(argument))
            case "BINPERSID":
                stack.append(_storage(stack.pop()))
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                stack.append(_reduced(function, arguments))
            case "BUILD":  # the `_metadata` of a state dict: versions of modules, which nobody needs
                _of(dict, stack.pop())
                _of(dict, stack[-1])
            case "STOP":
                break
            case name:
                raise Refused(f"the opcode {name}")
    (value,) = stack
    return value


def _of(kind: type, value: Any) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"{kind.__name__} expected")
    return value


def _storage(reference: Any) -> _Storage:
    """The storage of a persistent id ("storage", its class, key, device, numbers in it, None)."""
    what, kind, key, _, count, *view = reference
    name = _of(_Global, kind).name.removeprefix("torch ")
    if what != "storage" or name not in STORAGES or view not in ([], [None]) or not isinstance(key, str):
        raise ValueError("another kind of storage")
    if type(count) is not int or count < 0:
        raise ValueError("a storage of no size")
    return _Storage(name, key, count)


def _reduced(function: Any, arguments: Any) -> Any:
    """The value of function(*arguments), for the three functions that are known."""
    name = _of(_Global, function).name
    if name == ORDERED_DICT:
        if arguments:
            raise ValueError("an OrderedDict with arguments")
        return {}
    if name == PARAMETER:
        return _of(_Tensor, arguments[0])
    if name == TENSOR:
        return _tensor(*arguments[:4])
    raise Refused(name.replace(" ", "."))


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> _Tensor:
    """A tensor whose numbers all lie in its storage, and which is not larger than that."""
    numbers = (offset, *_of(tuple, shape), *_of(tuple, strides))
    if len(shape) != len(strides) or len(shape) > MOST_AXES or any(type(n) is not int or n < 0 for n in numbers):
        raise ValueError("a tensor of no shape")
    end = offset + 1 + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True)) if 0 not in shape else 0
    if max(end, math.prod(shape)) > _of(_Storage, storage).size:
        raise ValueError("a tensor outside of its storage")
    return _Tensor(storage, offset, shape, strides)
