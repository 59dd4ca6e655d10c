"""Made-up terms of evaluations, image by image, whose point score and IoU are means over the images."""

import numpy as np

from semprior.evaluation.image_sums import MASK_TERMS, POINT_TERMS, ImageSums, image_sums
from tune.comparison.stored_sums import put_sums

AREA = 1000.0


def scored_images(scores, names=None) -> ImageSums:
    """Images with these scores, (N,) each in 0..1; their IoU is half of it."""
    scores = np.asarray(scores, float)
    ones = np.ones(len(scores))
    given = {
        **{term: ones for term in (*POINT_TERMS, *MASK_TERMS)},
        **{"common_area": AREA * scores, "joint_area": AREA * ones},
        **{"intersection": AREA / 2 * scores, "union": AREA * ones},
    }
    return image_sums(names or [f"image-{number:03d}" for number in range(len(scores))], given)


def noisy_scores(value, own, number=24, common=0.1, noise=0.02):
    """(N,) scores with this mean: as hard as the images are for all, and some noise of the seed `own`."""
    hard, extra = (
        np.random.default_rng(0).normal(0, common, number),
        np.random.default_rng(own + 1).normal(0, noise, number),
    )
    return value + hard - hard.mean() + extra - extra.mean()


def store_images(storage, trial, epoch, scores, attempt=1, names=None) -> str:
    """Store such images; the SHA-256 for the record."""
    return put_sums(storage, trial, attempt, epoch, scored_images(scores, names))
