"""JSON and TOML of other trainers: every key has a row, and what means the same here is set."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from lora_pipeline.errors import SettingsError
from lora_pipeline.kohya import Imported, Row, read
from lora_pipeline.kohya.rules import ALIASES, KNOWN, RULES, Context, text_encoder_lr
from lora_pipeline.recipes import recipe
from lora_pipeline.settings import FitSettings, Settings

# The shape in which civitai keeps a training run's details.
CIVITAI: dict[str, Any] = {
    "type": "Character",
    "params": {
        "engine": "kohya", "unetLR": 0.0005, "clipSkip": 1, "loraType": "lora", "keepTokens": 2, "networkDim": 32,
        "numRepeats": 14, "resolution": 512, "lrScheduler": "cosine_with_restarts", "minSnrGamma": 5, "noiseOffset": 0.1,
        "targetSteps": 1050, "enableBucket": True, "networkAlpha": 16, "optimizerType": "AdamW8Bit", "textEncoderLR": 0.00005,
        "maxTrainEpochs": 10, "shuffleCaption": True, "trainBatchSize": 2, "flipAugmentation": True, "lrSchedulerNumCycles": 3,
    },
    "staging": False, "baseModel": "sd_1_5", "highPriority": False, "baseModelType": "sd15", "samplePrompts": ["", "jx265 on a horse", ""],
}  # fmt: skip

TRAIN = """
[model_arguments]
pretrained_model_name_or_path = "models/realistic.safetensors"
v2 = false

[additional_network_arguments]
unet_lr = 0.0005
text_encoder_lr = 0.0001
network_dim = 16
network_alpha = 8
network_module = "networks.lora"
network_args = ["conv_dim=8", "conv_alpha=1"]

[optimizer_arguments]
learning_rate = 0.0005
lr_scheduler = "constant_with_warmup"
lr_warmup_steps = 100
optimizer_type = "AdamW8bit"
optimizer_args = ["weight_decay=0.1", "betas=[0.9, 0.99]"]

[training_arguments]
max_train_epochs = 10
train_batch_size = 2
clip_skip = 2
seed = 7
max_token_length = 225
xformers = true
mixed_precision = "fp16"
wandb_api_key = "a-secret"

[dataset_arguments]
dataset_config = "dataset.toml"
"""

DATASET = """
[general]
resolution = 512
shuffle_caption = true
keep_tokens = 1
enable_bucket = true
min_bucket_reso = 320
max_bucket_reso = 960

[[datasets]]
batch_size = 4
resolution = [768, 512]

  [[datasets.subsets]]
  image_dir = "/photos/jane"
  num_repeats = 10
  class_tokens = "jx265 young woman"

  [[datasets.subsets]]
  image_dir = "/photos/women"
  is_reg = true
  num_repeats = 1
