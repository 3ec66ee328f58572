from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from engine.formats.container import TensorInfo
from engine.formats.hashes import adapter_hashes, file_legacy_hash, file_sha256, tensors_sha256

METADATA = {"ss_seed": "42", "ss_output_name": "cät", "modelspec.title": "of no account", "sshs_model_hash": "old"}


def by_hand(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> dict[str, str]:
    """The definition, over the bytes that the safetensors library makes."""
    content = save(tensors, {key: value for key, value in metadata.items() if key.startswith("ss_")})
    begin = 8 + int.from_bytes(content[:8], "little")
    return {
        "sshs_model_hash": hashlib.sha256(content[begin:]).hexdigest(),
        "sshs_legacy_hash": hashlib.sha256(content[1048576 : 1048576 + 65536]).hexdigest()[:8],
    }


def _halves(content: bytes) -> list[bytes]:
    """The bytes in pieces, as they come of several tensors."""
    return [content[: len(content) // 2], content[len(content) // 2 :]]


@pytest.mark.parametrize("size", [1000, 262_000, 270_000, 400_000], ids=["small", "edge", "in window", "beyond window"])
@pytest.mark.parametrize("metadata", [METADATA, {}], ids=["metadata", "none"])
def test_the_hashes_are_those_of_the_library_s_bytes(size: int, metadata: dict[str, str]):
    tensor = torch.randn(size, generator=torch.Generator().manual_seed(size))
    ours = adapter_hashes({"a": TensorInfo("F32", (size,))}, _halves(tensor.numpy().tobytes()), metadata)
    assert ours == by_hand({"a": tensor}, metadata)


def test_a_header_longer_than_a_mebibyte_is_part_of_the_window():
    tensor = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    metadata = {"ss_tag_frequency": "t" * 1_090_000}
    ours = adapter_hashes({"a": TensorInfo("F32", (100_000,))}, _halves(tensor.numpy().tobytes()), metadata)
    assert ours == by_hand({"a": tensor}, metadata)


def test_files_are_hashed_whole_by_window_and_by_tensors(tmp_path: Path):
    content = save({"a": torch.arange(300_000, dtype=torch.float32)}, {"modelspec.title": "x"})
    path = tmp_path / "base.safetensors"
    path.write_bytes(content)
    begin = 8 + int.from_bytes(content[:8], "little")
    assert file_sha256(path) == hashlib.sha256(content).hexdigest()
    assert file_legacy_hash(path) == hashlib.sha256(content[0x100000:0x110000]).hexdigest()[:8]
    assert tensors_sha256(path) == hashlib.sha256(content[begin:]).hexdigest()
