"""The tree of settings: every leaf has a key, sources have a precedence, mistakes are named in one line."""

import dataclasses

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from semprior.config.epochs import evolution_due, is_due, share_of
from semprior.config.schema import (
    MOST_EPOCHS,
    Config,
    environment_leaves,
    flatten,
    parse_settings,
    preset_leaves,
    preset_names,
    read_leaves,
    resolve,
    unflatten,
)
from semprior.errors import UserError
from semprior.models.detector import detector_spec
from semprior.training.learning_rate import learning_rate

PAPER = {  # every leaf of the preset `paper`, with the section of the method that gives it
    "preset": "paper",
    "detector": "alclnet",  # any of section 1; the preset does not choose between them
    "epochs": 300,  # 7
    "seed": 0,
    "precision": "fp32",  # 5
    "channels_last": False,
    "data.holdout": 0.0,  # 10: chosen on the test split
    "data.holdout_seed": 0,
    "data.folds": 0,
    "data.fold": 0,
    "data.crop": 256,  # 7
    "data.batch": 16,  # 7
    "data.target_crops": 0.0,  # 7: uniform offsets
    "data.hard_crops": 0.0,
    "data.pad_crops": False,  # 7: padded only where the image is smaller
    "data.augment": 0.5,  # 7
    "vfm.name": "vit_small_plus_patch16_dinov3",  # 2
    "vfm.weights": "auto",
    "vfm.features": "exact",  # 2: the crop's own forward
    "vfm.bank_gb": 8.0,
    "vfm.width": 128,  # 2, CNNs alone
    "scam.stages": "all",  # 3
    "scam.scale": None,  # 1: the detector's
    "scam.gate_penalty": 0.005,  # 4
    "scam.own_statistics": False,
    "scam.drop": 0.0,  # 4: BatchNorm is shared, both forwards update the running statistics
    "distill.align_weight": 0.1,  # 4
    "distill.outer_weight": 1.0,  # 4
    "distill.temperature": 4.0,  # 4
    "clusters.count": 256,  # 8
    "clusters.seed": 1,  # 8
    "labels.seed": "edges",  # 6
    "labels.pool": "reliable",  # 6
    "labels.refine": "evolve",  # 6
    "labels.crossfit_folds": 2,  # of crossfit only, as is the next leaf
    "labels.crossfit_epochs": 0.3,
    "labels.evolve_after": 0.2,  # 6: epoch 60 of 300
    "labels.evolve_every": 5,  # 6
    "labels.admit_until": 0.8,  # 6
    "loss.task": "bce",  # 4
    "loss.bce_weight": 10.0,  # of iou_bce only, as is the next leaf
    "loss.background_weight": 1.0,
    "loss.output_bias": None,  # 1
    "optim.rate": None,  # 1: the detector's
    "optim.schedule": "constant",  # 5
    "optim.weight_decay": 0.01,  # 5
    "optim.clip": None,  # 5
    "optim.average": 0.0,
    "outer.every": 5,  # 5
    "outer.steps": 4,  # 5
    "outer.shared": False,  # 5: apart
    "select.by": "test/iou",  # 10
    "select.after": 1 / 3,  # 10: epoch 100 of 300
    "select.every": 1,  # 10
}


def write(path, text):
    path.write_text(text)
    return path


def resolved(**kwargs):
    return resolve(**{"environment": {}, **kwargs}).config


def test_paper_is_the_published_protocol_leaf_by_leaf():
    assert flatten(resolved(preset="paper")) == PAPER


def test_paper_has_the_published_schedule():
    config = resolved(preset="paper")
    epochs = range(config.epochs)
    start = share_of(config.labels.evolve_after, config.epochs)
    evolving = [e for e in epochs if evolution_due(e, start=start, every=config.labels.evolve_every)]
    assert evolving == list(range(65, 300, 5))
    first = share_of(config.select.after, config.epochs)
    assert [e for e in epochs if is_due(e, first, config.select.every)] == list(range(100, 300))
    assert config.labels.admit_until * config.epochs == 240
    assert {learning_rate(config.optim.schedule, 1e-3, e / 300) for e in epochs} == {1e-3}


@pytest.mark.parametrize(
    ("name", "scale", "rate", "stages"),
    [("mlclnet", 0.55, 1e-3, (16, 32, 64)), ("alclnet", 0.12, 5e-4, (16, 32, 64, 128, 256))],
)
def test_null_means_the_published_value_of_the_detector(name, scale, rate, stages):
    spec = detector_spec(name)
    assert (spec.scam_scale, spec.learning_rate, spec.stages) == (scale, rate, stages)


