from __future__ import annotations

import json
from dataclasses import replace

import pytest

from engine.formats.facts import (
    AdapterFacts,
    BaseFacts,
    CardFacts,
    DatasetFacts,
    ModelFacts,
    RunFacts,
    SubsetFacts,
    TrainingFacts,
)
from engine.formats.metadata import tag_frequency, training_metadata

ALWAYS = """
    ss_session_id ss_training_started_at ss_output_name ss_learning_rate ss_text_encoder_lr ss_unet_lr
    ss_num_train_images ss_num_validation_images ss_num_reg_images ss_num_batches_per_epoch ss_num_epochs
    ss_gradient_checkpointing ss_gradient_accumulation_steps ss_max_train_steps ss_lr_warmup_steps ss_lr_scheduler
    ss_network_module ss_network_dim ss_network_alpha ss_network_dropout ss_mixed_precision ss_full_fp16 ss_v2
    ss_base_model_version ss_clip_skip ss_max_token_length ss_cache_latents ss_seed ss_lowram ss_noise_offset
    ss_multires_noise_iterations ss_multires_noise_discount ss_adaptive_noise_scale ss_zero_terminal_snr
    ss_training_comment ss_sd_scripts_commit_hash ss_optimizer ss_max_grad_norm ss_caption_dropout_rate
    ss_caption_dropout_every_n_epochs ss_caption_tag_dropout_rate ss_face_crop_aug_range ss_prior_loss_weight
    ss_min_snr_gamma ss_scale_weight_norms ss_ip_noise_gamma ss_debiased_estimation ss_noise_offset_random_strength
    ss_ip_noise_gamma_random_strength ss_loss_type ss_huber_schedule ss_huber_scale ss_huber_c ss_fp8_base
    ss_fp8_base_unet ss_validation_seed ss_validation_split ss_max_validation_steps ss_validate_every_n_epochs
    ss_validate_every_n_steps ss_resize_interpolation
"""
DATASET = ["ss_datasets", "ss_tag_frequency", "ss_dataset_dirs"]
AT_SAVE = ["ss_training_finished_at", "ss_steps", "ss_epoch"]
MODEL = ["ss_sd_model_name", "ss_sd_model_hash", "ss_new_sd_model_hash"]
VAE = ["ss_vae_name", "ss_vae_hash", "ss_new_vae_hash"]
DATASET_KEYS = """
    is_dreambooth batch_size_per_device num_train_images num_reg_images resolution enable_bucket min_bucket_reso
    max_bucket_reso tag_frequency bucket_info resize_interpolation subsets
"""
SUBSET_KEYS = """
    img_count num_repeats color_aug flip_aug random_crop shuffle_caption keep_tokens keep_tokens_separator
    secondary_separator enable_wildcard caption_prefix caption_suffix resize_interpolation image_dir class_tokens is_reg
"""
MODELSPEC = "sai_model_spec architecture implementation title resolution"

FACTS = TrainingFacts(
    base=BaseFacts(name="sd15.safetensors", legacy_hash="81761151", sha256="6ce0161689" + "0" * 54),
    dataset=DatasetFacts(
        subsets=(
            SubsetFacts(
                folder="/home/ada/10_ohwx cat",
                captions=("ohwx cat, red", "Ohwx Cat,  on grass ,"),
                repeats=10,
                class_tokens="ohwx cat",
                caption_dropout=0.1,
                flip=True,
            ),
            SubsetFacts(folder="1_cat", captions=("cat",) * 3, is_reg=True),
        ),
        batch=2,
        resolution=(512, 512),
        buckets={(448, 576): 10, (512, 512): 13},
        aspect_error=0.02,
    ),
    adapter=AdapterFacts(rank=16, alpha=8),
    run=RunFacts(
        name="my-cat",
        session_id=123456,
        seed=42,
        started_at=1795400000.5,
        finished_at=1795403600.25,
        steps=500,
        epoch=3,
        max_steps=1200,
        epochs=8,
        batches_per_epoch=10,
        lr_unet=1e-4,
        lr_text=0.0,
        optimizer="torch.optim.adamw.AdamW(weight_decay=0.01)",
        schedule="cosine",
        warmup=60,
        precision="bf16",
        snr_gamma=5.0,
    ),
    card=CardFacts(trigger_phrase="ohwx cat", tags=("cat", "photo")),
    program="loratui/0.1.0",
)


def test_every_key_that_readers_look_for_is_there_and_nothing_else():
    found = training_metadata(FACTS)
    assert {key for key in found if key.startswith("ss_")} == {*ALWAYS.split(), *DATASET, *AT_SAVE, *MODEL}
    assert {f"modelspec.{key}" for key in MODELSPEC.split()} <= found.keys()
    assert all(type(value) is str for value in found.values())


