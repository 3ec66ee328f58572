"""An adapter file is known by its header: what it is of, and what else is in it."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from engine.errors import UserError
from engine.formats.outline import MOST_ALPHAS, glance, outline

REAL = Path(__file__).parents[4] / "shared" / "data" / "cloneofsimo"


@pytest.fixture
def file(tmp_path):
    """Write a safetensors file of tensors: name → (dtype, shape, bytes or None for zeros)."""

    def file(tensors, metadata=None, name="a"):
        sizes = {"F16": 2, "BF16": 2, "F32": 4, "F64": 8, "I64": 8}
        header, data = {"__metadata__": metadata} if metadata else {}, b""
        for key, (dtype, shape, *content) in tensors.items():
            size = sizes[dtype]
            for side in shape:
                size *= side
            header[key] = {"dtype": dtype, "shape": list(shape), "data_offsets": [len(data), len(data) + size]}
            data += content[0] if content else bytes(size)
        text = json.dumps(header).encode()
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(struct.pack("<Q", len(text)) + text + data)
        return path

    return file


def lora(stem, rank, inputs=320, outputs=320, alpha=None, naming="kohya", kernel=()):
    names = {"kohya": ("lora_down", "lora_up"), "peft": ("lora_A", "lora_B")}[naming]
    tensors = {
        f"{stem}.{names[0]}.weight": ("F16", (rank, inputs, *kernel)),
        f"{stem}.{names[1]}.weight": ("F16", (outputs, rank, *(1 for _ in kernel))),
    }
    if alpha is not None:
        tensors[f"{stem}.alpha"] = ("F16", (), struct.pack("<e", alpha))
    return tensors


CROSS = "transformer_blocks_0_attn2_to_k"


def test_a_kohya_file_is_known_with_its_parts_ranks_and_alphas(file):
    said = outline(
        file(
            lora(f"lora_unet_down_blocks_0_attentions_0_{CROSS}", 8, 768, alpha=4)
            | lora("lora_unet_down_blocks_0_resnets_0_conv1", 4, alpha=1, kernel=(3, 3))
            | lora("lora_te_text_model_encoder_layers_0_mlp_fc1", 16, 768, alpha=16)
        )
    )
    assert (said.format, said.family, said.problem) == ("kohya", "sd1", "")
    assert (said.ranks, said.alphas) == ([4, 8, 16], [1.0, 4.0, 16.0])
    assert said.modules == {"unet": 2, "text_encoder": 1}
    assert said.tensors == 9


def test_an_alpha_that_is_not_there_is_the_rank(file):
    assert outline(file(lora("lora_unet_a", 8) | lora("lora_unet_b", 4))).alphas == [4.0, 8.0]


@pytest.mark.parametrize(
    ("dtype", "data", "alphas"),
    [
        ("F16", struct.pack("<e", 0.5), [0.5]),
        ("BF16", struct.pack("<f", 3.0)[2:], [3.0]),
        ("F32", struct.pack("<f", 1e-3), [pytest.approx(1e-3)]),
        ("F64", struct.pack("<d", 2.5), [2.5]),
        ("I64", struct.pack("<q", 7), [7.0]),
        ("F32", struct.pack("<f", float("nan")), [8.0]),
        ("F32", struct.pack("<f", float("inf")), [8.0]),
    ],
)
def test_an_alpha_is_read_in_any_number_format_and_is_never_nan(file, dtype, data, alphas):
    path = file(lora("lora_unet_a", 8) | {"lora_unet_a.alpha": (dtype, (), data)})
    assert outline(path).alphas == alphas


def test_an_alpha_of_many_numbers_is_none(file):
    assert outline(file(lora("lora_unet_a", 8) | {"lora_unet_a.alpha": ("F32", (1000,))})).alphas == [8.0]


def test_no_more_than_a_few_alphas_are_read(file, monkeypatch):
    tensors = {}
    for number in range(1, 200):
        tensors |= lora(f"lora_unet_{number}", number, 8, 8, alpha=number)
    path, reads = file(tensors), []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda *given: (reads.append(given), pread(*given))[1])
    assert len(outline(path).alphas) == MOST_ALPHAS
    assert len(reads) <= MOST_ALPHAS + 2


UNET = "lora_unet_down_blocks_1_attentions_0_transformer_blocks"


@pytest.mark.parametrize(
    ("tensors", "family"),
    [
        (lora(f"lora_unet_x_{CROSS}", 4, 768), "sd1"),
        (lora(f"lora_unet_x_{CROSS}", 4, 1024), "sd2"),
        (lora(f"lora_unet_x_{CROSS}", 4, 2048), "sdxl"),
        (lora(f"{UNET}_0_attn1_to_q", 4), ""),
        (lora(f"{UNET}_1_attn1_to_q", 4), "sdxl"),
        (lora("lora_unet_double_blocks_0_img_attn_proj", 4) | lora("lora_te1_text_model_x", 4, 768), ""),
        (lora("lora_te1_text_model_x", 4, 768) | lora("lora_te2_text_model_x", 4, 1280), "sdxl"),
        (lora("lora_te1_text_model_x", 4, 768), ""),
        (lora("lora_te_text_model_x", 4, 768), "sd1"),
        (lora("lora_te_text_model_x", 4, 1024), "sd2"),
        (lora("unet.up_blocks.1.transformer_blocks.0.attn2.to_k", 4, 2048, naming="peft"), "sdxl"),
        (lora("transformer.single_transformer_blocks.0.attn.to_k", 4, naming="peft"), ""),
    ],
)
def test_the_family_shows_in_names_and_shapes(file, tensors, family):
    assert outline(file(tensors)).family == family
    assert glance(file(tensors))[0] == family


@pytest.mark.parametrize(
    ("metadata", "family"),
    [
        ({"ss_base_model_version": "sdxl_base_v1-0"}, "sdxl"),
        ({"ss_base_model_version": "sd_v2_v"}, "sd2"),
        ({"ss_base_model_version": "sd_1.5"}, "sd1"),
        ({"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}, "sdxl"),
        ({"modelspec.architecture": "stable-diffusion-v1/lora"}, "sd1"),
        ({"modelspec.architecture": "flux-1-dev/lora"}, ""),
        ({"ss_v2": "True"}, "sd2"),
        ({"ss_v2": "False"}, "sd1"),
    ],
)
def test_metadata_know_the_family_better(file, metadata, family):
    path = file(lora(f"lora_unet_x_{CROSS}", 4, 768), metadata)
    assert outline(path).family == glance(path)[0] == family


def test_a_peft_file_is_known(file):
    tensors = lora("unet.mid_block.attn2.to_k", 8, 1024, naming="peft")
    tensors |= lora("text_encoder.text_model.encoder.layers.0.mlp.fc1", 4, naming="peft")
    said = outline(
        file(tensors, {"lora_adapter_metadata": '{"unet.lora_alpha": 16, "unet.r": 8, "text_encoder.lora_alpha": 4.5}'})
    )
    assert (said.format, said.family, said.ranks, said.alphas) == ("peft", "sd2", [4, 8], [4.5, 16.0])
    assert said.modules == {"unet": 1, "text_encoder": 1}
    own = lora("base_model.model.mid_block.attn2.to_k", 8, 768, naming="peft")
    own |= lora("base_model.model.text_model.encoder.layers.0.self_attn.q_proj", 8, naming="peft")
    said = outline(file(own))
    assert (said.format, said.alphas, said.modules) == ("peft", [], {"unet": 1, "text_encoder": 1})


@pytest.mark.skipif(not REAL.is_dir(), reason="the real adapter files are not here")
def test_a_real_file_of_cloneofsimos_is_known():
    said = outline(REAL / "lora_disney.safetensors")
    assert (said.format, said.family, said.ranks, said.alphas) == ("cloneofsimo", "sd1", [1], [1.0])
    assert (said.modules, said.trigger) == ({"unet": 144, "text_encoder": 48}, "<s1>, <s2>")
    for path in REAL.glob("*.pt"):
        with pytest.raises(UserError, match="a zip archive"):
            outline(path)


@pytest.mark.parametrize(
    ("tensors", "ranks"),
    [
        ({"hada_w1_a": (320, 6), "hada_w1_b": (6, 768), "hada_w2_a": (320, 6), "hada_w2_b": (6, 768)}, [6]),
        ({"lokr_w1": (4, 8), "lokr_w2_a": (80, 6), "lokr_w2_b": (6, 96)}, [6]),
        ({"lokr_w1_a": (4, 6), "lokr_w1_b": (6, 8), "lokr_w2": (80, 96)}, [6]),
        ({"lokr_w1": (4, 8), "lokr_w2": (80, 96)}, []),
        ({"lora_down.weight": (6, 768), "lora_up.weight": (320, 6), "dora_scale": (320, 1)}, [6]),
        ({"lora_down.weight": (6, 768, 1, 1), "lora_mid.weight": (6, 6, 3, 3), "lora_up.weight": (320, 6, 1, 1)}, [6]),
    ],
)
def test_other_kinds_than_lora_are_of_kohyas_format(file, tensors, ranks):
    stem = f"lora_unet_x_{CROSS}"
    said = outline(file({f"{stem}.{name}": ("F16", shape) for name, shape in tensors.items()}))
    assert (said.format, said.family, said.ranks, said.modules) == ("kohya", "sd1", ranks, {"unet": 1})


@pytest.mark.parametrize(
    ("stem", "names", "format"),
    [
        ("unet.x.attn2.processor.to_k_lora", ("down", "up"), "diffusers"),
        ("unet.x.attn2.to_k.lora", ("down", "up"), "diffusers"),
        ("diffusion_model.x.attn2.to_k", ("lora_A", "lora_B"), "comfyui"),
        ("diffusion_model.x.attn2.to_k", ("lora_down", "lora_up"), "comfyui"),
    ],
)
def test_older_and_foreign_spellings_are_known(file, stem, names, format):
    shapes = ((4, 1024), (320, 4))
    said = outline(file({f"{stem}.{name}.weight": ("F16", shape) for name, shape in zip(names, shapes, strict=True)}))
    assert (said.format, said.ranks) == (format, [4])


def test_a_bundled_token_is_a_trigger(file):
    said = outline(file(lora("lora_unet_a", 8) | {"bundle_emb.cat.string_to_param.*": ("F16", (8, 768))}))
    assert (said.format, said.trigger) == ("kohya", "cat")


@pytest.mark.parametrize(
    ("tensors", "family", "trigger"),
    [
        ({"emb_params": ("F32", (8, 768))}, "sd1", "my-cat"),
        ({"emb_params": ("F32", (1, 1024))}, "sd2", "my-cat"),
        ({"clip_l": ("F32", (2, 768)), "clip_g": ("F32", (2, 1280))}, "sdxl", "my-cat"),
        ({"<s1>": ("F32", (768,)), "<s2>": ("F32", (768,))}, "sd1", "<s1>, <s2>"),
        ({"<cat-toy>": ("F32", (1024,))}, "sd2", "<cat-toy>"),
        ({"cat-toy": ("F32", (4, 768))}, "sd1", "cat-toy"),
    ],
)
def test_learned_tokens_are_known(file, tensors, family, trigger):
    said = outline(file(tensors, name="my-cat"))
    assert (said.format, said.family, said.trigger, said.modules) == ("embedding", family, trigger, {})


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"lora_unet_a.oft_blocks": ("F16", (8, 8)), "lora_unet_a.alpha": ("F16", ())}, "blocks of an OFT (1 key)"),
        (lora("lora_unet_a", 8) | {"lora_unet_a.w_norm": ("F16", (8,))}, "trained norms"),
        (lora("unet.a", 8, naming="peft") | {"unet.a.bias": ("F16", (8,))}, "keys of no kind known here"),
        ({"model.diffusion_model.input_blocks.0.0.weight": ("F16", (8, 4, 3, 3))}, "weights of a whole model"),
        ({"whatever": ("F16", (3, 3, 3)), "else": ("F16", ())}, "keys of no kind known here"),
        ({"lora_unet_a.lora_down.weight": ("F16", ())}, "it holds no adapter"),
        ({}, "it holds no adapter"),
    ],
)
def test_what_is_not_understood_is_said_and_is_no_format(file, tensors, words):
    said = outline(file(tensors))
    assert said.format == ""
    assert said.problem.startswith("not understood: ")
    assert words in said.problem


@pytest.mark.parametrize(
    ("metadata", "trigger"),
    [
        ({}, ""),
        ({"modelspec.trigger_phrase": " ohwx cat "}, "ohwx cat"),
        ({"ss_tag_frequency": '{"10_ohwx cat": {"an ohwx cat": 1, "asleep": 1}}'}, "ohwx cat"),
        (
            {
                "ss_tag_frequency": '{"5_x": {"1girl": 18, "mychar": 20, "smile": 3, "solo": 20}}',
                "ss_dataset_dirs": '{"5_x": {"n_repeats": 5, "img_count": 20}}',
            },
            "mychar, solo",
        ),
        ({"ss_dataset_dirs": '{"5_sks dog": {"n_repeats": 5, "img_count": 4}, "img": {}}'}, "sks dog"),
        ({"ss_tag_frequency": "[1, 2]", "ss_dataset_dirs": "{"}, ""),
        ({"modelspec.trigger_phrase": "x" * 1000}, "x" * 199 + "…"),
        ({"ss_tag_frequency": "[" * 100_000}, ""),
    ],
)
def test_the_words_that_call_it_up_are_in_the_metadata(file, metadata, trigger):
    path = file(lora("lora_unet_a", 8), metadata)
    assert outline(path).trigger == glance(path)[1] == trigger


def test_what_is_not_whole_is_refused(file, tmp_path):
    path = file(lora("lora_unet_a", 8, alpha=4))
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(UserError, match="cut short"):
        outline(path)
    path.write_bytes(whole + b"x")
    with pytest.raises(UserError, match="behind the last tensor"):
        outline(path)
    path.write_bytes(b"")
    with pytest.raises(UserError, match="an empty file"):
        glance(path)
    with pytest.raises(OSError):
        outline(tmp_path / "missing.safetensors")


def test_a_header_of_odd_entries_does_no_harm(tmp_path):
    path = tmp_path / "a.safetensors"
    odd = [
        "null",
        "3",
        "[]",
        '{"dtype":"F16"}',
        '{"dtype":"F16","shape":[-8,8],"data_offsets":[0,0]}',
        '{"dtype":"F16","shape":[0,8],"data_offsets":[0,0]}',
        '{"dtype":"F16","shape":"8","data_offsets":[0,0]}',
        '{"dtype":"F16","shape":[1e99],"data_offsets":[0,1e99]}',
        '{"dtype":"X","shape":[1],"data_offsets":[0,0]}',
    ]
    for entry in odd:
        text = f'{{"lora_unet_a.lora_down.weight":{entry},"lora_unet_a.alpha":{entry}}}'.encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text)
        try:
            assert outline(path).format in ("", "kohya")
        except UserError as error:
            assert "expected" in str(error)


def test_metadata_that_look_like_a_tensor_are_metadata(file):
    said = outline(file(lora("lora_unet_a", 8, alpha=4), {"shape": "round", "data_offsets": "none"}))
    assert (said.format, said.alphas, said.metadata["shape"]) == ("kohya", [4.0], "round")


def test_nothing_heavy_is_imported(file):
    path = file(lora("lora_unet_a", 8, alpha=4))
    code = f"""
import sys
from pathlib import Path
from engine.formats.outline import outline
print(outline(Path({str(path)!r})).format)
print(*(name for name in ("torch", "numpy", "safetensors") if name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["kohya"]