@pytest.mark.parametrize("name", preset_names())
def test_presets_resolve_and_survive_the_round_trip_through_yaml(name):
    config = resolved(preset=name)
    assert config.preset == name
    assert unflatten(yaml.safe_load(yaml.safe_dump(flatten(config)))) == config
    assert set(flatten(config)) == set(flatten(Config()))


def test_defaults_are_the_preset_standard():
    assert resolved() == Config() == resolved(preset="standard")


@settings(max_examples=20, deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "epochs": st.integers(1, MOST_EPOCHS),
            "data.crop": st.integers(1, 32).map(lambda n: 32 * n),
            "scam.stages": st.sampled_from(["all", "none", [1], [1, 3]]),
            "scam.scale": st.none() | st.floats(0, 10),
            "optim.clip": st.none() | st.floats(0, 1e6),
            "labels.refine": st.sampled_from(["none", "evolve", "crossfit"]),
            "vfm.weights": st.text("aé: /~#'", max_size=8),
            "loss.task": st.sampled_from(["bce", "iou_bce", "iou", "sls"]),
        },
    )
)
def test_dotted_keys_and_tree_are_two_views_of_the_same(leaves):
    flat = flatten(unflatten(leaves))
    assert {key: flat[key] for key in leaves} == leaves
    assert unflatten(flat) == unflatten(leaves)


@pytest.mark.parametrize(("stored", "refine"), [(True, "evolve"), (False, "none")])
def test_what_an_earlier_version_stored_is_read_under_the_names_of_today(stored, refine, tmp_path):
    assert unflatten({"labels.evolve": stored}).labels.refine == refine
    file = write(
        tmp_path / "config.yaml", f"preset: quick\nlabels: {{evolve: {str(stored).lower()}, evolve_every: 3}}\n"
    )
    found = resolve(file=file, environment={})
    assert found.config.labels.refine == refine and "labels.refine" in found.chosen
    with pytest.raises(UserError, match=r"unknown key 'labels\.evolve'; it is 'labels\.refine' now"):
        unflatten({"labels.evolve": "often"})


def test_true_masks_are_not_replaced():
    for refine in ("crossfit", "evolve"):
        with pytest.raises(
            UserError, match=rf"labels\.refine={refine} would replace the true masks.*labels.refine=none"
        ):
            resolve(flags={"labels.refine": refine, "labels.seed": "masks"})


def test_nested_and_dotted_files_mean_the_same(tmp_path):
    nested = write(tmp_path / "a.yaml", "scam: {scale: 0.3, stages: [1, 2]}\nepochs: 7\n")
    dotted = write(tmp_path / "b.yaml", "scam.scale: 0.3\nscam.stages: [1, 2]\nepochs: 7\n")
    assert resolved(file=nested) == resolved(file=dotted)
    assert resolved(file=nested).scam.stages == (1, 2)


def test_a_flag_beats_the_environment_beats_the_file_beats_the_preset(tmp_path):
    sources = {"environment": {}}

    def epochs():
        return resolve(preset="quick", **sources).config.epochs

    assert epochs() == preset_leaves("quick")["epochs"]
    sources["file"] = write(tmp_path / "c.yaml", "epochs: 11\n")
    assert epochs() == 11
    sources["environment"] = {"SEMPRIOR__EPOCHS": "12", "OTHER": "1"}
    assert epochs() == 12
    sources["flags"] = parse_settings(["epochs=13"])
    assert epochs() == 13
    assert resolve(preset="quick", **sources).chosen == {"epochs"}


