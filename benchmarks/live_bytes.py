"""Bytes of live tensors, counted at every operation: what a program holds, whatever its allocator does.

A storage counts from the operation that first returns it until the last tensor, view or autograd node lets go of it.
Storages made before the count began (a frozen model's weights) don't count. Scratch memory inside one operation is not
seen. Works on any device, for whatever runs in the thread that entered the count and in its backward passes on a CPU.
"""

from __future__ import annotations

import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """`with LiveBytes() as live: …; live.peak`. `live.restart()` forgets the peak so far, not what is alive."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self._alive: dict[int, weakref.ref] = {}

    def restart(self) -> None:
        self.peak = self.now

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        inputs = {
            leaf.untyped_storage()._cdata
            for leaf in tree_leaves((arguments, keywords))
            if isinstance(leaf, torch.Tensor)
        }
        result = function(*arguments, **(keywords or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._count(leaf.untyped_storage(), inputs)
        self.peak = max(self.peak, self.now)
        return result

    def _count(self, storage: torch.UntypedStorage, inputs: set[int]) -> None:
        """Count a storage that is neither known nor one that the operation was given."""
        key = storage._cdata
        if key in self._alive or key in inputs:
            return
        size = storage.nbytes()

        def gone(_: weakref.ref) -> None:
            del self._alive[key]
            self.now -= size

        self._alive[key] = weakref.ref(storage, gone)
        self.now += size
