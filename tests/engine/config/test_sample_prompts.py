"""Sample lines in kohya's form."""

from __future__ import annotations

import pytest

from engine.config.prompts import SamplePrompt, parse


@pytest.mark.parametrize(
    ("line", "read"),
    [
        ("a cat", SamplePrompt(prompt="a cat")),
        ("  a cat \n", SamplePrompt(prompt="a cat")),
        (
            "a cat in rain --n blurry, dark --w 512 --h 768 --d 42 --l 7.5 --s 28",
            SamplePrompt(
                prompt="a cat in rain",
                negative="blurry, dark",
                width=512,
                height=768,
                seed=42,
                guidance_scale=7.5,
                steps=28,
            ),
        ),
        ("a cat --s 4 --n", SamplePrompt(prompt="a cat", steps=4, negative="")),
        ("--d 0", SamplePrompt(prompt="", seed=0)),
        ("a --l 0", SamplePrompt(prompt="a", guidance_scale=0.0)),
        ("a well--made cat -- or --5 dogs", SamplePrompt(prompt="a well--made cat -- or --5 dogs")),
        ("a --d 1 --d 2", SamplePrompt(prompt="a", seed=2)),
        (f"a --d {2**63 - 1}", SamplePrompt(prompt="a", seed=2**63 - 1)),
    ],
)
def test_a_line_is_read_as_kohyas_trainer_reads_it(line, read):
    assert parse(line) == read


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a --q 4", "unknown option --q; there are --n, --w, --h, --d, --l, --s"),
        ("a --neg b", "unknown option --neg"),
        ("a --w wide", "--w (width) expects a whole number from 16 to 8192, found 'wide'"),
        ("a --w", "--w (width) expects a whole number from 16 to 8192, found ''"),
        ("a --h 512.5", "--h (height) expects a whole number"),
        ("a --h 8", "found '8'"),
        ("a --s 0", "--s (steps) expects a whole number from 1 to 1000, found '0'"),
        ("a --s 1001", "found '1001'"),
        ("a --d -1", "--d (seed) expects a whole number from 0 to 9223372036854775807, found '-1'"),
        (f"a --d {2**63}", "found '9223372036854775808'"),
        ("a --l nan", "--l (guidance_scale) expects a number from 0 to 50, found 'nan'"),
        ("a --l inf", "found 'inf'"),
        ("a --l -1", "found '-1'"),
    ],
)
def test_a_wrong_option_is_named_with_what_it_takes(line, message):
    with pytest.raises(ValueError) as caught:
        parse(line)
    assert message in str(caught.value)
