"""Conditioning from the cache equals conditioning encoded live, and belongs to its caption."""

from __future__ import annotations

import pytest
import torch

from engine.errors import UserError
from engine.training.text import TextStates

CAPTIONS = ["a cat on a red background", "", "octopus, blue background", "a " + "very " * 60 + "long one"]


@pytest.mark.parametrize("clip_skip", [1, 2])
@torch.no_grad()
def test_cached_states_equal_live_ones(tiny, clip_skip):
    cached, live = (TextStates(tiny, CAPTIONS, clip_skip, live) for live in (False, True))
    asked = [CAPTIONS[2], CAPTIONS[0], CAPTIONS[2], CAPTIONS[1], CAPTIONS[3]]
    one, two = cached(asked)["encoder_hidden_states"], live(asked)["encoder_hidden_states"]
    assert one.shape == (5, 77, 128)
    torch.testing.assert_close(one, two, rtol=0, atol=1e-5)


@torch.no_grad()
def test_every_caption_has_the_states_of_that_caption_alone_bit_for_bit(tiny):
    cached = TextStates(tiny, CAPTIONS, 1, live=False)
    for caption in CAPTIONS:
        alone = tiny.encode_text(tiny.tokenize([caption]))["encoder_hidden_states"][0]
        for company in ([caption], [CAPTIONS[0], caption, CAPTIONS[2]]):
            states = cached(company)["encoder_hidden_states"][company.index(caption)]
            assert torch.equal(states, alone)


def test_only_live_states_carry_gradients_to_the_text_encoder(config_of, trainer_of):
    trainer = trainer_of(config_of())
    cached, live = (TextStates(trainer.family, CAPTIONS, 1, live) for live in (False, True))
    assert not cached(CAPTIONS)["encoder_hidden_states"].requires_grad
    live(CAPTIONS)["encoder_hidden_states"].square().mean().backward()
    span = trainer.flat.groups["text_encoder"]
    assert trainer.flat.gradient[span].abs().sum() > 0
    trainer.flat.gradient.zero_()


def test_live_states_follow_the_text_encoder_and_cached_ones_stay(config_of, trainer_of):
    trainer = trainer_of(config_of())
    cached, live = (TextStates(trainer.family, CAPTIONS, 1, live) for live in (False, True))
    before = [states(CAPTIONS)["encoder_hidden_states"].detach() for states in (cached, live)]
    trainer.flat.value.mul_(1.5)
    after = [states(CAPTIONS)["encoder_hidden_states"].detach() for states in (cached, live)]
    assert torch.equal(before[0], after[0]) and not torch.allclose(before[1], after[1], atol=1e-3)


def test_a_caption_that_was_not_announced_is_an_error(tiny):
    with pytest.raises(KeyError):
        TextStates(tiny, ["a"], 1, live=False)(["b"])


def test_filling_the_cache_can_be_ended_between_captions(tiny):
    class Enough(Exception):
        pass

    def tick(row):
        if row == 2:
            raise Enough

    with pytest.raises(Enough):
        TextStates(tiny, CAPTIONS, 1, live=False, tick=tick)


def test_a_layer_that_the_text_encoder_does_not_have_is_refused(tiny):
    with pytest.raises(UserError, match=r"model\.clip_skip: expected 1 to 3"):
        TextStates(tiny, CAPTIONS, 4, live=False)
