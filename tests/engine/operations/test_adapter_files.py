"""inspect, convert and edit_metadata on real files and made ones."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save

from engine.errors import UserError
from engine.formats.container import read_header
from engine.formats.hashes import tensors_sha256
from engine.formats.reading import read_adapter

REAL = Path(__file__).parents[2] / "fixtures" / "cloneofsimo"
DISNEY = str(REAL / "lora_disney.safetensors")


# ---- inspect


def test_a_real_file_is_inspected(operate):
    found = operate("inspect", path=DISNEY)
    assert (found.format, found.family, found.bytes) == ("cloneofsimo", "sd1", 1582501)
    assert {part: (said.layers, said.ranks, said.alphas, said.kinds) for part, said in found.parts.items()} == {
        "unet": (144, [1], [1.0], {"LoRA": 144}),
        "text_encoder": (48, [1], [1.0], {"LoRA": 48}),
    }
    assert found.tokens == {"<s1>": {"text_encoder": [1, 768]}, "<s2>": {"text_encoder": [1, 768]}}
    assert found.metadata == read_header(Path(DISNEY)).metadata
    assert [loading.loads for loading in found.loads] == [False] * 4
    assert found.layers == []
    for part, modules in read_adapter(Path(DISNEY)).parts.items():
        exact = sum(float(layer.delta().square().sum()) for layer in modules.values()) ** 0.5
        assert found.parts[part].norm == pytest.approx(exact, rel=1e-5)


def test_every_kind_is_named(files, operate):
    content = files.plain("to_q", 1) | files.loha("to_k", 3) | files.lokr("to_v", 9) | files.dora("to_out_0", 11)
    part = operate("inspect", path=files.write("a", content)).parts["unet"]
    assert part.kinds == {"LoRA": 1, "LoHa": 1, "LoKr": 1, "LoRA with magnitudes (DoRA)": 1}
    assert part.layers == 4 and part.ranks[:2] == [2, 3] and part.norm is None


def test_norms_and_spectra_are_those_of_the_dense_update(files, operate):
    content = files.plain("to_q", 1) | files.loha("to_k", 3) | files.lokr("to_v", 9) | files.plain("conv", 13)
    found = operate("inspect", path=files.write("a", content), layers=True)
    assert len(found.layers) == 4
    for layer in found.layers:
        name = "conv" if layer.path.endswith("conv1") else layer.path.rpartition(".")[2]
        values = torch.linalg.svdvals(files.dense(content, name).flatten(1))
        assert layer.norm == pytest.approx(float(values.norm()), rel=1e-5)
        assert layer.values[:2] == pytest.approx(values[:2].tolist(), rel=1e-4)
        shares = values.square().cumsum(0) / values.square().sum()
        assert layer.ranks["0.9"] == int((shares < 0.9 - 1e-9).sum()) + 1
        weights = values.square() / values.square().sum()
        assert 1 <= layer.effective_rank <= len(values) and 0 < float(weights[0]) <= 1


def test_a_dora_without_its_base_has_no_norm_and_says_so(files, operate):
    found = operate("inspect", path=files.write("a", files.dora("to_q", 1)), layers=True)
    assert found.layers[0].norm is None
    assert any("name it with --base" in getattr(event, "text", "") for event in operate.events)


# ---- convert


def test_a_real_file_is_converted_with_its_tokens_beside_it(files, operate):
    out = files / "cat.safetensors"
    found = operate("convert", path=DISNEY, out=str(out))
    assert (found.format, found.family, found.parts) == ("kohya", "sd1", {"text_encoder": 48, "unet": 144})
    assert found.tokens == {"<s1>": str(files / "cat-s1.safetensors"), "<s2>": str(files / "cat-s2.safetensors")}
    assert all(loading.loads and loading.note == "LoRA loads" for loading in found.loads)
    source = load_file(DISNEY)
    assert torch.equal(load_file(files / "cat-s1.safetensors")["<s1>"][0], source["<s1>"])
    assert read_header(out).metadata["sshs_model_hash"] == tensors_sha256(out)


def test_nothing_is_overwritten_without_force(files, operate):
    out = files / "cat.safetensors"
    (files / "cat-s1.safetensors").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"cat-s1.safetensors.*--force overwrites it"):
        operate("convert", path=DISNEY, out=str(out))
    assert sorted(path.name for path in files.folder.iterdir()) == ["cat-s1.safetensors"]
    operate("convert", path=DISNEY, out=str(out), force=True)
    with pytest.raises(UserError, match="--force"):
        operate("convert", path=DISNEY, out=str(out))


@pytest.mark.parametrize("to", ["kohya", "peft", "cloneofsimo"])
def test_a_refused_file_leaves_nothing_behind(files, operate, to):
    broken = files / "broken.safetensors"
    broken.write_bytes(Path(DISNEY).read_bytes()[:-100])
    before = broken.read_bytes()
    with pytest.raises(UserError, match="cut short"):
        operate("convert", path=str(broken), out=str(files / "out.safetensors"), to=to)
    assert broken.read_bytes() == before
    assert list(files.folder.iterdir()) == [broken]


def test_a_precision_is_a_choice(files, operate):
    out = files / "a.safetensors"
    operate("convert", path=DISNEY, out=str(out), precision="bf16")
    assert {tensor.dtype for tensor in load_file(out).values()} == {torch.bfloat16}


# ---- metadata


@pytest.fixture
def trained(files) -> Path:
    path = files / "a.safetensors"
    metadata = {
        "ss_seed": "1",
        "ss_output_name": "cät",
        "modelspec.title": "x",
        "sshs_model_hash": "0",
        "sshs_legacy_hash": "0",
    }
    files.write("a", files.plain("to_q", 1) | files.plain("conv", 3), metadata)
    return path


def test_metadata_are_edited_and_nothing_else(trained, operate):
    before = trained.read_bytes()
    begin = 8 + int.from_bytes(before[:8], "little")
    changes = {"set": ["ss_seed=2=3", "note=[/foo] \u2603"], "remove": ["modelspec.title"]}
    found = operate("edit_metadata", path=str(trained), **changes, force=True)
    after = trained.read_bytes()
    assert after[8 + int.from_bytes(after[:8], "little") :] == before[begin:]
    with safe_open(trained, framework="pt") as file:
        assert file.metadata() == found.metadata
    assert found.metadata.keys() == {"ss_seed", "ss_output_name", "note", "sshs_model_hash", "sshs_legacy_hash"}
    assert (found.metadata["ss_seed"], found.metadata["note"]) == ("2=3", "[/foo] \u2603")
    tensors = load_file(trained)
    content = save(tensors, {key: value for key, value in found.metadata.items() if key.startswith("ss_")})
    assert found.metadata["sshs_model_hash"] == tensors_sha256(trained)
    window = content[0x100000:0x110000]
    assert found.metadata["sshs_legacy_hash"] == hashlib.sha256(window).hexdigest()[:8]


def test_another_file_may_get_the_edited_metadata(trained, operate, files):
    before = trained.read_bytes()
    operate("edit_metadata", path=str(trained), out=str(files / "b.safetensors"), set=["a=b"])
    assert trained.read_bytes() == before
    assert read_adapter(files / "b.safetensors").metadata["a"] == "b"


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"set": ["a=b"]}, "--force overwrites it"),
        ({"remove": ["no such"], "force": True}, "no such: expected an entry of the file"),
        ({"set": ["sshs_model_hash=1"], "force": True}, "a hash"),
        ({"set": ["nothing"], "force": True}, "expected name=text"),
        ({"force": True}, "something to set or to remove"),
    ],
)
def test_what_can_not_be_edited_is_refused(trained, operate, request_, words):
    before = trained.read_bytes()
    with pytest.raises(UserError, match=words):
        operate("edit_metadata", path=str(trained), **request_)
    assert trained.read_bytes() == before


def test_the_order_of_tensors_in_a_foreign_file_stays(files, operate):
    header = {key: {"dtype": "F32", "shape": [1], "data_offsets": [at, at + 4]} for at, key in ((4, "a"), (0, "b"))}
    text = json.dumps(header).encode()
    path = files / "odd.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"\0\0\x80\x3f\0\0\0\x40")
    operate("edit_metadata", path=str(path), set=["x=y"], force=True)
    assert {key: float(tensor) for key, tensor in load_file(path).items()} == {"a": 2.0, "b": 1.0}


@pytest.mark.parametrize("word", ["../../x", "my.cat", "..", "clip_l", "/etc/passwd", "[/foo]"])
def test_tokens_of_any_name_get_files_in_the_folder_that_read_back(files, operate, word):
    vectors = files.rand(2, 768, seed=1)
    source = files.write("a", files.plain("to_q", 1) | {f"bundle_emb.{word}.emb_params": vectors})
    (files / "deep").mkdir()
    found = operate("convert", path=source, out=str(files / "deep" / "out.safetensors"))
    (file,) = map(Path, found.tokens.values())
    ((back, parts),) = read_adapter(file).tokens.items()
    assert torch.equal(parts["text_encoder"], vectors) and back in (word, file.stem)
    assert file.parent == files / "deep" and len(list((files / "deep").iterdir())) == 2
    assert any(file.name in notice for notice in found.notices) == (back != word)
