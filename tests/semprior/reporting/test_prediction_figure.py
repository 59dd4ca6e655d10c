"""Pictures of a run: what they show, and that looking changes nothing."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from semprior.config.schema import parse_settings, resolve
from semprior.data.layout import find_layout
from semprior.foundation.feature_source import Features
from semprior.reporting.prediction_figure import FigureRow, choose_images, draw_figure, figure_rows, write_figure
from semprior.training.prepare import read_training_set
from semprior.training.trainer import Trainer
from tests.tiny import SETTINGS, write_dataset

pytestmark = pytest.mark.trains


def figure_row(size=(90, 70), points=((80, 3),), **parts):
    shape = {"first": None, "evolved": None, "truth": None, **parts}
    probability = np.zeros(size, np.float32)
    return FigureRow("scene", np.zeros(size, np.uint8), np.array(points).reshape(-1, 2), teacher=probability,
                 student=probability, **shape)  # fmt: skip


@pytest.fixture(scope="module")
def training_set(tmp_path_factory):
    data = write_dataset(tmp_path_factory.mktemp("panels") / "data")
    resolved = resolve(flags=parse_settings(SETTINGS), environment={})
    return resolved.config, read_training_set(find_layout(data), resolved, lambda _: None)


def trainer(training_set):
    return Trainer(*training_set, Features(None, None), torch.device("cpu"))


def test_a_name_in_a_figure_is_text():
    """Matplotlib would read what stands between dollars as a formula, and fail at an unknown command."""
    row = figure_row()
    for name in (r"$\nosuchcommand$", "$x^2$", "a$\x1b[2J"):
        assert draw_figure([replace(row, name=name)]).shape == draw_figure([row]).shape


def test_looking_at_a_run_changes_nothing_in_it(training_set):
    watched, alone = trainer(training_set), trainer(training_set)
    for epoch, (_, _) in enumerate(zip(watched.run(), alone.run(), strict=True)):
        figure_rows(watched, choose_images(watched))
        if epoch == 2:
            break
    found, expected = watched.snapshot(), alone.snapshot()
    assert found.values == expected.values
    for file, tensors in expected.tensors.items():
        for name, tensor in tensors.items():
            assert torch.equal(found.tensors[file][name], tensor), name


def test_strips_are_the_state_of_the_run(training_set):
    run = trainer(training_set)
    held, learned = training_set[1].holdout_indices[0], 0
    truth = np.ones((80, 80), bool)
    first, second = figure_rows(run, [held, learned], {training_set[1].scenes[learned].name: truth})
    assert first.evolved is None  # labels of held-out images do not evolve
    assert first.truth is training_set[1].scenes[held].mask
    assert np.array_equal(second.evolved, run.pseudo_masks.soft[learned])
    assert np.array_equal(second.first, training_set[1].seeds[learned].mask)
    assert np.array_equal(second.teacher, second.student)  # nothing is modulated


def test_masks_that_are_not_refined_are_not_shown_again(training_set):
    config, images = training_set
    unrefined = replace(config, labels=replace(config.labels, refine="none"))
    (row,) = figure_rows(trainer((unrefined, images)), [0])
    assert row.evolved is None


def test_what_is_watched_has_targets_and_is_held_out_by_half(training_set):
    run = trainer(training_set)
    chosen = choose_images(run)
    assert len(set(chosen)) == len(chosen) == 4
    assert sum(index in training_set[1].holdout_indices for index in chosen) == 2
    assert choose_images(run) == chosen


@pytest.mark.parametrize("points", [(), ((80, 3),), ((0, 69), (5, 5))])
def test_a_picture_of_any_strips(tmp_path, points):
    mask = np.ones((90, 70), bool)
    full = figure_row(points=points, first=mask, evolved=mask.astype(np.uint8) * 255, truth=mask)
    picture = draw_figure([full, figure_row(size=(20, 30), points=())])
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3
    assert draw_figure([figure_row()]).shape[1] < picture.shape[1]  # columns that nothing fills are left out
    write_figure(tmp_path / "picture.png", [full])
    assert cv2.imread(str(tmp_path / "picture.png")) is not None
