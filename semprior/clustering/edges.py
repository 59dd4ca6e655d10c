"""Statistics of the gradient: sharpness, orientation, edges and corners."""

from math import hypot, log2, nan, pi

import cv2
import numpy as np

from semprior.clustering.common import Gradient, entropy_bits, mean_and_variance, quotient, slope

ORIENTATIONS = 8  # bins of the orientation histogram over half a turn
CORNER_SIDE = 5  # window of the structure tensor, pixels
CORNER_STRENGTH = 2.0  # root of the tensor's smaller eigenvalue that makes a corner, grey levels per pixel
BOX_SIDES = (1, 2, 4, 8, 16, 32)  # pixels


def edge_statistics(image: np.ndarray, gradient: Gradient) -> dict[str, float]:
    """Statistics of the gradient and the edges of a picture (method, section 8).

    Args:
        image: (H, W) uint8.
        gradient: of the same picture, from `common.gradient`.

    Returns:
        - ``laplacian_variance``: variance of the 4-neighbour Laplacian, grey levels squared.
        - ``tenengrad``: mean squared gradient magnitude, (grey levels per pixel) squared.
        - ``orientation_entropy``: entropy of the gradient orientations (without sign) in 8 bins over half a turn, the
          first centred on horizontal gradients, weighted by magnitude; 0 to 1 (even); NaN without any gradient.
        - ``orientation_coherence``: ``|sum m^2 exp(2 i angle)| / sum m^2``, 0 (all directions) to 1 (one);
          NaN without any gradient.
        - ``edge_density``, ``corner_density``: edge pixels and corners as shares of all pixels. A corner is a
          3x3 maximum of the smaller eigenvalue of the structure tensor (mean over 5x5), its root above 2 grey levels
          per pixel.
        - ``edge_anisotropy``: ``|mean exp(2 i angle)|`` of the gradient at edge pixels, 0 to 1; NaN without edges.
        - ``edge_gradient``: mean gradient magnitude at edge pixels, grey levels per pixel; NaN without edges.
        - ``edge_dimension``: box-counting dimension of the edge pixels, see `box_dimension`.
    """
    edges = gradient.edges
    mean_xx, mean_yy = (cv2.norm(part, cv2.NORM_L2SQR) / edges.size for part in (gradient.across, gradient.down))
    mean_xy = cv2.mean(gradient.across * gradient.down)[0]
    laplacian = cv2.Laplacian(image, cv2.CV_16S, borderType=cv2.BORDER_REFLECT_101)
    positions = np.flatnonzero(edges)
    across, down, strength = (
        field.ravel()[positions] for field in (gradient.across, gradient.down, gradient.magnitude)
    )
    # exp(2 i angle) = (across + i down)^2 / magnitude^2; an edge pixel has a magnitude above 5.
    turned = ((across + 1j * down) / strength) ** 2
    return {
        "laplacian_variance": mean_and_variance(laplacian)[1],
        "tenengrad": mean_xx + mean_yy,
        "orientation_entropy": _orientation_entropy(gradient),
        "orientation_coherence": quotient(hypot(mean_xx - mean_yy, 2 * mean_xy), mean_xx + mean_yy),
        "edge_density": strength.size / edges.size,
        "corner_density": _corners(image) / edges.size,
        "edge_anisotropy": float(abs(turned.mean(dtype=np.complex128))) if strength.size else nan,
        "edge_gradient": float(strength.mean(dtype=np.float64)) if strength.size else nan,
        "edge_dimension": box_dimension(edges),
    }


def box_dimension(mask: np.ndarray) -> float:
    """Box-counting dimension of a (H, W) bool mask: the slope of log(boxes hit) against log(1 / side).

    Boxes have sides of 1, 2, 4 .. 32 pixels from the upper left corner, up to half the picture's shorter side.
    NaN for an empty mask or if fewer than three sides fit.
    """
    sides = [side for side in BOX_SIDES if 2 * side <= min(mask.shape)]
    if len(sides) < 3 or not mask.any():
        return nan
    hit = mask
    counts = []
    for side in sides:
        if side > 1:
            hit = np.pad(hit, [(0, length % 2) for length in hit.shape])
            hit = hit[0::2] | hit[1::2]
            hit = hit[:, 0::2] | hit[:, 1::2]
        counts.append(np.count_nonzero(hit))
    return slope(-np.log(sides), np.log(counts))


def _orientation_entropy(gradient: Gradient) -> float:
    angles: np.ndarray = cv2.phase(gradient.across, gradient.down)
    angles *= np.float32(ORIENTATIONS / pi)
    angles += np.float32(0.5)
    bins = angles.astype(np.uint8) % np.uint8(ORIENTATIONS)
    weights = np.bincount(bins.ravel(), gradient.magnitude.ravel(), minlength=ORIENTATIONS)
    return entropy_bits(weights) / log2(ORIENTATIONS)


def _corners(image: np.ndarray) -> int:
    """Number of corners of a (H, W) uint8 picture."""
    smaller = cv2.cornerMinEigenVal(image, CORNER_SIDE, ksize=3, borderType=cv2.BORDER_REFLECT_101)
    # OpenCV's unit: half a grey value of 255 per pixel, squared.
    peaks = smaller > (CORNER_STRENGTH * 2 / 255) ** 2
    peaks &= smaller == cv2.dilate(smaller, np.ones((3, 3), np.uint8))
    return int(np.count_nonzero(peaks))