def test_the_preset_can_be_named_by_any_source(tmp_path):
    file = write(tmp_path / "c.yaml", "preset: paper\n")
    assert resolved(file=file).precision == "fp32"
    assert resolved(file=file, flags={"preset": "quick"}).vfm.weights == "offline"
    assert resolved(file=file, preset="standard").precision == "bf16"


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("optim.rate=1e-3", "optim.rate", 1e-3),
        ("optim.rate=1", "optim.rate", 1.0),
        ("optim.clip=null", "optim.clip", None),
        ("scam.stages=[2, 3]", "scam.stages", [2, 3]),
        ("scam.stages=none", "scam.stages", "none"),
        ("channels_last=false", "channels_last", False),
        ("vfm.weights=/some/path=x.pth", "vfm.weights", "/some/path=x.pth"),
    ],
)
def test_values_are_yaml(text, key, value):
    found = flatten(resolved(flags=parse_settings([text])))[key]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("epoch=3", ["unknown key 'epoch'", "did you mean 'epochs'"]),
        ("scam.stage=all", ["unknown key 'scam.stage'", "did you mean 'scam.stages'"]),
        ("temperature=4", ["unknown key 'temperature'", "did you mean 'distill.temperature'"]),
        ("zzzzzz=4", ["unknown key 'zzzzzz'"]),
        ("epochs=many", ["epochs", "a whole number", "'many'"]),
        ("epochs=2.5", ["epochs", "a whole number"]),
        ("epochs=true", ["epochs", "a whole number"]),
        ("epochs=0", ["epochs", "between 1 and 100000"]),
        ("seed=-1", ["seed", "between 0 and"]),
        ("optim.weight_decay=.inf", ["optim.weight_decay", "between 0 and 100, not inf"]),
        ("optim.weight_decay=1e999", ["optim.weight_decay", "between 0 and 100, not inf"]),
        ("optim.rate=1e30", ["optim.rate", "between 0 and 1000"]),
        ("loss.output_bias=-.inf", ["loss.output_bias", "between -100 and 100"]),
        ("optim.clip=.nan", ["optim.clip", "between 0 and"]),
        (f"optim.clip={'9' * 90}", ["optim.clip", "between 0 and"]),
        (f"epochs={'9' * 5000}", ["--set 'epochs=9", "too long for a whole number"]),
        ("epochs=0b_", ["--set epochs=0b_", "is not a whole number"]),
        ("epochs=!!int x", ["--set epochs", "'x' is not a whole number"]),
        ("channels_last=!!bool z", ["--set channels_last", "'z' is not true or false"]),
        ("epochs=2001-99-99", ["epochs", "a whole number, not '2001-99-99'"]),
        ("scam.stages=&a [*a]", ["--set scam.stages", "contains it"]),
        (f"scam.stages={'[' * 5000}", ["--set ", "nested too deeply"]),
        ("clusters.seed=4294967296", ["clusters.seed", "between 0 and 4294967295"]),
        ("data.augment=1.5", ["data.augment", "between 0 and 1"]),
        ("data.augment=.nan", ["data.augment", "between 0 and 1"]),
        ("data.crop=100", ["data.crop", "multiple of 32"]),
        ("channels_last=1", ["channels_last", "true or false"]),
        ("labels.evolve=false", ["--set: unknown key 'labels.evolve'", "it is 'labels.refine' now"]),
        ("labels.refine=twice", ["labels.refine", "none or evolve or crossfit"]),
        ("labels.crossfit_folds=1", ["labels.crossfit_folds", "between 2 and"]),
        ("labels.seed=edge", ["labels.seed", "contrast or edges"]),
        ("scam.stages=[1.5]", ["scam.stages", "a list like [1, 2]"]),
        ("optim.rate=fast", ["optim.rate", "a number or null"]),
        ("select.by=test/iou", ["select.by", "paper"]),
        ("epochs", ["--set epochs", "key=value"]),
        ("epochs=[1", ["--set epochs=[1", "YAML"]),
        ("preset=fast", ["preset", "'fast'", "quick"]),
    ],
)
def test_a_mistaken_setting_is_one_line_that_names_it(setting, words):
    with pytest.raises(UserError) as caught:
        resolved(flags=parse_settings([setting]))
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"epochz: 3\n", ["unknown key 'epochz'", "did you mean 'epochs'"]),
        (b"data: {crop: big}\n", ["data.crop", "a whole number"]),
        (b"a: [1\nb: 2", ["not valid YAML"]),
        (b"- 1\n- 2\n", ["keys and values"]),
        (b"", ["keys and values"]),
        (b"epochs: 3\nseed: 1\nepochs: 4\n", [":3: the key 'epochs' occurs twice; it is also on line 1"]),
        (b"scam: {scale: 1}\nscam.scale: 2\n", [":2: the key 'scam.scale' is given twice"]),
        (b"\xff\xfe\xfa", ["not UTF-8"]),
        (None, ["cannot be read"]),
    ],
)
def test_a_mistaken_file_is_named(tmp_path, content, words):
    path = tmp_path / "settings.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        resolved(file=path)
    for word in [str(path), *words]:
        assert word in str(caught.value)


def test_a_mistaken_variable_is_named():
    with pytest.raises(UserError, match=r"environment: unknown key 'scam.scal'; did you mean 'scam.scale'"):
        resolve(environment={"SEMPRIOR__SCAM__SCAL": "1"})
    assert environment_leaves({"SEMPRIOR__SCAM__SCALE": "1e-1", "SEMPRIOR_CACHE": "x"}) == {"scam.scale": "1e-1"}


def test_a_written_config_reads_back(tmp_path):
    config = resolved(preset="paper", flags={"scam.stages": [1], "epochs": 9})
    file = write(tmp_path / "c.yaml", yaml.safe_dump(flatten(config)))
    assert unflatten(read_leaves(file)) == config


def test_the_tree_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().scam.scale = 1.0
