"""A run in the making: preset, changes, and what is wrong with the two."""

from __future__ import annotations

from dataclasses import replace

from engine.config import PRESETS, Request, Train, to_toml
from loratui.draft import Setup, absolute, differences, place, split_unknown

SUBSET = {"path": "/images", "class_tokens": "ohwx cat"}
SOUND = {"model": {"base": "tiny"}, "dataset": {"subsets": [SUBSET]}, "prior": {"weight": 0.0}}


def setup(**more) -> Setup:
    return Setup(**({"project": "my-cat", "changes": SOUND} | more))


def problems(made: Setup) -> dict[str, str]:
    return {problem.field: problem.found for problem in made.checked[1]}


def test_values_are_the_defaults_under_the_preset_under_the_changes():
    made = setup(preset="style").with_value("optimizer.beta2", 0.99)
    assert made.value("saving.states") == 2
    assert made.value("adapter.rank") == PRESETS["style"]["tiny"]["adapter"]["rank"]
    assert made.value("optimizer.beta2") == 0.99
    assert made.changed("optimizer.beta2")
    assert not made.changed("adapter.rank")


def test_another_variant_moves_what_was_not_set_and_keeps_what_was():
    made = setup(preset="style", variant="tiny").with_value("adapter.alpha", 12.0)
    other = Setup("my-cat", "style", "sd1", made.changes)
    assert (made.value("adapter.rank"), other.value("adapter.rank")) == (16, 32)
    assert other.value("adapter.alpha") == 12.0


def test_setting_a_field_to_what_it_starts_from_is_no_change():
    made = setup().with_value("adapter.rank", 64)
    assert made.changed_paths("adapter") == ["adapter.rank"]
    assert made.with_value("adapter.rank", made.start("adapter.rank")).changes == SOUND
    assert made.without("adapter.rank").changes == SOUND


def test_a_step_leaves_the_setup_before_it_as_it_was():
    made = setup()
    made.with_value("model.clip_skip", 2)
    made.without("model.base")
    assert made.changes == SOUND


def test_true_is_not_taken_for_one():
    made = setup().with_value("model.clip_skip", True)
    assert made.changed("model.clip_skip")
    assert "model.clip_skip" in problems(made)


def test_a_sound_setup_is_a_config_of_its_project():
    config, wrong = setup().checked
    assert not wrong
    assert (config.project, config.name, config.adapter.rank) == ("my-cat", "adapter", 8)


def test_the_project_of_a_draft_is_the_open_one_whatever_the_draft_says():
    made = setup(changes=SOUND | {"project": "another", "kind": "generate"})
    assert made.checked[0].project == "my-cat"


def test_rules_run_beside_wrong_fields_and_before_a_base_is_named():
    made = setup(changes={}).with_value("training.epochs", 5).with_value("adapter.rank", "abc")
    found = problems(made)
    assert set(found) == {"model.base", "dataset.subsets", "adapter.rank", "training.steps", "prior.prompt"}


def test_a_rule_about_a_field_that_is_wrong_itself_is_not_told_twice():
    made = setup().with_value("schedule.warmup", -5)
    assert [problem.field for problem in made.checked[1]] == ["schedule.warmup"]


def test_a_draft_that_is_no_table_where_one_should_be_is_told_and_mended_by_a_value():
    made = setup(changes=SOUND | {"adapter": 5, "training": {"stpes": 3}, "foo": 1})
    assert {place(field) for field in problems(made)} == {"adapter", "training", ""}
    assert made.value("adapter.rank") is None
    mended = made.with_value("adapter.rank", 4).without_section("training").without_section("")
    assert mended.checked[0].adapter.rank == 4


def test_a_method_drops_captions_where_a_subset_says_nothing_of_it():
    subsets = [SUBSET, {"path": "/other", "caption_dropout": 0.5}]
    made = setup(preset="style", changes=SOUND | {"dataset": {"subsets": subsets}})
    assert [subset.caption_dropout for subset in made.checked[0].dataset.subsets] == [0.1, 0.5]
    assert made.changes["dataset"]["subsets"][0] == SUBSET


def test_dropping_changes_with_a_preset_keeps_what_no_preset_knows():
    made = setup().with_value("name", "fluffy").with_value("adapter.rank", 64)
    kept, dropped = made.with_preset("style", keep=True), made.with_preset("style", keep=False)
    assert kept.value("adapter.rank") == 64
    assert dropped.value("adapter.rank") == 16
    for one in (kept, dropped):
        assert (one.value("name"), one.value("model.base"), one.value("dataset.subsets")[0]["path"]) == (
            "fluffy",
            "tiny",
            "/images",
        )


def test_presets_are_told_apart_by_the_fields_that_they_set_otherwise():
    found = {leaf.path: value for leaf, value in differences(setup(), "style")}
    assert found["adapter.rank"] == 16
    assert "optimizer.lr_unet" not in found


def test_a_file_means_in_the_form_what_it_means_on_the_command_line(tmp_path):
    """Over any preset: fields that a file leaves out have the schema's defaults, not the preset's values."""
    path = tmp_path / "run.toml"
    path.write_text(
        'kind = "train"\nname = "from-file"\n[model]\nbase = "tiny"\n[adapter]\nalpha = 4\n'
        f'[[dataset.subsets]]\npath = "{tmp_path}"\n[prior]\nweight = 0.0\n'
    )
    request = Request()
    request.read(path)
    expected = request.checked(Train)
    for preset in PRESETS:
        made = Setup("default", preset, "tiny", {"optimizer": {"eps": 1e-6}}).with_file(request.anchored())
        assert to_toml(made.checked[0]) == to_toml(expected)


def test_a_file_with_wrong_values_keeps_them_in_their_fields():
    made = setup().with_file({"adapter": {"rank": "many"}, "training": 7, "model": {"base": "tiny"}})
    assert made.value("adapter.rank") == "many"
    assert {place(field) for field in problems(made)} == {"adapter.rank", "training", "dataset.subsets", "prior.prompt"}


def test_unknown_fields_are_split_off_wherever_they_stand():
    table = {"adapter": {"rnak": 4, "rank": 8}, "foo": 1, "kind": "train", "dataset": {"subsets": [SUBSET | {"x": 1}]}}
    known, unknown = split_unknown(table)
    assert unknown == ["adapter.rnak", "foo", "dataset.subsets[0].x"]
    assert known == {"adapter": {"rank": 8}, "dataset": {"subsets": [SUBSET]}}


def test_a_relative_path_is_made_absolute_and_a_hub_id_left_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    assert absolute("model.base", "models") == str(tmp_path / "models")
    assert absolute("model.base", "owner/name") == "owner/name"
    assert absolute("prior.prompt", "models") == "models"


def test_what_a_file_says_stays_when_its_base_turns_out_to_be_of_another_kind():
    made = setup(variant="sd1").with_file(SOUND | {"optimizer": {"lr_unet": 1e-4}})
    other = replace(made, variant="tiny")
    assert other.checked[0].optimizer.lr_unet == 1e-4
    assert other.checked[0].adapter.rank == 16


def test_a_preset_moves_what_a_file_left_as_the_preset_before_had_it():
    made = setup().with_file(SOUND | {"adapter": {"rank": 8, "alpha": 3.0}})
    moved = made.with_preset("style", keep=True)
    assert (moved.value("adapter.rank"), moved.value("adapter.alpha")) == (16, 3.0)
