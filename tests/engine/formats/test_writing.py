"""Adapters in the formats of other programs, and back again, bit for bit where that is possible."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from engine.errors import UserError
from engine.formats import names
from engine.formats.adapter import Adapter, Factors
from engine.formats.layers import Dense, DoRA, Layer, LoHa, LoKr, Tucker
from engine.formats.reading import read_adapter
from engine.formats.writing import same, token_files, write_adapter

FILES = Path(__file__).parents[2] / "fixtures" / "cloneofsimo"


def factors(shape: tuple[int, ...], rank: int = 2, alpha: float | None = None, dtype=torch.float16) -> Factors:
    ones = (1, 1) if len(shape) == 4 else ()
    down, up = torch.randn(rank, *shape[1:]), torch.randn(shape[0], rank, *ones)
    return Factors(down.to(dtype), up.to(dtype), float(rank) if alpha is None else alpha)


def adapter(family: str, every: int = 40, alpha: float | None = 1.7, **options) -> Adapter:
    """An adapter of some modules of every part, with different ranks."""
    torch.manual_seed(0)
    parts: dict[str, dict[str, Layer]] = {}
    for part, modules in names.modules(family).items():
        chosen = list(modules.items())[3::every]
        parts[part] = {path: factors(shape, 1 + index % 3, alpha, **options) for index, (path, shape) in
                       enumerate(chosen)}  # fmt: skip
    return Adapter(parts, {"ss_output_name": "cat"}, format="kohya", family=family)


def alike(first: Adapter, second: Adapter) -> None:
    """All layers and tokens of two adapters are the same numbers."""
    assert {part: modules.keys() for part, modules in first.parts.items()} == {
        part: modules.keys() for part, modules in second.parts.items()
    }
    for part, modules in first.parts.items():
        for path, layer in modules.items():
            assert same(layer, second.parts[part][path]), path


@pytest.mark.parametrize("family", names.FAMILIES)
def test_kohya_to_peft_and_back_is_the_same_to_the_bit(tmp_path: Path, family: str):
    made = adapter(family)
    write_adapter(tmp_path / "a.safetensors", made, "kohya")
    first = read_adapter(tmp_path / "a.safetensors")
    assert (first.format, first.family) == ("kohya", family)
    alike(first, made)
    write_adapter(tmp_path / "b.safetensors", first, "peft")
    second = read_adapter(tmp_path / "b.safetensors")
    assert (second.format, second.family) == ("peft", family)
    alike(second, made)
    write_adapter(tmp_path / "c.safetensors", second, "kohya")
    assert load_file(tmp_path / "c.safetensors").keys() == load_file(tmp_path / "a.safetensors").keys()
    alike(read_adapter(tmp_path / "c.safetensors"), made)
    assert read_adapter(tmp_path / "c.safetensors").metadata["ss_output_name"] == "cat"


def test_a_kohya_file_written_again_is_the_same_file(tmp_path: Path):
    write_adapter(tmp_path / "a.safetensors", adapter("sdxl"), "kohya")
    write_adapter(tmp_path / "b.safetensors", read_adapter(tmp_path / "a.safetensors"), "kohya")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_sdxl_goes_by_sgms_names_and_numbered_text_encoders(tmp_path: Path):
    write_adapter(tmp_path / "a.safetensors", adapter("sdxl"))
    starts = {"_".join(key.split("_")[:3]) for key in load_file(tmp_path / "a.safetensors")}
    assert starts <= {"lora_unet_input", "lora_unet_middle", "lora_unet_output", "lora_unet_label", "lora_unet_time",
                      "lora_unet_out", "lora_te1_text", "lora_te2_text"}  # fmt: skip
    assert {"lora_unet_input", "lora_te1_text", "lora_te2_text"} <= starts


def cloneofsimos(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118


def test_a_file_of_cloneofsimos_comes_back_as_it_was(tmp_path: Path):
    source = FILES / "lora_disney.safetensors"
    written = write_adapter(tmp_path / "a.safetensors", read_adapter(source), "cloneofsimo")
    before, after = cloneofsimos(source), cloneofsimos(written.path)
    assert before[0].keys() == after[0].keys()
    assert all(torch.equal(tensor, after[0][key]) for key, tensor in before[0].items())
    ranks = {key: value for key, value in before[1].items() if key.endswith(":rank")}
    assert ranks.items() <= after[1].items()
    assert (after[1]["<s1>"], set(json.loads(after[1]["unet"]))) == (
        "<embed>",
        {"CrossAttention", "Attention", "GEGLU"},
    )
    assert written.tokens == {"<s1>": written.path, "<s2>": written.path}
    assert written.notices == ()


@pytest.mark.parametrize("to", ["kohya", "peft"])
def test_a_file_of_cloneofsimos_survives_the_way_through_other_formats(tmp_path: Path, to):
    original = read_adapter(FILES / "lora_disney.safetensors")
    written = write_adapter(tmp_path / "a.safetensors", original, to)
    between = read_adapter(written.path)
    alike(between, original)
    tokens = {token: read_adapter(file).tokens[token] for token, file in written.tokens.items()}
    again = write_adapter(tmp_path / "b.safetensors", dataclasses.replace(between, tokens=tokens), "cloneofsimo")
    back = read_adapter(again.path)
    alike(back, original)
    for token, parts in original.tokens.items():
        assert torch.equal(back.tokens[token]["text_encoder"], parts["text_encoder"])


@pytest.mark.parametrize("name", ["lora_illust.pt", "lora_kiriko.text_encoder.pt"])
def test_bare_lists_become_named_files(tmp_path: Path, name: str):
    original = read_adapter(FILES / name)
    written = write_adapter(tmp_path / "a.safetensors", original)
    back = read_adapter(written.path)
    assert (back.format, back.family) == ("kohya", "sd2")
    assert back.metadata["ss_base_model_version"] == "sd_v2"
    alike(back, original)


def test_a_scale_goes_into_the_ups_where_there_is_no_alpha(tmp_path: Path):
    exact, rounded = adapter("sd1"), adapter("sd1")
    paths = names.numbered("sd1", "unet")[:3]
    shapes = names.modules("sd1")["unet"]
    for made, alpha in ((exact, 1.0), (rounded, 1.3)):
        made.parts.clear()
        made.parts["unet"] = {path: factors(shapes[path], 2, alpha) for path in paths}
    told = {}
    for name, made in (("exact", exact), ("rounded", rounded)):
        written = write_adapter(tmp_path / f"{name}.safetensors", made, "cloneofsimo")
        told[name] = " / ".join(written.notices)
        back = read_adapter(written.path).parts["unet"]
        assert len(back) == 144
        for path in paths:
            torch.testing.assert_close(back[path].delta(), made.parts["unet"][path].delta(), rtol=2e-3, atol=2e-3)
        assert not back[names.numbered("sd1", "unet")[9]].delta().any()
    assert "141 modules that the adapter leaves alone are written as zeros" in told["exact"]
    assert "scale of 3 layers went into lora_up, exactly" in told["exact"]
    assert "with a relative error of up to" in told["rounded"]


# ---- other kinds


Q, CONV = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q", "down_blocks.0.resnets.0.conv1"
KINDS: dict[str, dict[str, Layer]] = {
    "loha": {Q: LoHa(*(torch.randn(320, 2), torch.randn(2, 320)) * 2, 1.5, (320, 320))},
    "tucker": {CONV: Tucker(torch.randn(2, 320, 1, 1), torch.randn(2, 2, 3, 3), torch.randn(320, 2, 1, 1), 1.5)},
    "lokr": {Q: LoKr(1.0, (320, 320), torch.randn(4, 4), w2_a=torch.randn(80, 2), w2_b=torch.randn(2, 80))},
    "dense": {Q: Dense(torch.randn(320, 320))},
    "dora": {Q: DoRA(factors((320, 320), 2, 1.5), torch.rand(320), 0), CONV: DoRA(factors((320, 320, 3, 3)),
             torch.rand(320, 1, 1, 1), 0)},
    "old dora": {Q: DoRA(factors((320, 320)), torch.rand(1, 320), 1)},
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_kohyas_format_holds_every_kind(tmp_path: Path, kind: str):
    made = Adapter({"unet": KINDS[kind]}, family="sd1")
    written = write_adapter(tmp_path / "a.safetensors", made)
    alike(read_adapter(written.path), made)
    assert written.notices == ()


@pytest.mark.parametrize("to", ["peft", "cloneofsimo"])
@pytest.mark.parametrize("kind", ["loha", "tucker"])
def test_what_has_plain_factors_is_written_as_such_and_said(tmp_path: Path, kind: str, to):
    made = Adapter({"unet": {Q: KINDS["loha"][Q]} if kind == "loha" else KINDS[kind]}, family="sd1")
    if (kind, to) == ("tucker", "cloneofsimo"):
        made = dataclasses.replace(made, parts={"unet": KINDS[kind]})
    written = write_adapter(tmp_path / "a.safetensors", made, to)
    assert "layers became plain factors" in written.notices[0]
    back = read_adapter(written.path).parts["unet"]
    for path, layer in made.parts["unet"].items():
        torch.testing.assert_close(back[path].delta(), layer.delta(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "to", "words"),
    [
        ("lokr", "peft", "LoKr layers, which have no plain factors"),
        ("dense", "peft", "Dense layers, which have no plain factors"),
        ("lokr", "cloneofsimo", "LoKr layers"),
        ("dora", "cloneofsimo", "DoRA layers, which have no plain factors"),
        ("old dora", "peft", "DoRA with norms of inputs"),
    ],
)
def test_what_a_format_has_no_place_for_is_refused_and_nothing_written(tmp_path: Path, kind, to, words):
    with pytest.raises(UserError, match=words):
        write_adapter(tmp_path / "a.safetensors", Adapter({"unet": KINDS[kind]}, family="sd1"), to)
    assert list(tmp_path.iterdir()) == []


def test_dora_goes_to_peft_and_back(tmp_path: Path):
    made = Adapter({"unet": KINDS["dora"]}, family="sd1")
    written = write_adapter(tmp_path / "a.safetensors", made, "peft")
    assert load_file(written.path)[f"unet.{CONV}.lora_magnitude_vector.weight"].shape == (1, 320, 1, 1)
    alike(read_adapter(written.path), made)
    mixed = Adapter(
        {"unet": KINDS["dora"] | {"mid_block.attentions.0.proj_in": factors((1280, 1280, 1, 1))}}, family="sd1"
    )
    with pytest.raises(UserError, match="DoRA and plain layers together"):
        write_adapter(tmp_path / "b.safetensors", mixed, "peft")


@pytest.mark.parametrize(
    ("family", "path", "words"),
    [("sdxl", Q, "for SD1 or SD2"), ("sd1", "down_blocks.0.attentions.0.proj_in", "doesn't number")],
)
def test_what_can_not_be_numbered_is_refused(tmp_path: Path, family, path, words):
    made = Adapter({"unet": {path: factors((320, 320))}}, family=family)
    with pytest.raises(UserError, match=words):
        write_adapter(tmp_path / "a.safetensors", made, "cloneofsimo")
    assert list(tmp_path.iterdir()) == []


def test_precision_is_kept_unless_another_is_asked_for(tmp_path: Path):
    made = adapter("sd1", dtype=torch.bfloat16)
    for precision, dtype in ((None, torch.bfloat16), ("fp32", torch.float32), ("fp16", torch.float16)):
        path = write_adapter(tmp_path / "a.safetensors", made, precision=precision).path
        assert {tensor.dtype for key, tensor in load_file(path).items() if "lora_" in key[9:]} == {dtype}
    made.parts["unet"]["mid_block.attentions.0.proj_in"] = factors((1280, 1280, 1, 1), dtype=torch.float32)
    made.parts["unet"]["mid_block.attentions.0.proj_in"].up[0] = 1e6
    before = path.read_bytes()
    with pytest.raises(UserError, match="finite numbers up to 65504"):
        write_adapter(path, made, precision="fp16")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_source_may_be_overwritten_by_what_it_becomes(tmp_path: Path):
    path = tmp_path / "a.safetensors"
    path.write_bytes((FILES / "lora_disney.safetensors").read_bytes())
    original, expected = read_adapter(path), read_adapter(FILES / "lora_disney.safetensors")
    write_adapter(path, original)
    alike(read_adapter(path), expected)


def test_a_file_that_reads_back_as_something_else_is_not_kept(tmp_path: Path, monkeypatch):
    from engine.formats import writing

    monkeypatch.setattr(writing.names, "kohya_name", lambda *_: "lora_unet_conv_in")
    with pytest.raises(RuntimeError, match="other modules"):
        write_adapter(tmp_path / "a.safetensors", Adapter({"unet": KINDS["loha"]}, family="sd1"))
    assert list(tmp_path.iterdir()) == []


# ---- tokens


def test_tokens_go_into_files_beside_by_names_that_stay_there(tmp_path: Path):
    vectors = {"text_encoder": torch.randn(2, 768)}
    tokens = {name: vectors for name in ("<s1>", "../../etc/x", "s1", "<>", "a/b", "[/foo]")}
    files = token_files(tmp_path / "cat.safetensors", Adapter({"unet": {}}, tokens=tokens))
    assert all(file.parent == tmp_path for file in files.values())
    assert [file.name for file in files.values()] == [
        "cat-s1.safetensors", "cat-_etc_x.safetensors", "cat-s1-2.safetensors", "cat-token.safetensors",
        "cat-a_b.safetensors", "cat-_foo_.safetensors",
    ]  # fmt: skip


def test_an_embedding_alone_is_written_to_the_file_itself(tmp_path: Path):
    original = read_adapter(FILES / "lora_kiriko2.ti.pt")
    written = write_adapter(tmp_path / "krk.safetensors", original)
    assert written.tokens == {"<krk>": tmp_path / "krk.safetensors"}
    content = load_file(tmp_path / "krk.safetensors")
    assert torch.equal(content["<krk>"], original.tokens["<krk>"]["text_encoder"])


def test_an_adapter_that_fails_leaves_no_tokens_behind(tmp_path: Path):
    made = Adapter(
        {"unet": {Q: factors((320, 320), dtype=torch.float32)}}, tokens={"cat": {"text_encoder": torch.ones(1, 768)}}
    )
    made.parts["unet"][Q].up[0] = 1e6
    with pytest.raises(UserError, match="finite numbers"):
        write_adapter(tmp_path / "a.safetensors", made, precision="fp16")
    assert list(tmp_path.iterdir()) == []


def test_a_token_of_sdxl_has_a_key_for_each_encoder(tmp_path: Path):
    parts = {"text_encoder": torch.randn(3, 768), "text_encoder_2": torch.randn(3, 1280)}
    write_adapter(tmp_path / "cat.safetensors", Adapter({}, tokens={"cat": parts}, family="sdxl"))
    content = load_file(tmp_path / "cat.safetensors")
    assert torch.equal(content["clip_l"], parts["text_encoder"])
    assert torch.equal(content["clip_g"], parts["text_encoder_2"])


# ---- who loads it


def verdicts(written) -> dict[str, bool]:
    return {loading.program: loading.loads for loading in written.loads}


PROGRAMS = ("diffusers", "AUTOMATIC1111", "Forge", "ComfyUI")


@pytest.mark.parametrize("family", names.FAMILIES)
def test_a_kohya_file_loads_everywhere(tmp_path: Path, family: str):
    made = adapter(family)
    written = write_adapter(tmp_path / "a.safetensors", made)
    assert verdicts(written) == dict.fromkeys(PROGRAMS, True)
    assert {loading.note for loading in written.loads} == {"LoRA loads"}


def test_attentions_of_a_peft_file_are_passed_over_by_webuis(tmp_path: Path):
    paths = names.numbered("sd1", "unet")
    made = Adapter({"unet": {path: factors(names.modules("sd1")["unet"][path]) for path in paths}}, family="sd1")
    written = write_adapter(tmp_path / "a.safetensors", made, "peft")
    assert verdicts(written) == {"diffusers": True, "AUTOMATIC1111": False, "Forge": False, "ComfyUI": False}
    comfyui = next(loading for loading in written.loads if loading.program == "ComfyUI")
    assert len(comfyui.unmatched) == 2 * 128
    assert "unet.down_blocks.0.attentions.0.transformer_blocks.0.ff.net.0.proj.lora_A.weight" not in comfyui.unmatched
    assert "more than 12 keys" in next(loading for loading in written.loads if loading.program == "Forge").note


def test_other_kinds_load_in_webuis_and_not_in_diffusers(tmp_path: Path):
    for kind in ("loha", "lokr", "dense", "tucker"):
        written = write_adapter(tmp_path / "a.safetensors", Adapter({"unet": KINDS[kind]}, family="sd1"))
        assert verdicts(written) == {"diffusers": False, "AUTOMATIC1111": True, "Forge": True, "ComfyUI": True}
    written = write_adapter(tmp_path / "a.safetensors", Adapter({"unet": KINDS["dora"]}, family="sd1"))
    notes = {loading.program: loading.note for loading in written.loads}
    assert "drops the magnitudes" in notes["diffusers"]
    assert "norms of a DoRA by inputs" in notes["AUTOMATIC1111"]
    assert "may differ a little" in notes["ComfyUI"]


def test_cloneofsimos_files_load_in_none_of_the_four(tmp_path: Path):
    written = write_adapter(tmp_path / "a.safetensors", read_adapter(FILES / "lora_disney.safetensors"), "cloneofsimo")
    assert verdicts(written) == dict.fromkeys(PROGRAMS, False)