"""


@pytest.fixture
def put(tmp_path: Path):
    """Write a file and read it; `settings` are those of the whole."""

    def one(given: dict[str, Any] | str, recipe_name: str = "") -> Imported:
        file = tmp_path / ("settings.toml" if isinstance(given, str) else "settings.json")
        file.write_text(given if isinstance(given, str) else json.dumps(given))
        return read(file, recipe_name)

    return one


def params(**changes: Any) -> dict[str, Any]:
    return {**CIVITAI, "params": {**CIVITAI["params"], **changes}}


def row(found: Imported, key: str) -> Row:
    (one,) = [one for one in found.rows if one.key.split(".")[-1] == key]
    return one


def settings(found: Imported) -> Settings:
    return recipe(found.recipe).changed(found.changes, "import")


def test_civitais_numbers_mean_the_same_here(put):
    found = put(CIVITAI)
    assert found.recipe == "sd15_person"
    whole = settings(found)
    fit, encode = whole.fit, whole.encode
    assert (fit.unet_lr, fit.network_dim, fit.network_alpha, fit.optimizer_type) == (5e-4, 32, 16, "AdamW8bit")
    assert (fit.lr_scheduler, fit.lr_scheduler_num_cycles) == ("cosine_with_restarts", 3)
    assert (fit.epochs, fit.batch_size, fit.min_snr_gamma, fit.noise_offset) == (10, 2, 5, 0.1)
    assert (fit.shuffle_caption, fit.keep_tokens) == (True, 2)
    assert (encode.repeats, encode.resolution_px, encode.flip) == (14, 512, True)
    assert (encode.bucket_area, encode.merge_small_buckets) == ("at_most", False)
    assert whole.crop.framings == ("whole",)
    assert whole.grade.prompts == ("jx265 on a horse",)


def test_what_civitais_trainer_does_unsaid_is_done(put):
    """`optimizerArgMap` of civitai; a FLUX LoRA's is the library's."""
    assert settings(put(CIVITAI)).fit.weight_decay == 0.1
    assert settings(put({**params(), "baseModel": "flux_dev", "baseModelType": "flux"})).fit.weight_decay == 0.01
    given = "weight_decay=0.5, decouple=True, betas=0.9,0.99, use_bias_correction=False"
    found = put(params(optimizerType="Prodigy", optimizerArgs=given))
    assert settings(found).fit.weight_decay == 0.5
    assert row(found, "optimizerArgs").told == "fit.weight_decay = 0.5; not trained here yet: betas=(0.9, 0.99)"


@pytest.mark.parametrize("given", [CIVITAI, TRAIN, DATASET], ids=["civitai", "train", "dataset"])
def test_every_key_has_one_row_with_words(put, given):
    found = put(given)
    text = given if isinstance(given, str) else json.dumps(given)
    keys = re.findall(r"^ *(\w+) =", text, re.MULTILINE) or [
        key for key in re.findall(r'"(\w+)":', text) if key != "params"
    ]
    assert keys
    assert sorted(keys) == sorted(one.key.split(".")[-1] for one in found.rows if not one.key.startswith("("))
    assert all(one.told for one in found.rows)
    assert not [one.key for one in found.rows if one.fate == "unknown"]
    table = found.table()
    assert all(key in table for key in keys)


@pytest.mark.parametrize(
    ("given", "key", "told"),
    [
        (params(textEncoderLR=5e-5), "textEncoderLR", "fit.text_encoder_lr = 5e-05"),
        ({**params(textEncoderLR=5e-5), "baseModel": "flux_dev", "baseModelType": "flux"}, "textEncoderLR", "fit.text_encoder_lr = 5e-05"),
        (params(textEncoderLR=5e-5, optimizerType="Prodigy", unetLR=1), "textEncoderLR", "by hand: Prodigy finds one rate for all"),
        (TRAIN.replace("text_encoder_lr = 0.0001", "text_encoder_lr = [0.0001, 0.0002]"), "text_encoder_lr", "fit.text_encoder_lr = 0.0001"),
        (TRAIN.replace("text_encoder_lr", "train_text_encoder = true\nnetwork_train_unet_only"), "network_train_unet_only", "the text encoder is not trained"),
        (TRAIN.replace("text_encoder_lr = 0.0001", "train_text_encoder = true"), "train_text_encoder", "it is of fine-tuning"),
        (params(textEncoderLR=0), "textEncoderLR", "the text encoder is not trained"),
        (params(clipSkip=2), "clipSkip", "base.clip_skip = 2"),
        (params(clipSkip=1), "clipSkip", "base.clip_skip = 1"),
        (params(clipSkip=13), "clipSkip", "by hand: base.clip_skip: Input should be less than or equal to 12"),
        ({**params(clipSkip=2), "baseModel": "sdxl", "baseModelType": "sdxl"}, "clipSkip", "always read with the same layers, by sd-scripts too"),
        (params(loraType="lokr"), "textEncoderLR", "not trained here yet: lokr of text encoders"),
        (TRAIN.replace("networks.lora", "lycoris.kohya").replace("conv_dim=8", "algo=loha"), "text_encoder_lr", "not trained here yet: LyCORIS' loha of text encoders"),
        (params(loraType="oft"), "loraType", "not trained here yet: oft"),
        (TRAIN.replace("networks.lora", "networks.oft"), "network_module", "not trained here yet: networks.oft"),
        (TRAIN.replace("xformers = true", "blocks_to_swap = 18"), "blocks_to_swap", "how memory is used by transformers"),
        (TRAIN.replace("networks.lora", "networks.lora_flux").replace("xformers = true", "blocks_to_swap = 18"), "blocks_to_swap", "fit.blocks_to_swap = 18, fit.gradient_checkpointing = true; blocks wait only with"),
        (TRAIN.replace("xformers", "fp8_base"), "fp8_base", "by hand: no base is held in fp8 here; set fit.base_precision to int8"),
        (params(engine="rapid"), "engine", "by hand: the trainer rapid"),
        (params(targetSteps=1050), "targetSteps", "stands for 15 pictures"),
        (params(optimizerType="Lion8bit"), "optimizerType", "not trained here yet: the optimiser Lion8bit"),
        (params(numRepeats=5000), "numRepeats", "by hand: encode.repeats: Input should be less than or equal to 1000"),
        (params(networkDimm=3), "networkDimm", "unknown: did you mean 'networkDim'?"),
        (params(qqqqq=3), "qqqqq", "unknown: no trainer's key is like it"),
        ({**CIVITAI, "baseModel": "realistic"}, "baseModel", "set base.model to the file"),
        ({**CIVITAI, "baseModel": "civitai:43331@127742"}, "baseModel", "a model of somebody's own"),
        (TRAIN.replace("conv_alpha=1", "rank_dropout=0.1"), "network_args", "not trained here yet: rank_dropout=0.1"),
        (TRAIN, "optimizer_args", "fit.weight_decay = 0.1; not trained here yet: betas=[0.9, 0.99]"),
        (TRAIN, "max_token_length", "not trained here yet: captions of over 75 tokens"),
        (TRAIN, "learning_rate", "unet_lr stands for it"),
        (TRAIN, "dataset_config", "import dataset.toml too"),
        (TRAIN.replace("= 100", "= 0.05"), "lr_warmup_steps", "by hand: 0.05 of the run's steps"),
        (TRAIN.replace("max_train_epochs = 10", "max_train_steps = 900"), "max_train_steps", "by hand: runs are counted in epochs"),
        (DATASET, "is_reg", "regularisation pictures: set encode.regularisation_folder"),
        (DATASET.replace("is_reg = true", ""), "image_dir", None),
    ],
)  # fmt: skip
def test_what_does_not_map_says_why_and_what_to_do(put, given, key, told):
    found = put(given)
    rows = [one for one in found.rows if one.key.split(".")[-1] == key]
    if told is None:
        assert all("choose it with --photos" in one.told for one in rows)
        assert found.photos is None
    else:
        assert told in rows[0].told
    settings(found)


def test_a_toml_of_train_network(put):
    whole = settings(put(TRAIN))
    fit = whole.fit
    assert whole.base.model == "models/realistic.safetensors"
    assert (fit.lr_scheduler, fit.lr_warmup_steps, fit.seed, fit.mixed_precision) == ("constant", 100, 7, "fp16")
    assert (fit.network_dim, fit.network_alpha, fit.weight_decay) == (16, 8, 0.1)
    assert (fit.network_conv_dim, fit.network_conv_alpha) == (8, 1)
    assert (fit.unet_lr, fit.text_encoder_lr, whole.base.clip_skip) == (5e-4, 1e-4, 2)


@pytest.mark.parametrize(
    ("said", "rate"),
    [
        ("", 5e-4),  # sd-scripts trains it at learning_rate unless told otherwise
        ("network_train_unet_only = false", 5e-4),
        ("text_encoder_lr = []", 5e-4),
        ("network_train_unet_only = true", 0),
        ("text_encoder_lr = 0.0", 0),
        ("text_encoder_lr = 0.0\nnetwork_train_unet_only = false", 0),
        ("text_encoder_lr = 1e-5\nnetwork_train_unet_only = false", 1e-5),
        ("text_encoder_lr = [1e-5, 1e-5]", 1e-5),
    ],
)
def test_the_text_encoders_rate_is_what_sd_scripts_makes_of_it(put, said, rate):
    found = put(TRAIN.replace("text_encoder_lr = 0.0001", said))
    assert settings(found).fit.text_encoder_lr == rate


@pytest.mark.parametrize(
    ("said", "rates"),
    [
        ("1e-5", (1e-5, None)),
        ("[1e-5]", (1e-5, None)),
        ("[1e-5, 1e-5]", (1e-5, None)),
        ("[1e-5, 3e-6]", (1e-5, 3e-6)),
        ("[0, 3e-6]", (0, 3e-6)),
        ("[1e-5, 0]", (1e-5, 0)),
    ],
)
def test_each_of_sdxls_text_encoders_has_its_rate(put, said, rates):
    found = put(TRAIN.replace("text_encoder_lr = 0.0001", f"text_encoder_lr = {said}\nsdxl = true"))
    fit = settings(found).fit
    assert (fit.text_encoder_lr, fit.text_encoder_2_lr) == rates


def test_text_encoders_that_cannot_be_trained_say_so():
    verdict = text_encoder_lr([1e-5, 1e-5], Context({}, flow=True, civitai=False, text_encoders=0, clip_skips=False))
    assert (verdict.fate, verdict.words) == ("not yet", "the text encoders of this base; only the denoiser learns")


def test_of_flux_clip_learns_and_t5_does_not(put):
    """`FluxNetworkTrainer` trains CLIP unless told otherwise, and T5 only if network_args say `train_t5xxl`."""
    flux = TRAIN.replace("networks.lora", "networks.lora_flux").replace('"conv_dim=8", "conv_alpha=1"', "")
    for said, rate in (("[1e-5, 1e-4]", 1e-5), ("[0.0, 1e-4]", 0)):
        fit = settings(put(flux.replace("text_encoder_lr = 0.0001", f"text_encoder_lr = {said}"))).fit
        assert (fit.text_encoder_lr, fit.text_encoder_2_lr) == (rate, None)
    five = put(flux.replace("network_args = [", 'network_args = ["train_t5xxl=True"'))
    assert "not trained here yet: train_t5xxl=True" in row(five, "network_args").told


def test_the_guis_processes_and_what_its_warm_up_means_with_them(put):
    """`AcceleratedScheduler` takes a step a process at each update, so 101 steps in 2 processes are 51 updates."""
    gui = {"LoRA_type": "Standard", "max_resolution": "512,512", "lr_warmup_steps": 101, "num_machines": 1}
    found = put({**gui, "num_processes": 2})
    assert (settings(found).fit.num_processes, settings(found).fit.lr_warmup_steps) == (2, 51)
    assert "once a process" in row(found, "lr_warmup_steps").told
    alone = put({**gui, "num_processes": 1, "num_machines": 2})
    assert (settings(alone).fit.num_processes, settings(alone).fit.lr_warmup_steps) == (1, 101)
    assert "by hand: several machines" in row(alone, "num_machines").told


def test_the_guis_convolutions_are_those_of_its_locon_alone(put):
    gui = {"lora_type": "Kohya LoCon", "network_dim": 16, "network_alpha": 8, "conv_dim": 4, "conv_alpha": 2}
    fit = settings(put({**gui, "pretrained_model_name_or_path": "a.safetensors"})).fit
    assert (fit.network_conv_dim, fit.network_conv_alpha) == (4, 2)
    plain = settings(put({**gui, "lora_type": "Standard", "pretrained_model_name_or_path": "a.safetensors"})).fit
    assert plain.network_conv_dim == 0


def lycoris(arguments, **changes):
    text = TRAIN.replace("networks.lora", "lycoris.kohya").replace('["conv_dim=8", "conv_alpha=1"]', arguments)
    for old, new in changes.items():
        text = text.replace(old, new)
    return text


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (lycoris('["algo=lokr", "factor=8", "conv_dim=4", "conv_alpha=2"]'), ("lokr", 8, 4, 2, False)),
        (lycoris('["algo=loha", "preset=full", "rs_lora=True"]'), ("loha", -1, 16, 8, True)),
        (lycoris('["algo=locon", "factor=8", "conv_dim=0"]'), ("lora", -1, 16, 8, False)),
        (TRAIN.replace("networks.lora", "networks.lokr"), ("lokr", -1, 8, 1, False)),
        (params(loraType="lokr"), ("lokr", -1, 0, 1, False)),
        ({"lora_type": "LyCORIS/LoKr", "factor": 6, "conv_dim": 3, "conv_alpha": 2, "decompose_both": False,
          "pretrained_model_name_or_path": "a.safetensors"}, ("lokr", 6, 3, 2, False)),
        ({"lora_type": "Standard", "factor": 6, "conv_dim": 3, "conv_alpha": 2, "decompose_both": True,
          "pretrained_model_name_or_path": "a.safetensors"}, ("lora", -1, 0, 1, False)),
    ],
)  # fmt: skip
def test_lycoris_networks_are_taken_over(put, given, wanted):
    found = put(given)
    fit = settings(found).fit
    told = (fit.network_type, fit.network_factor, fit.network_conv_dim, fit.network_conv_alpha, fit.rank_stabilised)
    assert told == wanted
    assert not [one.key for one in found.rows if one.fate == "unknown"]


@pytest.mark.parametrize(
    ("given", "key", "told"),
    [
        (lycoris('["algo=lokr", "decompose_both=True"]'), "network_args", "not trained here yet: decompose_both=True"),
        (lycoris('["algo=lokr", "preset=attn-only"]'), "network_args", "not trained here yet: preset=attn-only"),
        (lycoris('["algo=boft"]'), "network_module", "not trained here yet: LyCORIS' boft"),
        ({"lora_type": "LyCORIS/LoKr", "use_tucker": True, "pretrained_model_name_or_path": "a.safetensors"},
         "use_tucker", "not trained here yet: another form of LyCORIS"),
        ({"lora_type": "LyCORIS/LoHa", "network_dropout": 0.2, "pretrained_model_name_or_path": "a.safetensors"},
         "network_dropout", "LyCORIS drops nothing of a LoKr or LoHa either"),
    ],
)  # fmt: skip
def test_what_of_lycoris_does_not_map_says_so(put, given, key, told):
    found = put(given)
    assert told in next(one.told for one in found.rows if one.key.split(".")[-1] == key)
    settings(found)


def test_the_base_is_held_in_the_format_of_the_forward_pass_as_there(put):
    fit = settings(put(TRAIN)).fit
    assert (fit.mixed_precision, fit.base_precision) == ("fp16", "fp16")
    plain = settings(put(TRAIN.replace('"fp16"', '"no"'))).fit
    assert (plain.mixed_precision, plain.base_precision) == ("no", "fp32")


def test_a_folder_of_regularisation_pictures_is_taken_over(put):
    found = settings(put(TRAIN + '\nreg_data_dir = "women"\nprior_loss_weight = 0.5\n')).encode
    assert (found.regularisation_folder, found.prior_loss_weight) == ("women", 0.5)


def test_what_a_toml_leaves_unsaid_is_what_sd_scripts_does_then(put):
    """Its recipe has min-SNR 5 and other numbers; sd-scripts, when told nothing, has none."""
    found = put('unet_lr = 1e-4\noptimizer_type = "Adafactor"\n')
    fit = settings(found).fit
    assert recipe(found.recipe).fit.min_snr_gamma == 5
    assert (fit.min_snr_gamma, fit.noise_offset, fit.batch_size) == (0, 0, 1)
    assert (fit.network_dim, fit.network_alpha, fit.lr_scheduler, fit.weight_decay) == (4, 1, "constant", 0)
    assert "sd-scripts does then" in row(found, "(min_snr_gamma)").told
    assert fit.text_encoder_lr == 2e-6
    assert "the text encoder learns at learning_rate" in row(found, "(network_train_unet_only)").told
    assert row(found, "(max_train_steps)").fate == "by hand"


def test_without_buckets_every_picture_is_square(put):
    from lora_pipeline.stages.encode.buckets import buckets

    found = put(params(enableBucket=False, resolution=640))
    assert buckets(settings(found).encode) == ((640, 640),)


def test_a_dataset_toml_the_nearer_to_the_pictures_wins(put):
    found = put(DATASET)
    whole = settings(found)
    assert whole.encode.resolution_px == 624  # √(768 · 512) = 627.07, in steps of 8
    assert "nearer to the pictures" in row_at(found, "general.resolution").told
    assert (whole.encode.repeats, whole.fit.batch_size, whole.fit.keep_tokens) == (10, 4, 1)
    assert (whole.encode.bucket_min_px, whole.encode.bucket_max_px) == (320, 960)
    assert (found.photos, found.trigger, found.class_word) == (Path("/photos/jane"), "jx265", "young woman")


def row_at(found: Imported, key: str) -> Row:
    return next(one for one in found.rows if one.key == key)


def test_a_second_value_for_a_second_subset_is_not_passed_over(put):
    found = put(DATASET.replace("is_reg = true", 'class_tokens = "jx265 young woman"'))
    assert settings(found).encode.repeats == 10
    assert "the first, 10, is taken" in row_at(found, "datasets[1].subsets[2].num_repeats").told


def test_a_file_of_the_gui(put):
    given = {
        "LoRA_type": "Standard", "optimizer": "AdamW8bit", "epoch": 36, "max_train_epochs": 0, "max_train_steps": 0,
        "max_resolution": "1024,1024", "lr_warmup": 10, "min_snr_gamma": 0, "conv_dim": 1, "sdxl": True, "vae": "",
        "bucket_no_upscale": True, "enable_bucket": True, "min_bucket_reso": 256, "max_bucket_reso": 2048, "unet_lr": "0.0001",
        "masked_loss": False,
    }  # fmt: skip
    found = put(given)
    assert (found.what, found.recipe) == ("kohya_ss JSON", "sdxl_person")
    whole = settings(found)
    assert (whole.fit.epochs, whole.fit.unet_lr, whole.encode.resolution_px) == (36, 1e-4, 1024)
    assert whole.encode.bucket_no_upscale
    assert whole.fit.masked_loss  # strangers' faces stay out of the loss: sd-scripts' masks are another thing
    assert "10 % of the run's steps" in row(found, "lr_warmup").told
    assert len([one for one in found.rows if not one.key.startswith("(")]) == len(given)


def test_a_flows_min_snr_and_noise_offset_do_what_they_do_in_sd_scripts_nothing(put):
    flux = {**CIVITAI, "baseModel": "flux_dev", "baseModelType": "flux"}
    found = put(flux)
    assert found.recipe == "flux_person"
    fit = settings(found).fit
    assert (fit.min_snr_gamma, fit.noise_offset) == (0, 0)
    assert "weighs nothing" in row(found, "minSnrGamma").told
    assert "adds none" in row(found, "noiseOffset").told


def test_a_recipe_of_another_family_is_told(put):
    found = put({**CIVITAI, "baseModel": "sdxl", "baseModelType": "sdxl"}, "sd15_person")
    assert found.recipe == "sd15_person"
    assert "the family sdxl, but the recipe sd15_person is of sd15: choose --recipe" in row(found, "baseModel").told


def test_secrets_are_not_shown(put):
    assert "a-secret" not in put(TRAIN).table()


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.json", "{", "is not JSON"),
        ("a.toml", "= 3", "is not TOML"),
        ("a.json", "[1]", "holds no keys, but list"),
        ("a.json", '{"colour": 3}', "no settings of kohya's or civitai's trainer (it has colour)"),
        ("a.json", None, "cannot be read"),
    ],
)
def test_what_is_no_such_file_is_told_in_words(tmp_path, name, text, words):
    file = tmp_path / name
    if text is not None:
        file.write_text(text)
    with pytest.raises(SettingsError, match=re.escape(words)):
        read(file)


def test_every_rule_sets_what_there_is_and_every_alias_has_a_rule():
    assert set(ALIASES.values()) <= set(RULES)
    assert len(KNOWN) > 200


def test_what_is_not_trained_yet_is_no_setting_yet():
    """When one of these comes to `fit`, its rule must set it: then this fails."""
    later = {"ip_noise_gamma", "scale_weight_norms"}
    assert later <= set(RULES)
    assert not later & set(FitSettings.model_fields)
