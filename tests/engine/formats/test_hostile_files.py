"""Files that mean harm, and files that came to harm: a clear refusal each, nothing run, nothing written, no hang."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import resource
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from engine.errors import UserError
from engine.formats import names
from engine.formats.reading import read_adapter

FILES = Path(__file__).parents[2] / "fixtures" / "cloneofsimo"
STEM = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"


class Call:
    """Pickles as a call of something with arguments."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


def zipped(payload: bytes, root: str = "archive") -> bytes:
    """The archive that torch.save would make around a pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{root}/data.pkl", payload)
        archive.writestr(f"{root}/version", "3\n")
    return file.getvalue()


def harmful(target: Path) -> dict[str, bytes]:
    """Payloads that would make a file or run something if they were unpickled."""
    code = f"open({str(target)!r}, 'w')"
    calls = {
        "os.system": Call(os.system, f"touch {target}"),
        "eval": Call(eval, code),
        "exec": Call(exec, code),
        "subprocess": Call(subprocess.check_output, ["touch", str(target)]),
        "open": Call(open, str(target), "w"),
        "getattr": Call(getattr, Call(__import__, "os"), "system"),
        "torch.load": Call(torch.load, str(target)),
        "partial": Call(__import__("functools").partial, os.system, "true"),
    }
    payloads = {name: pickle.dumps(call, 2) for name, call in calls.items()}
    payloads["inside a tensor's place"] = pickle.dumps({"<s1>": calls["os.system"]}, 2)
    payloads["global"] = f"cos\nsystem\n(S'touch {target}'\ntR.".encode()
    payloads["inst"] = f"(S'touch {target}'\nios\nsystem\n.".encode()
    return payloads


HARM = list(harmful(Path("x")))


@pytest.mark.parametrize("name", HARM)
@pytest.mark.parametrize("layout", ["zip", "bare"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_pickle_that_asks_for_more_than_tensors_is_refused_by_name(tmp_path: Path, name, layout, suffix):
    target, path = tmp_path / "harm", tmp_path / f"a{suffix}"
    payload = harmful(target)[name]
    if layout == "bare" and not payload.startswith(b"\x80"):
        payload = b"\x80\x02" + payload
    path.write_bytes(zipped(payload) if layout == "zip" else payload)
    with pytest.raises(UserError) as caught:
        read_adapter(path)
    assert "could run code" in str(caught.value) or "no PyTorch" in str(caught.value) or "damaged" in str(caught.value)
    assert not target.exists()
    assert sorted(tmp_path.iterdir()) == [path]


def header(entries: dict, tail: int = 0) -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + bytes(tail)


TERA = 1 << 40
F32 = {"dtype": "F32"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "an empty file"),
        (b"{", "something else"),
        (struct.pack("<Q", 1 << 60) + b"{}", "something else"),
        (struct.pack("<Q", TERA) + b"{" * 100, "something else"),
        (header({f"{STEM}.lora_down.weight": F32 | {"shape": [TERA, 4], "data_offsets": [0, 16 * TERA]}}), "cut short"),
        (header({f"{STEM}.lora_down.weight": F32 | {"shape": [TERA, TERA], "data_offsets": [0, 4]}}, 4), "bytes for a"),
        (header({f"{STEM}.lora_down.weight": F32 | {"shape": [TERA, 0], "data_offsets": [0, 0]}}), "with numbers in"),
        (header({f"{STEM}.lora_down.weight": F32 | {"shape": [-1, -4], "data_offsets": [0, 16]}}, 16), "in place of"),
        (header({f"{STEM}.alpha": {"dtype": "X", "shape": [], "data_offsets": [0, 4]}}, 4), "in place of"),
        (header(dict.fromkeys("ab", F32 | {"shape": [1], "data_offsets": [0, 4]}), 4), "begins at byte"),
        (header({}), "without tensors"),
        (struct.pack("<Q", 100_000) + b"[" * 100_000, "something else"),
        (struct.pack("<Q", 100_001) + b"{" + b'"a":[' * 20_000, "no JSON"),
        (zipped(b"."), "damaged"),
        (zipped(pickle.dumps([1] * 10, 2)), "a table or list of tensors"),
        (b"PK\x03\x04" + bytes(100), "damaged"),
        (b"\x80\x02" + b"(" * 1_000_000, "damaged"),
        (b"\x80\x02" + b"]" * 10 + b"a" * 1000, "damaged"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_headers_and_archives_that_lie_are_refused_in_words(tmp_path: Path, content: bytes, words: str, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError, match=words):
        read_adapter(path)


def test_a_key_that_comes_twice_is_refused(tmp_path: Path):
    entry = '"<s1>":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    text = f"{{{entry},{entry}}}".encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(4))
    with pytest.raises(UserError, match=r"<s1>.*twice"):
        read_adapter(path)


@pytest.mark.parametrize("name", ["..", "../x", "/etc/passwd", "a\0b", "x" * 5000, "[/foo]", "\x1b[2J"])
def test_names_from_a_file_stay_names(tmp_path: Path, name: str):
    path = tmp_path / "a.safetensors"
    save_file({f"<{name}>": torch.ones(768)}, path)
    (token,) = read_adapter(path).tokens
    assert token == f"<{name}>"
    save_file({name: torch.ones(3), f"lora_unet_{name}.lora_down.weight": torch.ones(3)}, path)
    with pytest.raises(UserError) as caught:
        read_adapter(path)
    assert str(caught.value).replace("\n", "").isprintable() and len(str(caught.value)) < 1500
    assert list(tmp_path.iterdir()) == [path]


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path):
    path = tmp_path / "a.pt"
    archive = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED)
    with archive, archive.open("a/data.pkl", "w", force_zip64=True) as file:
        for _ in range(64):
            file.write(bytes(8 << 20))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError):
        read_adapter(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 18, "in KiB"


def test_layers_that_would_be_huge_are_not_made_to_be_read(tmp_path: Path):
    path = tmp_path / "a.safetensors"
    side = torch.ones(1, 1 << 20)
    save_file({f"{STEM}.lora_down.weight": side, f"{STEM}.lora_up.weight": side.T.clone()}, path)
    assert read_adapter(path).parts["unet"]
    save_file({f"{STEM}.lokr_w1": torch.ones(1 << 10, 1 << 9), f"{STEM}.lokr_w2": torch.ones(1 << 9, 1 << 10)}, path)
    assert read_adapter(path).parts["unet"]


# ---- the fuzz


def seeds(folder: Path) -> list[bytes]:
    """One small file of every make."""
    small = {f"{STEM}.lora_down.weight": torch.randn(2, 320), f"{STEM}.lora_up.weight": torch.randn(320, 2),
             f"{STEM}.alpha": torch.tensor(1.0)}  # fmt: skip
    hada = {f"{STEM}.hada_{name}": torch.randn(shape) for name, shape in
            {"w1_a": (320, 2), "w1_b": (2, 320), "w2_a": (320, 2), "w2_b": (2, 320)}.items()}  # fmt: skip
    lokr = {f"{STEM}.lokr_w1": torch.randn(4, 4), f"{STEM}.lokr_w2_a": torch.randn(80, 2),
            f"{STEM}.lokr_w2_b": torch.randn(2, 80)}  # fmt: skip
    peft = {f"unet.mid_block.attentions.0.proj_in.lora_{side}.weight": tensor for side, tensor in
            zip("AB", small.values(), strict=False)}  # fmt: skip
    path = names.numbered("sd1", "text_encoder")
    clone = {f"text_encoder:{number}:{side}": torch.randn((768, 1) if side == "up" else (1, 768)) for number in
             range(len(path)) for side in ("up", "down")}  # fmt: skip
    contents = [small | {f"{STEM}.dora_scale": torch.ones(320, 1)}, hada, lokr, peft, {"<s1>": torch.randn(768)}]
    made = []
    for content in contents:
        config = json.dumps({"unet.r": 2, "unet.lora_alpha": 4, "unet.alpha_pattern": {"proj_in": 2}})
        save_file(content, folder / "seed", {"ss_v2": "False", "lora_adapter_metadata": config})
        made.append((folder / "seed").read_bytes())
    for content in (list(clone.values())[:8], {"string_to_param": {"*": torch.randn(2, 768)}, "name": "x"}, small):
        for layout in (True, False):
            torch.save(content, folder / "seed", _use_new_zipfile_serialization=layout)
            made.append((folder / "seed").read_bytes())
    return made


INSERTED = (b"9", b"0", b"-1", b"null", b'"', b"{", b"]", b"R", b"0.", bytes(4), b"\xff" * 8)


def mutated(content: bytes, chance: random.Random) -> bytes:
    """The file with a few of the things that happen to files, mostly where its structure is."""
    data = bytearray(content)
    edge = min(len(data), 8 + int.from_bytes(data[:8], "little") % 5000, 6000)
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(max(1, edge if chance.random() < 0.8 else len(data)))
        match chance.randrange(7):
            case 0:
                data[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                data[at : at + chance.randint(1, 20)] = b""
            case 2:
                data[at:at] = chance.choice(INSERTED)
            case 3:
                del data[at + 1 : None if chance.random() < 0.3 else at + 9]
            case 4:
                other = chance.randrange(len(data) or 1)
                data[at : at + 16] = data[other : other + 16]
            case 5:
                digits = [place for place in range(edge) if data[place : place + 1].isdigit()]
                if digits:
                    data[chance.choice(digits)] = ord(chance.choice("0123456789"))
            case 6:
                data[at : at + 4] = struct.pack("<f", chance.choice([float("nan"), float("inf"), 1e38, -0.0]))
    return bytes(data)


def test_two_thousand_mutated_files_are_read_or_refused_and_nothing_else(tmp_path: Path):
    """In one process, so that what one file leaves behind would show in the next."""
    chance = random.Random(20261123)
    originals = seeds(tmp_path)
    path, read = tmp_path / "a.safetensors", 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(2000):
        content = mutated(originals[number % len(originals)], chance)
        path.unlink(missing_ok=True)  # a new file: the former may still be mapped
        path.write_bytes(content)
        try:
            adapter = read_adapter(path)
            read += 1
        except UserError as error:
            assert error.problems, number
            continue
        for modules in adapter.parts.values():
            for layer in modules.values():
                assert layer.rank > 0 and len(layer.shape) in (2, 4), number
    assert 50 < read < 1500, "most should be refused, some should not"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400 << 10, "in KiB"


def test_reading_imports_nothing_that_runs_files(tmp_path: Path):
    code = (
        "import sys, builtins\n"
        "from pathlib import Path\n"
        "from engine.formats.reading import read_adapter\n"
        f"print(len(read_adapter(Path({str(FILES / 'lora_illust.pt')!r})).parts['unet']))\n"
        "print(*[name for name in ('diffusers', 'transformers', 'lycoris') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["128"]


def test_a_pickle_that_names_a_far_index_takes_no_memory(tmp_path: Path):
    path = tmp_path / "a.pt"
    path.write_bytes(zipped(b"\x80\x02]r\xff\xff\xff\x7f."))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError):
        read_adapter(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10, "in KiB"
