"""The machine under `pickles`: Python's own unpickler, held to work in proportion to what the file holds.

A pickle can name what it made before as often as it likes. A few bytes then ask for a copy of millions of elements, or
for the hash of a tuple that holds the one before it twice, sixty times over. So whatever copies is counted, keys are
names, numbers or flat tuples of them, and nothing made here can be changed but by a `__setstate__` of its own. Whoever
derives from `Bounded` must pass each function that the pickle may call through `charged`.

It is the unpickler that is written in Python: the other makes room for whatever index a pickle names, 40 GB for four
bytes.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable
from types import NoneType
from typing import Any, BinaryIO, ClassVar

MAX_COPIED = 10_000_000
"""Elements, characters and bytes that calls in one pickle may copy: containers of a checkpoint have some thousands."""
MAX_KEY_BITS = 1 << 12

_NAMES_AND_NUMBERS = (str, bytes, float, complex, bool, NoneType)


class Refused(Exception):
    """The pickle asks for something that is neither a tensor nor a plain container."""


class Damaged(Exception):
    """The file is no checkpoint, or not a whole one."""


class Bounded(pickle._Unpickler):
    """Unpickles with bounded work. Opcodes that `torch.save` has no use for are unknown here."""

    dispatch: ClassVar[dict[int, Callable]] = dict(pickle._Unpickler.dispatch)
    for _opcode in (
        pickle.BYTEARRAY8,
        pickle.NEXT_BUFFER,
        pickle.READONLY_BUFFER,
        pickle.EXT1,
        pickle.EXT2,
        pickle.EXT4,
    ):
        del dispatch[_opcode[0]]

    def __init__(self, file: BinaryIO):
        super().__init__(_WholeLines(file), encoding="latin1")
        self._copied = 0

    def charged(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with the sizes of its arguments counted. It raises Damaged when all is spent."""

        def call(*arguments: Any) -> Any:
            self._copied += len(arguments) + sum(len(one) for one in arguments if hasattr(type(one), "__len__"))
            if self._copied > MAX_COPIED:
                raise Damaged("a pickle that copies far more than it holds")
            return function(*arguments)

        return call

    def load_build(self) -> None:
        made = self.stack[-2]
        if not hasattr(type(made), "__setstate__"):
            raise Refused(f"asks to change a {type(made).__name__.strip('_').lower()}")
        super().load_build()

    dispatch[pickle.BUILD[0]] = load_build

    def load_setitem(self) -> None:
        check_keys(self.stack[-2:-1])
        super().load_setitem()

    dispatch[pickle.SETITEM[0]] = load_setitem

    def load_setitems(self) -> None:
        check_keys(self.stack[::2])
        super().load_setitems()

    dispatch[pickle.SETITEMS[0]] = load_setitems

    def load_dict(self) -> None:
        check_keys(self.stack[::2])
        super().load_dict()

    dispatch[pickle.DICT[0]] = load_dict

    def load_additems(self) -> None:
        check_keys(self.stack)
        super().load_additems()

    dispatch[pickle.ADDITEMS[0]] = load_additems

    def load_frozenset(self) -> None:
        check_keys(self.stack)
        super().load_frozenset()

    dispatch[pickle.FROZENSET[0]] = load_frozenset


def check_keys(keys: Iterable[Any]) -> None:
    """Raise Damaged unless the hash of each is soon known."""
    for key in keys:
        if type(key) is tuple:
            if not all(_soon_hashed(member) for member in key):
                raise Damaged("a key that is a nest of tuples")
        elif not _soon_hashed(key):
            raise Damaged("a key that is no name or number")


def _soon_hashed(key: Any) -> bool:
    if type(key) is int:
        return key.bit_length() <= MAX_KEY_BITS
    return type(key) in _NAMES_AND_NUMBERS or type(key).__hash__ is object.__hash__


class _WholeLines:
    """A file whose last line, cut short, is an end of file and no shorter name."""

    def __init__(self, file: BinaryIO):
        self.read, self.readinto, self._readline = file.read, file.readinto, file.readline

    def readline(self) -> bytes:
        line = self._readline()
        if not line.endswith(b"\n"):
            raise EOFError("Ran out of input")
        return line
