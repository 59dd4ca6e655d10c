"""From image statistics to clusters of images, whose weights the outer objective learns (method, section 8)."""

import warnings

import numpy as np
from threadpoolctl import threadpool_limits

from semprior.errors import UserError

CLUSTERS_VERSION = 1  # raise it when clusters of the same statistics change: cached clusters are keyed by it
LEAST_VARIANCE = 1e-10  # columns at or below it say nothing
CORRELATED = 0.95  # of two columns with at least this |r| one goes
EXPLAINED = 0.90  # share of the variance that the principal components keep
FEWEST_COMPONENTS, MOST_COMPONENTS = 2, 20
KEPT_FEATURES = 32  # that tell most about the first clusters


def capped_count(requested: int, images: int, *, explicit: bool) -> tuple[int, str | None]:
    """The number of clusters to make of so many images.

    Args:
        requested: the configured count, at least 1.
        images: how many images there are to cluster, at least 1.
        explicit: whether the user chose the count, rather than a preset.

    Returns:
        The count, and a sentence to show if it is not the requested one, else None.

    Raises:
        UserError: if the user's own count exceeds the number of images.
    """
    if requested <= images:
        return requested, None
    if explicit:
        raise UserError(f"clusters.count: {requested} clusters of {images} images; give a count from 1 to {images}")
    return images, f"clusters.count: the preset's {requested} clusters are capped at the {images} images there are."


def cluster(statistics: np.ndarray, count: int, seed: int = 1) -> np.ndarray:
    """Cluster images by their statistics, in two rounds (method, section 8).

    Missing values become their column's median. Then, twice: drop columns without variance and the weaker of every two
    correlated ones (`uncorrelated_columns`), standardise, keep the fewest principal components that explain 90 % (2
    to 20), and run k-means once. The second round starts from the 32 columns whose mutual information with the labels
    of the first is highest; its labels count.

    Images of equal statistics always share a cluster, so that there may be fewer clusters than asked for.
    The result depends on the arguments alone, not on the number of threads.

    Args:
        statistics: (n, features) float, NaN (or infinite) where missing; rows are images.
        count: clusters to make, 1 to n. With 1 all images are in cluster 0 and nothing is computed.
        seed: of k-means and of the tie-breaking noise of the mutual information.

    Returns:
        (n,) int64, from 0 to the number of clusters less 1, none empty, numbered as they first appear.

    Raises:
        ValueError: for another shape, or a count below 1 or above n.
    """
    if statistics.ndim != 2:
        raise ValueError(f"expected (images, features) statistics, got shape {statistics.shape}")
    images = len(statistics)
    if not 1 <= count <= images:
        raise ValueError(f"{count} clusters of {images} images; expected 1 to {images}")
    if count == 1:
        return np.zeros(images, np.int64)
    with threadpool_limits(limits=1):
        filled = fill_missing(statistics)
        features = filled[:, uncorrelated_columns(filled)]
        labels = _partition(features, count, seed)
        best = _informative_columns(features, labels, seed)
        if best is not None:
            features = features[:, best]
            labels = _partition(features[:, uncorrelated_columns(features)], count, seed)
    return labels


def fill_missing(statistics: np.ndarray) -> np.ndarray:
    """A (n, features) float64 copy in which what is not finite is its column's median, 0 in a column with no value."""
    filled = np.where(np.isfinite(statistics), statistics, np.nan).astype(np.float64)
    known = ~np.isnan(filled).all(axis=0)
    medians = np.zeros(filled.shape[1])
    medians[known] = np.nanmedian(filled[:, known], axis=0)
    return np.where(np.isnan(filled), medians, filled)


def uncorrelated_columns(features: np.ndarray) -> np.ndarray:
    """Columns that vary and are not nearly a multiple of another.

    Going through the pairs of columns with |r| >= 0.95 in descending order of |r|, drop the one with the smaller raw
    variance of every pair of which both are still there; of equals, the later column.

    Args:
        features: (n, features) float64, finite.

    Returns:
        (kept,) int64 column indices, ascending; the columns with a variance of at most 1e-10 are not among them.
    """
    variance = features.var(axis=0)
    varied = np.flatnonzero(variance > LEAST_VARIANCE)
    if len(varied) < 2:
        return varied
    correlation = np.abs(np.corrcoef(features[:, varied], rowvar=False))
    first, second = np.triu_indices(len(varied), 1)
    strength = correlation[first, second]
    order = np.argsort(-strength, kind="stable")
    kept = np.ones(len(varied), bool)
    for pair in order[strength[order] >= CORRELATED]:
        one, other = first[pair], second[pair]
        if kept[one] and kept[other]:
            kept[other if variance[varied[one]] >= variance[varied[other]] else one] = False
    return varied[kept]


def principal_components(features: np.ndarray) -> np.ndarray:
    """Standardised features on the fewest principal components that explain 90 % of their variance.

    Args:
        features: (n, features) float64, finite, every column of some variance.

    Returns:
        (n, components) float64; 2 to 20 components, or as many as the data has where that is fewer.
    """
    from sklearn.decomposition import PCA  # seconds, like the others: only where images are clustered

    standardised = (features - features.mean(axis=0)) / features.std(axis=0)
    pca = PCA(svd_solver="full").fit(standardised)
    reached = np.cumsum(pca.explained_variance_ratio_)
    fewest = int(np.searchsorted(reached, EXPLAINED - 1e-12)) + 1  # 90 % but for rounding is 90 %
    return pca.transform(standardised)[:, : min(max(fewest, FEWEST_COMPONENTS), MOST_COMPONENTS)]


def _partition(features: np.ndarray, count: int, seed: int) -> np.ndarray:
    """(n,) labels of k-means on the principal components of (n, features) columns."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    distinct, first, member = np.unique(features, axis=0, return_index=True, return_inverse=True)
    if not features.shape[1] or len(distinct) == 1:
        return np.zeros(len(features), np.int64)
    # Equal images get the same point to the last bit, whatever the blocking of the matrix product.
    points = principal_components(features)[first][member.reshape(-1)]
    kmeans = KMeans(n_clusters=min(count, len(distinct)), n_init=1, random_state=seed)
    with warnings.catch_warnings():
        # It warns where points that differ by less than rounding leave clusters empty: fewer clusters, as documented.
        warnings.simplefilter("ignore", ConvergenceWarning)
        labels = kmeans.fit_predict(points)
    _, appearance, number = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(appearance))[number].astype(np.int64)


def _informative_columns(features: np.ndarray, labels: np.ndarray, seed: int) -> np.ndarray | None:
    """Ascending indices of the columns that tell most about the labels; None where there is nothing to choose.

    The estimate of the mutual information rests on neighbours of the same label and leaves out images that are alone in
    theirs. Where all are, no column is better than another.
    """
    from sklearn.feature_selection import mutual_info_classif

    together = np.bincount(labels)[labels] > 1
    if features.shape[1] <= KEPT_FEATURES or not together.any():
        return None
    information = mutual_info_classif(features[together], labels[together], random_state=seed)
    return np.sort(np.argsort(-information, kind="stable")[:KEPT_FEATURES])
