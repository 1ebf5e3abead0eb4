"""Arrays in pickles that others wrote, without unpickling.

A pickle is a program, and NumPy's types trust what they are given as their state: one odd byte ends the process. Here
nothing is run: the few operations that describe an array are followed on plain values, and the array is made of its
bytes at the end.
"""

import codecs
import math
import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np

# What a pickled array asks for, by numpy 1 and 2: names of modules without `_core` and `core`.
RECONSTRUCT, FROM_BUFFER = "numpy.multiarray._reconstruct", "numpy.numeric._frombuffer"
ARRAY, DTYPE, ENCODE, BYTES = "numpy.ndarray", "numpy.dtype", "_codecs.encode", "__builtin__.bytes"
ADMITTED = (RECONSTRUCT, FROM_BUFFER, ARRAY, DTYPE, ENCODE, BYTES)

TYPES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")
MOST_AXES = 16

_OPERATIONS = {operation.code: operation for operation in pickletools.opcodes}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_VALUES = (
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
)
_OTHERS = (
    *("STOP", "MARK", "GLOBAL", "STACK_GLOBAL", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "REDUCE", "BUILD"),
    *("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET", "BINGET", "LONG_BINGET", "PROTO", "FRAME"),
)
_MARK = object()


class NoArray(ValueError):
    """A pickle that is not one array of numbers; the message completes `FILE is not one pickled array: MESSAGE.`"""


@dataclass(frozen=True)
class _Asked:
    """A class or function that a pickle asks for."""

    name: str


@dataclass
class _Made:
    """What a call would have given: what was called, with what, and the state that was put into it."""

    by: str
    arguments: tuple
    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class StoredArray(_Made):
    """Stands for an array, and for what makes one, where torch unpickles: it remembers what it is told."""

    def __init__(self, *arguments):
        super().__init__(RECONSTRUCT, arguments)

    @property
    def array(self) -> np.ndarray:
        """The array itself; a NoArray if what was told describes none."""
        return _checked(lambda: _array(self))


class StoredType(_Made):
    """Stands for the type of an array's numbers, likewise."""

    def __init__(self, *arguments):
        super().__init__(DTYPE, arguments)


# What torch has to admit to read arrays that numpy 1 or 2 wrote; no class or function of numpy is among it.
STAND_INS = [
    (StoredArray, "numpy.core.multiarray._reconstruct"),
    (StoredArray, "numpy._core.multiarray._reconstruct"),
    (StoredArray, "numpy.ndarray"),
    (StoredType, "numpy.dtype"),
]


def unpickle_array(content: bytes) -> np.ndarray:
    """The array of numbers in a pickle of any protocol, by numpy 1 or 2, Python 2 or 3; anything else is a NoArray."""
    return _checked(lambda: _array(_follow(BytesIO(content))))


def _checked(work: Callable[[], np.ndarray]) -> np.ndarray:
    try:
        return work()
    except NoArray:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise NoArray("it is damaged") from error


def _follow(file: BytesIO) -> Any:
    """The value that the operations leave."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    while True:
        operation = _OPERATIONS[file.read(1).decode("latin1")]
        if operation.name not in (*_VALUES, *_CONSTANTS, *_OTHERS):
            raise NoArray(f"it has the operation {operation.name}, which no array needs")
        argument = _argument(file, operation)
        match operation.name:
            case "STOP":
                return stack.pop()
            case name if name in _VALUES:
                stack.append(argument)
            case name if name in _CONSTANTS:
                stack.append(_CONSTANTS[name])
            case "MARK":
                stack.append(_MARK)
            case "GLOBAL":
                stack.append(_asked(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                stack[-2:] = [_asked(*stack[-2:])]
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "TUPLE1" | "TUPLE2" | "TUPLE3" as name:
                stack[-int(name[-1]) :] = [tuple(stack[-int(name[-1]) :])]
            case "TUPLE":
                start = max(place for place, value in enumerate(stack) if value is _MARK)
                stack[start:] = [tuple(stack[start + 1 :])]
            case "REDUCE":
                called, arguments = stack[-2:]
                stack[-2:] = [_Made(called.name, arguments)]
            case "BUILD":
                state = stack.pop()
                stack[-1].state = state


def _argument(file: BytesIO, operation: pickletools.OpcodeInfo) -> Any:
    if operation.name == "STRING":  # Python 2 wrote bytes so, and pickletools reads ASCII alone
        line = file.readline().rstrip(b"\n")
        return codecs.escape_decode(line[1:-1])[0].decode("latin1")
    return operation.arg.reader(file) if operation.arg else None


def _asked(module: str, name: str) -> _Asked:
    wanted = re.sub(r"^numpy\._?core\.", "numpy.", f"{module}.{name}")
    if wanted not in ADMITTED:
        raise NoArray(f"it asks for {module[:60]}.{name[:60]}, and only arrays of numbers are admitted")
    return _Asked(wanted)


def _array(made: Any) -> np.ndarray:
    if not isinstance(made, _Made):
        raise NoArray("it holds something else")
    if made.by == FROM_BUFFER:
        data, kind, shape, order = made.arguments
        fortran = order == "F"
    elif made.by == RECONSTRUCT and made.arguments[0] in (_Asked(ARRAY), StoredArray):
        *_, shape, kind, fortran, data = made.state
    else:
        raise NoArray(f"it holds no array, but a {made.by}")
    dtype, content = dtype_of(kind), bytes_of(data)
    if not isinstance(shape, tuple) or len(shape) > MOST_AXES or not all(type(n) is int and n >= 0 for n in shape):
        raise NoArray("its shape is no list of sizes")
    if math.prod(shape) * dtype.itemsize != len(content):
        raise NoArray(f"it has {len(content):,} bytes for {' x '.join(map(str, shape))} numbers of {dtype}")
    stored = np.ndarray(shape, dtype, content, order="F" if fortran else "C")
    return stored.astype(dtype.newbyteorder("="), copy=False)  # as NumPy unpickles


def dtype_of(made: Any) -> np.dtype:
    """The type of numbers that a pickle describes."""
    if not isinstance(made, _Made) or made.by != DTYPE:
        raise NoArray("its numbers are of no type")
    name = made.arguments[0]
    if name not in TYPES:
        raise NoArray("it holds something else than numbers")
    _, order, *within = made.state or (3, "=", None)
    if order not in tuple("<>|=") or any(part is not None for part in within[:3]):
        raise NoArray("its numbers are of no plain type")
    return np.dtype(f"{order}{name}")


def bytes_of(data: Any) -> bytes:
    """Bytes in any of the forms in which pickles hold them."""
    if isinstance(data, _Made) and data.by in (ENCODE, BYTES):  # how protocol 2 writes them, and no bytes
        data = data.arguments[0] if data.arguments else b""
    if isinstance(data, str):  # how Python 2 wrote them
        return data.encode("latin1")
    if isinstance(data, (bytes, bytearray)):
        return bytes(data)
    raise NoArray("it holds something else than numbers")
