"""Files written tensor by tensor: the libraries that they are for read them, and nothing but tensors gets into them."""

from __future__ import annotations

import hashlib
import json
import pickle
import pickletools
import zipfile

import pytest
import torch
from safetensors.torch import load_file

from engine.formats.container import TensorInfo, read_header
from engine.formats.streams import HASH, LazyTensor, write_pickle, write_safetensors
from engine.formats.weights import open_weights, torch_dtypes

TENSORS = {
    "float": torch.randn(3, 4),
    "single": torch.tensor(3.0),
    "empty": torch.zeros(0, 3),
    "half": torch.randn(5).half(),
    "bfloat16": torch.randn(2, 2, 1, 1).bfloat16(),
    "float8": torch.randn(4).to(torch.float8_e4m3fn),
    "unsigned": torch.tensor([1, 65535], dtype=torch.uint16),
    "integer": torch.arange(4),
    "bool": torch.tensor([True, False]),
    "turned": torch.randn(3, 2).t(),
}
NAMES = {dtype: name for name, dtype in torch_dtypes().items()}


def lazy(tensor: torch.Tensor) -> LazyTensor:
    return LazyTensor(TensorInfo(NAMES[tensor.dtype], tuple(tensor.shape)), lambda: tensor)


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def assert_same(found):
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape), name
        assert bits(found[name]) == bits(tensor), name


@pytest.fixture
def content():
    return {name: lazy(tensor) for name, tensor in TENSORS.items()}


@pytest.mark.parametrize("large", [1 << 31, 8], ids=["small entries", "entries beyond 2 GiB"])
@pytest.mark.parametrize("mapped", [True, False])
def test_torch_loads_a_written_pickle_as_weights_only(tmp_path, monkeypatch, content, large, mapped):
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", large)
    sizes = []
    write_pickle(tmp_path / "x.ckpt", {"state_dict": content, "step": 3, "metadata": {"a": "b"}}, sizes.append)
    found = torch.load(tmp_path / "x.ckpt", weights_only=True, mmap=mapped)
    assert_same(found.pop("state_dict"))
    assert found == {"step": 3, "metadata": {"a": "b"}}
    assert_same(dict(open_weights(tmp_path / "x.ckpt").load()))
    assert sum(sizes) == sum(tensor.nbytes for tensor in TENSORS.values())
    assert zipfile.ZipFile(tmp_path / "x.ckpt").testzip() is None


def test_a_written_pickle_names_nothing_but_tensors_and_their_storages(tmp_path, content):
    write_pickle(tmp_path / "x.ckpt", {"state_dict": content})
    text = zipfile.ZipFile(tmp_path / "x.ckpt").read("archive/data.pkl")
    named = {argument.replace(" ", ".") for op, argument, _ in pickletools.genops(text) if op.name == "GLOBAL"}
    assert "STACK_GLOBAL" not in {op.name for op, _, _ in pickletools.genops(text)}
    storages = {name for name in named if name.endswith("Storage")}
    dtypes = {"torch.float8_e4m3fn", "torch.uint16"}
    calls = {"torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3", "collections.OrderedDict"}
    assert named - storages == calls | dtypes


class Odd:
    pass


@pytest.mark.parametrize("odd", [Odd(), Odd, print, torch.randn(2), 1j], ids=["object", "class", "call", "tensor", "j"])
def test_what_is_no_plain_content_is_never_pickled(tmp_path, odd):
    with pytest.raises(TypeError, match="is no plain content"):
        write_pickle(tmp_path / "x.ckpt", {"state_dict": {}, "odd": [odd]})


def test_the_same_content_makes_the_same_archive(tmp_path, content):
    for name in "ab":
        write_pickle(tmp_path / name, content)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_safetensors_library_loads_a_written_file(tmp_path, content):
    sizes = []
    write_safetensors(tmp_path / "x.safetensors", content, {"b": "2", "a": "1"}, sizes.append)
    assert_same(load_file(tmp_path / "x.safetensors"))
    assert read_header(tmp_path / "x.safetensors").metadata == {"a": "1", "b": "2"}
    assert sum(sizes) == sum(tensor.nbytes for tensor in TENSORS.values())


def test_a_hash_in_the_metadata_is_that_of_the_new_bytes(tmp_path, content):
    path = tmp_path / "x.safetensors"
    write_safetensors(path, content, {HASH: "0xold"})
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    assert json.loads(raw[8 : 8 + length])["__metadata__"][HASH] == "0x" + hashlib.sha256(raw[8 + length :]).hexdigest()
    assert_same(load_file(path))


@pytest.mark.parametrize("other", [torch.zeros(3), torch.zeros(2, 2).half()])
@pytest.mark.parametrize("write", [write_safetensors, write_pickle])
def test_a_tensor_that_is_not_what_was_promised_stops_the_writing(tmp_path, other, write):
    promised = {"a": LazyTensor(TensorInfo("F32", (2, 2)), lambda: other)}
    with pytest.raises(ValueError, match="in place of"):
        write(tmp_path / "x", promised, *([{}] if write is write_safetensors else []))


def test_python_itself_refuses_to_unpickle_it_without_the_tensors(tmp_path, content):
    write_pickle(tmp_path / "x.ckpt", content)
    with pytest.raises(pickle.UnpicklingError):
        pickle.loads(zipfile.ZipFile(tmp_path / "x.ckpt").read("archive/data.pkl"))
