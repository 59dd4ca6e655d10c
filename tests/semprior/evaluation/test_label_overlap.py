"""Pseudo-masks are held against the true masks by the metrics' own definition, where there are any."""

import dataclasses

import numpy as np
import pytest

from semprior.data.sparse_masks import SparseMasks
from semprior.evaluation.label_overlap import label_overlap
from semprior.evaluation.metrics import count_image, summarise
from tests.semprior.training.test_trainer import training_set


@pytest.fixture(scope="module")
def images():
    """Whose validation images have no masks."""
    return training_set(masks=True)


@pytest.fixture(scope="module")
def soft(images):
    rng = np.random.default_rng(0)
    return SparseMasks.pack(
        np.where(rng.random(scene.image.shape) < 0.02, rng.integers(1, 256, scene.image.shape), 255 * seed.mask).astype(
            np.uint8
        )
        for scene, seed in zip(images.scenes, images.seeds, strict=True)
    )


def test_they_are_the_metrics_over_the_images_that_have_masks(images, soft):
    chosen = [0, 3, 4, *images.validation_indices, *images.holdout_indices]
    seen = [index for index in chosen if images.scenes[index].mask is not None]
    assert len(seen) == 3 + len(images.holdout_indices)
    expected = summarise([count_image(soft[index] > 127, images.scenes[index].mask) for index in seen])
    found = label_overlap(images, lambda index: soft[index] > 127, chosen)
    assert found == pytest.approx({"labels/iou": expected.iou, "labels/niou": expected.niou})


def test_without_masks_or_targets_there_is_nothing_to_say(images, soft):
    assert label_overlap(images, lambda index: soft[index] > 127, images.validation_indices) == {}
    assert label_overlap(images, lambda index: soft[index] > 127, []) == {}
    shape = images.scenes[0].image.shape
    scenes = [dataclasses.replace(images.scenes[0], mask=np.zeros(shape, bool)), *images.scenes[1:]]
    assert label_overlap(dataclasses.replace(images, scenes=scenes), lambda _: np.zeros(shape, bool), [0]) == {}