@pytest.mark.parametrize(
    ("key", "value"),
    {
        "ss_output_name": "my-cat",
        "ss_training_started_at": "1795400000.5",
        "ss_learning_rate": "0.0001",
        "ss_text_encoder_lr": "None",
        "ss_num_train_images": "20",
        "ss_num_reg_images": "3",
        "ss_network_dim": "16",
        "ss_network_alpha": "8.0",
        "ss_network_dropout": "None",
        "ss_network_module": "networks.lora",
        "ss_mixed_precision": "bf16",
        "ss_v2": "False",
        "ss_base_model_version": "sd_v1",
        "ss_max_token_length": "None",
        "ss_lowram": "False",
        "ss_min_snr_gamma": "5.0",
        "ss_noise_offset": "None",
        "ss_multires_noise_discount": "0.3",
        "ss_caption_dropout_rate": "0.1",
        "ss_prior_loss_weight": "1.0",
        "ss_loss_type": "l2",
        "ss_steps": "500",
        "ss_epoch": "3",
        "ss_sd_model_hash": "81761151",
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "stable-diffusion-v1/lora",
        "modelspec.implementation": "diffusers",
        "modelspec.implementation_version": "loratui/0.1.0",
        "modelspec.title": "my-cat",
        "modelspec.resolution": "512x512",
        "modelspec.date": "2026-11-23T03:13:20+00:00",
        "modelspec.prediction_type": "epsilon",
        "modelspec.trigger_phrase": "ohwx cat",
        "modelspec.tags": "cat, photo",
        "modelspec.encoder_layer": "1",
    }.items(),
)
def test_values_are_spelled_as_readers_know_them(key: str, value: str):
    assert training_metadata(FACTS)[key] == value


def test_the_dataset_is_told_as_sd_scripts_tells_it():
    found = training_metadata(FACTS)
    (dataset,) = json.loads(found["ss_datasets"])
    assert set(dataset) == set(DATASET_KEYS.split())
    assert all(set(subset) == set(SUBSET_KEYS.split()) for subset in dataset["subsets"])
    assert dataset["resolution"] == [512, 512]
    assert (dataset["min_bucket_reso"], dataset["max_bucket_reso"]) == (448, 576)
    assert dataset["bucket_info"] == {
        "buckets": {"0": {"resolution": [448, 576], "count": 10}, "1": {"resolution": [512, 512], "count": 13}},
        "mean_img_ar_error": 0.02,
    }
    instance, regularization = dataset["subsets"]
    assert (instance["img_count"], instance["num_repeats"], instance["flip_aug"]) == (2, 10, True)
    assert (instance["image_dir"], instance["class_tokens"]) == ("10_ohwx cat", "ohwx cat")
    assert (regularization["is_reg"], regularization["class_tokens"]) == (True, None)
    assert json.loads(found["ss_dataset_dirs"]) == {"10_ohwx cat": {"n_repeats": 10, "img_count": 2}}
    assert json.loads(found["ss_tag_frequency"]) == {
        "10_ohwx cat": {"ohwx cat": 2, "red": 1, "on grass": 1},
        "1_cat": {"cat": 3},
    }


def test_no_path_of_the_users_machine_is_written():
    assert "/home" not in json.dumps(training_metadata(FACTS))


def test_folders_of_one_name_are_numbered_and_their_tags_added_up():
    first, second = (
        replace(FACTS.dataset.subsets[0], folder=f"/data/{parent}/cat", captions=("a cat",)) for parent in "xy"
    )
    found = training_metadata(replace(FACTS, dataset=replace(FACTS.dataset, subsets=(first, second))))
    assert list(json.loads(found["ss_dataset_dirs"])) == ["cat", "cat (2)"]
    assert json.loads(found["ss_tag_frequency"]) == {"cat": {"a cat": 2}}


def test_without_buckets_there_is_no_bucket_info():
    found = training_metadata(replace(FACTS, dataset=replace(FACTS.dataset, buckets=None)))
    (dataset,) = json.loads(found["ss_datasets"])
    assert (dataset["enable_bucket"], dataset["bucket_info"], dataset["min_bucket_reso"]) == (False, None, None)


def test_a_base_without_a_single_file_has_no_hashes():
    found = training_metadata(replace(FACTS, base=BaseFacts(name="stabilityai/sd-turbo")))
    assert found["ss_sd_model_name"] == "stabilityai/sd-turbo"
    assert not {"ss_sd_model_hash", "ss_new_sd_model_hash"} & found.keys()


def test_a_replaced_vae_is_named():
    vae = ModelFacts(name="vae.pt", legacy_hash="c6a580b1", sha256="c" * 64)
    found = training_metadata(replace(FACTS, base=replace(FACTS.base, vae=vae)))
    assert [found[key] for key in VAE] == ["vae.pt", "c6a580b1", "c" * 64]


def test_a_v_predicting_second_generation_base_is_told_apart():
    base = BaseFacts(name="sd21", version="sd_v2_v", architecture="stable-diffusion-v2-768-v", prediction="v")
    found = training_metadata(replace(FACTS, base=base))
    assert (found["ss_v2"], found["modelspec.prediction_type"]) == ("True", "v")
    assert found["modelspec.architecture"] == "stable-diffusion-v2-768-v/lora"


def test_a_flow_matching_base_has_no_prediction_type():
    found = training_metadata(replace(FACTS, base=replace(FACTS.base, prediction=None)))
    assert "modelspec.prediction_type" not in found


def test_further_arguments_of_the_adapter_are_json():
    adapter = replace(FACTS.adapter, arguments={"conv_dim": "8", "conv_alpha": "1"})
    found = training_metadata(replace(FACTS, adapter=adapter))
    assert json.loads(found["ss_network_args"]) == {"conv_dim": "8", "conv_alpha": "1"}


def test_a_tag_counts_once_an_appearance_and_empty_ones_not_at_all():
    assert tag_frequency([("a", ["x, X ,y,,", ""]), ("b", []), ("a", ["y"])]) == {"a": {"x": 2, "y": 2}, "b": {}}
