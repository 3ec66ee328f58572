"""Reading pickles: what they may hold comes back whole, and what could run code is refused by name and never run."""

from __future__ import annotations

import builtins
import collections
import io
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.errors import UserError
from engine.formats import pickles
from engine.formats.pickles import LEGACY_MAGIC, StoredTensor, read_pickle
from engine.formats.weights import open_weights

LAYOUTS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


class Asks:
    """Pickles as a call of a global."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def save(content, path: Path, zipped: bool = True) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_pickle(path)
    return str(caught.value)


@LAYOUTS
def test_every_kind_of_tensor_comes_back_equal(tmp_path, zipped):
    shared = torch.randn(10, 6)
    tensors = {
        "float": torch.randn(3, 4),
        "half": torch.randn(5).half(),
        "bfloat16": torch.randn(3).bfloat16(),
        "float8": torch.randn(4).to(torch.float8_e4m3fn),
        "double": torch.randn(2).double(),
        "integer": torch.tensor(5),
        "bool": torch.tensor([True, False]),
        "empty": torch.zeros(0, 3),
        "view": shared[2:5, 1:4].t(),
        "neighbour": shared[1:],
        "parameter": torch.nn.Parameter(torch.randn(2)),
    }
    weights = open_weights(save({"state_dict": tensors}, tmp_path / "x.ckpt", zipped))
    loaded = dict(weights.load())
    assert list(loaded) == list(tensors)
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name].float(), tensor.detach().float()), name
        assert weights.tensors[name].shape == tuple(tensor.shape)


@LAYOUTS
def test_plain_containers_and_numbers_come_back_as_they_were(tmp_path, zipped):
    content = {
        "ordered": collections.OrderedDict(a=1),
        "default": collections.defaultdict(list, b=2),
        "set": {1, 2},
        "list": [None, 1.5, -(2**70), "text", b"bytes", (True, 1j)],
        "size": torch.Size([2, 3]),
        "dtype": torch.float16,
        "device": torch.device("cuda", 1),
        "numpy": np.float64(2.5),
    }
    assert read_pickle(save(content, tmp_path / "x.pt", zipped)) == {
        "ordered": {"a": 1},
        "default": {"b": 2},
        "set": {1, 2},
        "list": [None, 1.5, -(2**70), "text", b"bytes", (True, 1j)],
        "size": (2, 3),
        "dtype": "torch.float16",
        "device": "cuda:1",
        "numpy": 2.5,
    }


def test_a_tensor_saved_on_a_gpu_is_read_on_a_machine_without_one(tmp_path):
    path = save({"weight": torch.arange(4.0)}, tmp_path / "x.pt")
    moved = tmp_path / "moved.pt"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(moved, "w") as new:
        for entry in old.namelist():
            # the device is a string of the pickle: its length, then its letters
            content = old.read(entry).replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
            new.writestr(entry, content)
    assert b"cuda:0" in zipfile.ZipFile(moved).read("x/data.pkl")
    assert torch.equal(dict(open_weights(moved).load())["weight"], torch.arange(4.0))


def test_an_archive_that_was_compressed_again_is_read_too(tmp_path):
    path = save({"weight": torch.arange(100.0)}, tmp_path / "x.pt")
    packed = tmp_path / "packed.pt"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.namelist():
            new.writestr(entry, old.read(entry))
    assert torch.equal(dict(open_weights(packed).load())["weight"], torch.arange(100.0))


@LAYOUTS
def test_a_few_bytes_that_claim_to_be_terabytes_are_refused(tmp_path, zipped):
    path = save({"weight": torch.zeros(1).expand(1 << 40)}, tmp_path / "x.pt", zipped)
    assert "a tensor that is larger than its storage" in refusal(path)


def test_a_pickle_that_is_nearly_all_text_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(pickles, "MAX_TEXT", 50_000_000)
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", b"\x80\x02" + b"N0" * 30_000_000 + b"N.")
    assert path.stat().st_size < 1_000_000
    assert "a pickle of more than 50 MB" in refusal(path)


def test_a_compressed_tensor_that_does_not_unpack_is_a_damaged_file(tmp_path):
    path = save({"weight": torch.arange(1000.0)}, tmp_path / "x.pt")
    packed = tmp_path / "packed.pt"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.namelist():
            new.writestr(entry, old.read(entry))
        place = new.getinfo("x/data/0").header_offset + 100
    content = bytearray(packed.read_bytes())
    content[place : place + 50] = bytes(50)
    packed.write_bytes(content)
    weights = open_weights(packed)
    with pytest.raises(UserError, match="a damaged one"):
        dict(weights.load())


def test_a_loaded_tensor_can_be_written_to_without_changing_the_file(tmp_path):
    path = save({"weight": torch.zeros(8)}, tmp_path / "x.pt")
    before = path.read_bytes()
    dict(open_weights(path).load())["weight"].fill_(1)
    assert path.read_bytes() == before


@LAYOUTS
@pytest.mark.parametrize(
    ("function", "argument", "name"),
    [
        (os.system, "touch {}", "os.system"),
        (builtins.eval, "open({!r}, 'w')", "builtins.eval"),
        (builtins.exec, "open({!r}, 'w')", "builtins.exec"),
        (os.mkdir, "{}", "os.mkdir"),
        (os.remove, "{}", "os.remove"),
        (torch.load, "{}", "torch.serialization.load"),
        (getattr, "{}", "builtins.getattr"),
    ],
)
def test_a_pickle_that_asks_for_a_function_is_refused_by_its_name_and_runs_nothing(
    tmp_path, zipped, function, argument, name
):
    payload = tmp_path / "payload"
    nested = {
        "state_dict": {"weight": torch.zeros(2)},
        "callbacks": [{"deep": (1, Asks(function, argument.format(payload)))}],
    }
    said = refusal(save(nested, tmp_path / "evil.ckpt", zipped))
    assert name in said and "could run code" in said and "evil.ckpt" in said
    assert not payload.exists()


def test_an_object_of_a_class_is_refused_by_the_name_of_the_class(tmp_path):
    assert "collections.UserDict" in refusal(save({"hyper_parameters": collections.UserDict()}, tmp_path / "x.ckpt"))


def test_a_bare_pickle_named_as_a_checkpoint_is_refused_before_it_runs(tmp_path):
    payload = tmp_path / "payload"
    path = tmp_path / "x.pt"
    path.write_bytes(pickle.dumps(Asks(os.system, f"touch {payload}"), protocol=4))
    assert "os.system" in refusal(path)
    assert not payload.exists()


def test_the_callback_class_in_published_checkpoints_is_a_label_that_can_not_be_made(tmp_path):
    label = b"cpytorch_lightning.callbacks.model_checkpoint\nModelCheckpoint\n"
    path = tmp_path / "x.ckpt"

    def write(code: bytes) -> Path:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x/data.pkl", b"\x80\x02" + code)
        return path

    (key,) = read_pickle(write(b"}" + label + b"K\x01s."))
    assert repr(key) == "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint"
    assert "asks to call pytorch_lightning" in refusal(write(label + b")R."))


@pytest.mark.parametrize(
    "code",
    [
        b"ccollections\nOrderedDict\n}X\x01\x00\x00\x00aK\x01sb.",
        b"ctorch._utils\n_rebuild_tensor_v2\nN}X\x08\x00\x00\x00__call__ctorch\nSize\ns\x86b.",
    ],
    ids=["attributes", "slots"],
)
def test_a_pickle_can_not_write_to_what_it_is_given(tmp_path, code):
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x02" + code)
    assert "asks to change" in refusal(path)


def test_a_tensor_that_reaches_beyond_its_storage_is_refused(tmp_path):
    path = save({"weight": torch.zeros(4)}, tmp_path / "x.pt")
    beyond = tmp_path / "beyond.pt"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(beyond, "w") as new:
        for entry in old.namelist():
            # shape and stride of the tensor, as one-element tuples: (4,) (1,)
            new.writestr(entry, old.read(entry).replace(b"K\x04\x85", b"K\xff\x85"))
    assert "beyond its storage" in refusal(beyond)


@LAYOUTS
def test_a_file_cut_short_at_any_place_is_refused_in_words(tmp_path, zipped):
    whole = save({"state_dict": {"weight": torch.arange(64.0)}}, tmp_path / "x.ckpt", zipped).read_bytes()
    for length in range(0, len(whole) - 1, 37):
        path = tmp_path / "cut.ckpt"
        path.write_bytes(whole[:length])
        assert "cut.ckpt: expected a whole PyTorch checkpoint" in refusal(path)


def test_other_files_are_refused_in_words(tmp_path):
    path = tmp_path / "x.ckpt"
    for content, said in [
        (b"", "an empty file"),
        (b"\x89PNG....", "no PyTorch checkpoint"),
        (pickle.dumps([1, 2], protocol=2), "torch.save did not write"),
    ]:
        path.write_bytes(content)
        assert said in refusal(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "without a data.pkl" in refusal(path)
    assert "No such file" in refusal(tmp_path / "absent.ckpt")


def test_garbage_behind_a_valid_beginning_never_gets_further_than_a_refusal(tmp_path):
    path = tmp_path / "x.pt"
    random = np.random.default_rng(0)
    for _ in range(300):
        stream = io.BytesIO()
        pickle.dump(LEGACY_MAGIC, stream, protocol=2)
        pickle.dump(1001, stream, protocol=2)
        path.write_bytes(stream.getvalue() + b"\x80\x02" + random.bytes(40))
        refusal(path)


def test_storages_are_places_in_the_file_until_they_are_loaded(tmp_path):
    path = save({"weight": torch.tensor([1.0, 2.0])}, tmp_path / "x.pt")
    stored = read_pickle(path)["weight"]
    assert isinstance(stored, StoredTensor)
    assert struct.unpack_from("<2f", path.read_bytes(), stored.storage.offset) == (1.0, 2.0)


def pickled(path: Path, code: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", b"\x80\x02" + code)
        archive.writestr("x/data/0", bytes(16))
    return path


STORED = b"((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ"
"""A storage of four numbers on the stack, above a mark."""


@pytest.mark.parametrize(
    "state", [b"}X\x06\x00\x00\x00offsetJ\xff\xff\xff\x7fsb", b"N}X\x05\x00\x00\x00countM\xff\xffs\x86b"]
)
def test_a_storage_stays_where_it_was_found(tmp_path, state):
    assert "asks to change a storage" in refusal(pickled(tmp_path / "x.pt", STORED + state + b"."))


NEST = b"K\x01" + b"2\x86" * 100
"""A tuple that holds the one before it twice, a hundred deep: 2¹⁰⁰ members, in 200 bytes."""
LONG = b"X\x40\x42\x0f\x00" + b"a" * 1_000_000 + b"q\x00"
"""A million letters, remembered."""


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (b"}" + NEST + b"Ns.", "a nest of tuples"),
        (b"}(" + NEST + b"Nu.", "a nest of tuples"),
        (b"(" + NEST + b"Nd.", "a nest of tuples"),
        (b"cbuiltins\nset\n(](" + NEST + b"etR.", "a nest of tuples"),
        (b"ccollections\nOrderedDict\n(]]" + NEST + b"aNaatR.", "a nest of tuples"),
        (b"ctorch\ndevice\n(" + NEST + b"tR.", "a device without a name"),
        (NEST + b"Q.", "a tuple in place of a storage"),
        (b"](" + LONG + b"0" + b"cbuiltins\nlist\n(h\x00tR" * 20 + b"e.", "copies far more than it holds"),
        (
            b"](" + LONG + b"0" + b"cbuiltins\nbytearray\nc_codecs\nencode\n(h\x00tR\x85R" * 20 + b"e.",
            "copies far more",
        ),
        (b"}\x8b" + struct.pack("<i", 100_000) + b"\x01" * 100_000 + b"Ns.", "no name or number"),
    ],
    ids=["item", "items", "dict", "set", "ordered", "device", "storage", "lists", "bytes", "number"],
)
def test_a_small_pickle_can_not_ask_for_endless_work(tmp_path, code, said):
    assert said in refusal(pickled(tmp_path / "x.pt", code))


def test_keys_may_be_flat_tuples(tmp_path):
    content = {("a", 1): {2, ("b", None)}, 3: frozenset({1.5}), None: {}}
    assert read_pickle(save(content, tmp_path / "x.pt")) == content
