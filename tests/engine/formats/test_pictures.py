from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from engine.formats.pictures import PictureFacts, UsedAdapter, parameters, read_parameters, write_png

FACTS = PictureFacts(
    prompt="a photo of ohwx cat, on grass",
    negative="blurry, text",
    steps=25,
    sampler="DDIM",
    guidance_scale=7.5,
    seed=42,
    width=512,
    height=768,
    model="sd15",
    model_sha256="6ce0161689b3853acaa03779ec93eafe",
    adapters=(UsedAdapter("my-cat", 0.8, "ab" * 32), UsedAdapter("style", -1.0, "cd" * 32)),
    program="loratui 0.1.0",
)


def test_the_text_is_what_web_uis_write():
    assert parameters(FACTS) == (
        "a photo of ohwx cat, on grass <lora:my-cat:0.8> <lora:style:-1>\n"
        "Negative prompt: blurry, text\n"
        "Steps: 25, Sampler: DDIM, CFG scale: 7.5, Seed: 42, Size: 512x768, Model hash: 6ce0161689, Model: sd15, "
        'Lora hashes: "my-cat: abababababab, style: cdcdcdcdcdcd", Version: loratui 0.1.0'
    )


def test_what_is_not_there_is_left_out():
    plain = replace(FACTS, negative="", model_sha256="", adapters=(), clip_skip=2)
    assert parameters(plain) == (
        "a photo of ohwx cat, on grass\n"
        "Steps: 25, Sampler: DDIM, CFG scale: 7.5, Seed: 42, Size: 512x768, Model: sd15, Clip skip: 2, "
        "Version: loratui 0.1.0"
    )


def test_an_adapter_that_the_prompt_names_is_not_named_twice():
    named = replace(FACTS, prompt="<lora:my-cat:0.8> a cat", adapters=FACTS.adapters[:1])
    assert parameters(named).startswith("<lora:my-cat:0.8> a cat\n")


def test_marks_that_would_end_an_adapters_name_are_dropped():
    odd = replace(FACTS, adapters=(UsedAdapter("a:b,<c>", 1.0, "ef" * 32),))
    found = read_parameters(parameters(odd))
    assert found["Prompt"].endswith("<lora:abc:1>")
    assert found["Lora hashes"] == "abc: efefefefefef"


prompts = (
    st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1)
    .map(str.strip)
    .filter(lambda text: text and not text.startswith("Negative prompt:"))
)


@given(st.lists(prompts, min_size=1).map("\n".join), st.lists(prompts).map("\n".join), st.text(min_size=1))
@example("a cat", "", " spaced ")
@example("a cat", "", 'quoted "twice"')
def test_what_was_written_is_read_again(prompt: str, negative: str, model: str):
    found = read_parameters(parameters(replace(FACTS, prompt=prompt, negative=negative, model=model, adapters=())))
    assert (found["Prompt"], found["Negative prompt"], found["Model"]) == (prompt, negative, model)
    assert (found["Steps"], found["CFG scale"], found["Size"]) == ("25", "7.5", "512x768")


def test_a_text_without_parameters_is_all_prompt():
    assert read_parameters("a cat: red, blue\nat night") == {
        "Prompt": "a cat: red, blue\nat night",
        "Negative prompt": "",
    }


def test_the_text_of_a_web_ui_is_read():
    text = (
        "masterpiece, cat\nNegative prompt: ugly,\nbad\n"
        'Steps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 1, Hires prompt: "a, \\"b\\": c", X/Y: 1'
    )
    found = read_parameters(text)
    assert found["Negative prompt"] == "ugly,\nbad"
    assert found["Sampler"] == "DPM++ 2M Karras"
    assert found["Hires prompt"] == 'a, "b": c'
    assert found["X/Y"] == "1"


@pytest.mark.parametrize(
    ("prompt", "chunk"), [("a cat", b"tEXt"), ("un café", b"tEXt"), ("猫, 夜 🌙", b"iTXt"), ("a\udce9b", b"tEXt")]
)
def test_a_png_keeps_prompt_and_request_in_every_script(tmp_path: Path, prompt: str, chunk: bytes):
    path = tmp_path / "cat.png"
    text = parameters(replace(FACTS, prompt=prompt))
    write_png(path, Image.new("RGB", (4, 4), "teal"), text, {"prompt": prompt, "seed": 42})
    assert chunk + b"parameters" in path.read_bytes()
    with Image.open(path) as image:
        assert image.getpixel((0, 0)) == (0, 128, 128)
        assert image.text["parameters"] == text.replace("\udce9", "?")
        assert json.loads(image.text["loratui"]) == {"prompt": prompt, "seed": 42}
    assert [file.name for file in tmp_path.iterdir()] == ["cat.png"]


def test_a_picture_that_cannot_be_written_leaves_nothing(tmp_path: Path):
    with pytest.raises(ValueError):
        write_png(tmp_path / "cat.png", Image.new("RGB", (4, 4)), "a cat", {"weight": float("nan")})
    assert list(tmp_path.iterdir()) == []
