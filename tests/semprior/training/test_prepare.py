"""From a folder to a training set: who trains, who is held out, what is never read."""

import os
import shutil

import numpy as np
import pytest

from semprior.cli.app import main
from semprior.config.schema import Config, parse_settings, resolve, unflatten
from semprior.data.layout import check_dataset, find_layout
from semprior.data.synthetic.scenes import write_scenes
from semprior.errors import UserError
from semprior.labels.pseudo_masks import PseudoMasks
from semprior.training.prepare import config_as_used, read_training_set

LIGHT = ["scam.stages=none", "clusters.count=3"]


def prepared(root, *settings, preset="quick"):
    said = []
    resolved = resolve(preset, flags=parse_settings([*LIGHT, *settings]), environment={})
    return read_training_set(find_layout(root), resolved, said.append), said


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "synthetic"
    write_scenes(root, 30, 4)
    return root


def names(training_set, indices):
    return [training_set.scenes[i].name for i in indices]


def test_the_holdout_depends_on_the_data_and_its_seed_alone(synthetic):
    first, _ = prepared(synthetic)
    held = names(first, first.holdout_indices)
    assert held
    for settings in (["seed=9", "detector=mlclnet", "data.crop=64"], ["labels.seed=edges", "clusters.count=7"]):
        again, _ = prepared(synthetic, *settings)
        assert names(again, again.holdout_indices) == held
    other, _ = prepared(synthetic, "data.holdout_seed=1", "data.holdout=0.4")
    assert names(other, other.holdout_indices) != held


def test_training_validation_and_holdout_are_apart_and_complete(synthetic):
    found, _ = prepared(synthetic)
    parts = [found.train_indices, found.validation_indices, found.holdout_indices]
    assert [i for part in parts for i in part] == list(range(len(found.scenes)))
    layout = find_layout(synthetic)
    assert sorted(names(found, found.validation_indices)) == sorted(layout.splits["val"])
    assert sorted(names(found, [*parts[0], *parts[2]])) == sorted(layout.splits["train"])


def test_each_fold_of_training_and_validation_is_held_out_once(synthetic):
    layout = find_layout(synthetic)
    train, validation = (set(layout.splits[split]) for split in ("train", "val"))
    held = []
    for fold in range(3):
        found, _ = prepared(synthetic, "data.folds=3", f"data.fold={fold}", f"seed={fold}")
        held_out = set(names(found, found.holdout_indices))
        assert all(found.scenes[i].mask is not None for i in found.holdout_indices)
        assert set(names(found, found.train_indices)) == train - held_out
        assert set(names(found, found.validation_indices)) == validation - held_out
        assert held_out & train and held_out & validation
        held += sorted(held_out)
    assert sorted(held) == sorted(train | validation)


def test_nothing_needs_the_labels(synthetic, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(synthetic, bare)
    shutil.rmtree(bare / "labels")
    with_masks, _ = prepared(synthetic)
    without, _ = prepared(bare)
    assert all(scene.mask is None for scene in without.scenes)
    assert names(with_masks, range(len(with_masks.scenes))) == names(without, range(len(without.scenes)))
    assert np.array_equal(with_masks.clusters, without.clusters)
    with pytest.raises(UserError, match=r"select\.by=holdout/iou needs masks"):
        prepared(bare, "select.by=holdout/iou")


def test_the_test_split_is_read_under_the_preset_paper_alone(synthetic, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(synthetic, copy)
    for name in find_layout(copy).splits["test"]:
        for folder in ("images", "labels", "masks_centroid"):
            os.truncate(copy / folder / f"{name}.png", 20)
    assert prepared(copy)[0].test == []
    with pytest.raises(UserError):
        prepared(copy, preset="paper")
    found, said = prepared(synthetic, preset="paper")
    assert len(found.test) and any("TEST split" in line for line in said)


def test_a_cluster_count_of_the_user_is_refused_and_one_of_a_preset_is_capped(synthetic):
    with pytest.raises(UserError, match=r"clusters\.count"):
        prepared(synthetic, "clusters.count=1000")
    resolved = resolve("quick", flags=parse_settings(["scam.stages=none"]), environment={})
    said = []
    found = read_training_set(find_layout(synthetic), resolved, said.append)
    assert found.clusters.max() < len(found.scenes) and any("clusters" in line for line in said)
    assert config_as_used(Config(), found).clusters.count == len(found.scenes)
    few = unflatten({"clusters.count": 3})
    assert config_as_used(few, found) == few


def test_the_published_pool_of_sirst(sirst):
    found, _ = prepared(sirst, "data.holdout=0.0", "labels.seed=edges", "labels.pool=reliable")
    resolved = resolve("quick", flags=parse_settings(["labels.seed=edges", "labels.pool=reliable"]), environment={})
    members = PseudoMasks.start(resolved.config, found).members
    assert len(members) == 103
    assert sum(len(found.scenes[i].points) for i in members) == 129
    assert sum(int(found.seeds[i].succeeded.sum()) for i in members) == 128
    assert sum(int(found.seeds[i].mask.sum()) for i in members) == 2439
    assert (found.normalisation.mean, found.normalisation.std) == pytest.approx((0.4339, 0.1152), abs=5e-5)


def test_groups_are_held_out_whole(synthetic, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(synthetic, copy)
    names_of_training = find_layout(copy).splits["train"]
    groups = {name: f"g{i // 3}" for i, name in enumerate(names_of_training)}
    (copy / "groups.csv").write_text("name,group\n" + "".join(f"{name},{group}\n" for name, group in groups.items()))
    found, said = prepared(copy, "data.holdout=0.3")
    held = {groups[name] for name in names(found, found.holdout_indices)}
    assert held and not held & {groups[name] for name in names(found, found.train_indices)}
    assert any("groups.csv: 6 groups of 18 images, which stay together" in line for line in said)


@pytest.mark.parametrize(
    ("settings", "keys"),
    [
        (["labels.evolve_every=3"], "labels.evolve_every: without effect"),
        (["labels.evolve_after=0.5", "labels.evolve_every=3"], "labels.evolve_after, labels.evolve_every: without"),
        (["labels.evolve_every=3", "labels.refine=evolve"], None),
        (["labels.evolve_every=3", "labels.pool=reliable"], None),
        (["labels.evolve_every=3", "data.hard_crops=0.1"], None),
        ([], None),
    ],
)
def test_settings_of_an_evolution_that_does_not_take_place_are_named(synthetic, settings, keys):
    _, said = prepared(synthetic, "labels.seed=contrast", *settings)
    found = [line for line in said if "without effect" in line]
    assert len(found) == (keys is not None)
    assert not found or found[0].startswith(keys)


def test_training_says_what_the_check_says(synthetic, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(synthetic, copy)
    (copy / "images/notes.doc").write_text("x")
    _, said = prepared(copy)
    assert main(["data", "check", str(copy)]) == 0
    checked = capsys.readouterr().out.splitlines()
    assert said[0] == checked[0] and said[0].startswith(
        "splits of mode/test.txt, mode/train.txt, mode/val.txt: 18 train"
    )
    assert "images/: 1 file (1 .doc) not read" in said and set(said) & {*checked} >= {*said[:4]}


def test_what_is_not_read_does_not_stop_a_run(synthetic, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(synthetic, copy)
    (copy / "images/.hidden.png").symlink_to("nowhere")
    (copy / "masks_centroid/Thumbs.db").write_bytes(b"x")
    assert check_dataset(copy) == []
    resolved = resolve("quick", flags=parse_settings(LIGHT), environment={})
    read_training_set(find_layout(copy), resolved, lambda _: None, tmp_path / "cache")
