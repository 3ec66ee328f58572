from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from engine.errors import UserError
from engine.formats import kohya
from engine.formats.adapter import Adapter, Factors
from engine.formats.container import read_header
from engine.formats.hashes import tensors_sha256
from engine.formats.reading import read_adapter

LINEAR = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
CONV, POINT = "down_blocks.0.resnets.0.conv1", "down_blocks.0.attentions.0.proj_in"
TEXT = "encoder.layers.0.self_attn.q_proj"
SHAPES = {
    ("unet", LINEAR): (6, 8),
    ("unet", CONV): (6, 8, 3, 3),
    ("unet", POINT): (6, 8, 1, 1),
    ("text_encoder", TEXT): (8, 8),
}
METADATA = {"ss_output_name": "cat", "modelspec.sai_model_spec": "1.0.1"}


def name(part: str, path: str) -> str:
    return {"unet": "lora_unet_", "text_encoder": "lora_te_text_model_"}[part] + path.replace(".", "_")


NAMES = {name(*target): target for target in SHAPES}
Q, C, P, T = NAMES


def factors(shape: tuple[int, ...], rank: int = 2, alpha: float = 3.0) -> Factors:
    ones = (1, 1) if len(shape) == 4 else ()
    return Factors(torch.randn(rank, *shape[1:]), torch.randn(shape[0], rank, *ones), alpha)


@pytest.fixture
def adapter() -> Adapter:
    torch.manual_seed(0)
    parts: dict[str, dict[str, Factors]] = {}
    for rank, ((part, path), shape) in enumerate(SHAPES.items(), start=1):
        parts.setdefault(part, {})[path] = factors(shape, rank)
    return Adapter(parts, dict(METADATA))


def test_delta_is_alpha_over_rank_times_up_times_down():
    down, up = torch.randn(2, 3, 3, 3), torch.randn(4, 2, 1, 1)
    expected = torch.zeros(4, 3, 3, 3, dtype=torch.float64)
    for channel in range(2):
        expected += 1.5 * torch.einsum("o,ihw->oihw", up[:, channel, 0, 0].double(), down[channel].double())
    torch.testing.assert_close(Factors(down, up, 3.0).delta(), expected)


def test_factors_that_do_not_multiply_are_no_factors():
    with pytest.raises(ValueError, match="don't multiply"):
        Factors(torch.zeros(2, 3), torch.zeros(3, 4), 1.0)


@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp32"])
def test_what_was_written_is_read_bit_for_bit(tmp_path: Path, adapter: Adapter, precision: str):
    kohya.write(tmp_path / "a.safetensors", adapter, name, precision)
    once = read_adapter(tmp_path / "a.safetensors")
    dtype = kohya.PRECISIONS[precision]
    for part, modules in adapter.parts.items():
        for path, original in modules.items():
            found = once.parts[part][path]
            assert torch.equal(found.down, original.down.to(dtype))
            assert torch.equal(found.up, original.up.to(dtype))
            assert (found.alpha, found.rank) == (original.alpha, original.rank)
    kohya.write(tmp_path / "b.safetensors", once, name, precision)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_the_file_does_not_depend_on_the_order_of_modules(tmp_path: Path, adapter: Adapter):
    backward = {part: dict(reversed(modules.items())) for part, modules in reversed(adapter.parts.items())}
    kohya.write(tmp_path / "a.safetensors", adapter, name, "fp16")
    kohya.write(tmp_path / "b.safetensors", Adapter(backward, adapter.metadata), name, "fp16")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_alpha_is_a_scalar_of_the_files_format_where_that_is_exact(tmp_path: Path):
    parts = {"unet": {LINEAR: factors((6, 8), alpha=16.0), CONV: factors((6, 8, 3, 3), alpha=1.1)}}
    kohya.write(tmp_path / "a.safetensors", Adapter(parts), name, "bf16")
    stored = load_file(tmp_path / "a.safetensors")
    assert (stored[f"{Q}.alpha"].dtype, stored[f"{Q}.alpha"].shape) == (torch.bfloat16, ())
    assert stored[f"{C}.alpha"].item() == pytest.approx(1.1, rel=1e-7)


def test_the_hashes_are_written_and_old_ones_replaced(tmp_path: Path, adapter: Adapter):
    path = tmp_path / "a.safetensors"
    stale = {"sshs_model_hash": "old", "sshs_legacy_hash": "old", "modelspec.hash_sha256": "old"}
    written = kohya.write(path, Adapter(adapter.parts, METADATA | stale), name, "fp16")
    assert read_header(path).metadata == written
    assert written["sshs_model_hash"] == tensors_sha256(path)
    assert written["modelspec.hash_sha256"] == "0x" + tensors_sha256(path)
    assert len(written["sshs_legacy_hash"]) == 8
    assert written["ss_output_name"] == "cat"


def test_a_stale_modelspec_hash_is_dropped_with_nothing_in_its_place(tmp_path: Path, adapter: Adapter):
    stale = Adapter(adapter.parts, {"modelspec.hash_sha256": "old"})
    assert "modelspec.hash_sha256" not in kohya.write(tmp_path / "a.safetensors", stale, name, "fp16")


@pytest.mark.parametrize("value", [1e5, float("nan")])
def test_values_that_a_format_cannot_hold_name_their_module_and_write_nothing(tmp_path: Path, adapter, value: float):
    adapter.parts["unet"][CONV].up[0, 0] = value
    with pytest.raises(UserError, match=f"{C}.lora_up.weight: expected finite numbers up to 65504"):
        kohya.write(tmp_path / "a.safetensors", adapter, name, "fp16")
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_not_replaced_by_one_that_failed(tmp_path: Path, adapter: Adapter):
    path = tmp_path / "a.safetensors"
    kohya.write(path, adapter, name, "fp16")
    before = path.read_bytes()
    adapter.parts["unet"][LINEAR].down[0, 0] = 1e6
    with pytest.raises(UserError):
        kohya.write(path, adapter, name, "fp16")
    assert path.read_bytes() == before
