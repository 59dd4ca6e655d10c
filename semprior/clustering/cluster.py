"""From image statistics to clusters of images, whose weights the outer objective learns (method, section 8)."""

import warnings

import numpy as np
from threadpoolctl import threadpool_limits

from semprior.errors import UserError

CLUSTERS_VERSION = 1  # increase it when clusters of the same statistics change: it keys cached clusters
LEAST_VARIANCE = 1e-10  # columns at or below it are dropped
CORRELATED = 0.95  # of two columns with at least this |r|, one is dropped
EXPLAINED = 0.90  # share of the variance that the principal components explain
FEWEST_COMPONENTS, MOST_COMPONENTS = 2, 20
SELECTED_FEATURES = 32  # those with the highest mutual information with the first clusters


def capped_count(requested: int, images: int, *, explicit: bool) -> tuple[int, str | None]:
    """The number of clusters, which cannot exceed the number of images.

    Args:
        requested: the configured number, at least 1.
        images: number of images to cluster, at least 1.
        explicit: whether the user chose the number, rather than a preset.

    Returns:
        The number, and a sentence for the user if it is not the requested one, else None.

    Raises:
        UserError: the user's own number exceeds the number of images.
    """
    if requested <= images:
        return requested, None
    if explicit:
        raise UserError(f"clusters.count: {requested} clusters of {images} images; give a count from 1 to {images}")
    return images, f"clusters.count: the preset's {requested} clusters are capped at the {images} images there are."


def cluster(statistics: np.ndarray, count: int, seed: int = 1) -> np.ndarray:
    """Cluster images by their statistics, in two rounds (method, section 8).

    Missing values become the median of their column. Each round drops columns without variance and the weaker one of
    every two correlated columns (`uncorrelated_columns`), standardises, takes the fewest principal components that
    explain 90% of the variance (2 to 20), and runs k-means once. The second round starts from the 32 columns whose
    mutual information with the labels of the first is highest; its labels are the result.

    Images with equal statistics always share a cluster, so that there may be fewer clusters than requested. The result
    depends on the arguments alone, not on the number of threads.

    Args:
        statistics: (n, features) float, a row per image; missing values are NaN or infinite.
        count: number of clusters, 1 to n; with 1, all images are in cluster 0 and nothing is computed.
        seed: of k-means and of the tie-breaking noise of the mutual information.

    Returns:
        (n,) int64 cluster indices from 0, without gaps, in the order of their first appearance.

    Raises:
        ValueError: the shape is another one, or the count is below 1 or above n.
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
    """A (n, features) float64 copy in which non-finite values are the median of their column (0 if it has no value)."""
    filled = np.where(np.isfinite(statistics), statistics, np.nan).astype(np.float64)
    known = ~np.isnan(filled).all(axis=0)
    medians = np.zeros(filled.shape[1])
    medians[known] = np.nanmedian(filled[:, known], axis=0)
    return np.where(np.isnan(filled), medians, filled)


def uncorrelated_columns(features: np.ndarray) -> np.ndarray:
    """Columns that vary and are not strongly correlated with another.

    Of every pair of columns with |r| >= 0.95, in descending order of |r|, the one with the smaller variance is dropped
    unless one of them has been dropped before; of equal variances, the later column.

    Args:
        features: (n, features) float64, finite.

    Returns:
        (selected,) int64 column indices, ascending, without the columns of a variance of at most 1e-10.
    """
    variance = features.var(axis=0)
    varied = np.flatnonzero(variance > LEAST_VARIANCE)
    if len(varied) < 2:
        return varied
    correlation = np.abs(np.corrcoef(features[:, varied], rowvar=False))
    first, second = np.triu_indices(len(varied), 1)
    strength = correlation[first, second]
    order = np.argsort(-strength, kind="stable")
    selected = np.ones(len(varied), bool)
    for pair in order[strength[order] >= CORRELATED]:
        one, other = first[pair], second[pair]
        if selected[one] and selected[other]:
            selected[other if variance[varied[one]] >= variance[varied[other]] else one] = False
    return varied[selected]


def principal_components(features: np.ndarray) -> np.ndarray:
    """Project standardised features on the fewest principal components that explain 90% of their variance.

    Args:
        features: (n, features) float64, finite; every column varies.

    Returns:
        (n, components) float64 with 2 to 20 components, or fewer if the data has fewer.
    """
    from sklearn.decomposition import PCA  # importing sklearn takes seconds: only where images are clustered

    standardised = (features - features.mean(axis=0)) / features.std(axis=0)
    pca = PCA(svd_solver="full").fit(standardised)
    reached = np.cumsum(pca.explained_variance_ratio_)
    fewest = int(np.searchsorted(reached, EXPLAINED - 1e-12)) + 1  # tolerates rounding
    components: np.ndarray = pca.transform(standardised)
    return components[:, : min(max(fewest, FEWEST_COMPONENTS), MOST_COMPONENTS)]


def _partition(features: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Labels (n,) by k-means on the principal components of features (n, features)."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    distinct, first, member = np.unique(features, axis=0, return_index=True, return_inverse=True)
    if not features.shape[1] or len(distinct) == 1:
        return np.zeros(len(features), np.int64)
    # Equal images get bitwise equal points, however the matrix product is blocked.
    points = principal_components(features)[first][member.reshape(-1)]
    kmeans = KMeans(n_clusters=min(count, len(distinct)), n_init=1, random_state=seed)
    with warnings.catch_warnings():
        # It warns if points that differ by less than rounding leave clusters empty: fewer clusters, as documented.
        warnings.simplefilter("ignore", ConvergenceWarning)
        labels = kmeans.fit_predict(points)
    _, appearance, number = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(appearance))[number].astype(np.int64)


def _informative_columns(features: np.ndarray, labels: np.ndarray, seed: int) -> np.ndarray | None:
    """Ascending indices of the columns with the highest mutual information with the labels; None if all are used.

    The estimate compares neighbours with the same label and omits images that are alone in their cluster. If all are,
    no column is better than another.
    """
    from sklearn.feature_selection import mutual_info_classif

    together = np.bincount(labels)[labels] > 1
    if features.shape[1] <= SELECTED_FEATURES or not together.any():
        return None
    information = mutual_info_classif(features[together], labels[together], random_state=seed)
    return np.sort(np.argsort(-information, kind="stable")[:SELECTED_FEATURES])
