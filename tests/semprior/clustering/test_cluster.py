"""Clusters of images: planted clusters are found, every count works, and columns are filtered as by a plain version."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score
from threadpoolctl import threadpool_limits

from semprior.clustering import cluster as clusters
from semprior.clustering.cluster import capped_count, cluster, fill_missing, principal_components, uncorrelated_columns
from semprior.errors import UserError


def planted(groups: int, members: int, features: int = 55, spread: float = 0.05, seed: int = 0):
    """Statistics (groups x members, features) around well separated centres, and the group of each row, shuffled."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(groups, features))
    group = rng.permutation(np.repeat(np.arange(groups), members))
    scale = 10.0 ** rng.uniform(-3, 3, features)  # statistics have different units
    return (centres[group] + spread * rng.normal(size=(len(group), features))) * scale, group


def check(labels: np.ndarray, images: int, count: int) -> None:
    assert labels.shape == (images,)
    assert labels.dtype == np.int64
    found = np.unique(labels)
    np.testing.assert_array_equal(found, np.arange(len(found)))
    assert len(found) <= count
    first = [np.flatnonzero(labels == label)[0] for label in found]
    assert first == sorted(first)


@pytest.mark.parametrize("groups", [2, 4])
def test_planted_clusters_are_found(groups):
    statistics, group = planted(groups, 15)
    labels = cluster(statistics, groups)
    check(labels, len(group), groups)
    assert adjusted_rand_score(group, labels) == 1


def test_the_second_round_selects_the_most_informative_columns():
    rng = np.random.default_rng(1)
    labels = rng.permutation(np.repeat(np.arange(3), 20))
    features = rng.normal(size=(60, 52))
    telling = rng.permutation(52)[:12]
    for column in telling:
        features[:, column] += 4 * rng.permutation(3)[labels]
    selected = clusters._informative_columns(features, labels, seed=1)
    assert len(selected) == 32
    assert (np.diff(selected) > 0).all()
    assert set(telling) <= set(selected)


def test_no_columns_are_selected_of_few_or_if_every_image_is_alone():
    features = np.random.default_rng(2).normal(size=(40, 50))
    assert clusters._informative_columns(features[:, :32], np.arange(40) % 4, seed=1) is None
    assert clusters._informative_columns(features, np.arange(40), seed=1) is None


@pytest.mark.parametrize("images", [1, 2, 3, 5, 12])
def test_every_count_from_one_to_the_number_of_images(images):
    statistics = np.random.default_rng(images).normal(size=(images, 55))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for count in range(1, images + 1):
            labels = cluster(statistics, count)
            check(labels, images, count)
            assert labels.max() == count - 1


@pytest.mark.parametrize("count", [1, 2, 7, 30, 59, 60])
def test_counts_of_more_images_than_features(count):
    statistics, _ = planted(6, 10, spread=0.5)
    labels = cluster(statistics, count)
    check(labels, 60, count)
    assert labels.max() == count - 1


def test_one_cluster_is_zeros_even_without_any_value():
    np.testing.assert_array_equal(cluster(np.full((4, 55), np.nan), 1), np.zeros(4))


@pytest.mark.parametrize("count", [0, -1, 6])
def test_other_counts_are_refused(count):
    with pytest.raises(ValueError, match="expected 1 to 5"):
        cluster(np.zeros((5, 55)), count)


def test_a_wrong_shape_is_refused():
    with pytest.raises(ValueError, match="shape"):
        cluster(np.zeros(5), 1)


@pytest.mark.parametrize("count", [2, 5, 9, 12])
def test_equal_images_share_a_cluster(count):
    distinct = np.random.default_rng(3).normal(size=(5, 55))
    which = np.array([0, 1, 2, 3, 4, 0, 1, 2, 0, 0, 4, 4])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        labels = cluster(distinct[which], count)
    check(labels, 12, count)
    assert labels.max() == min(count, 5) - 1
    for image in range(5):
        assert len(np.unique(labels[which == image])) == 1


@pytest.mark.parametrize("count", [2, 4])
def test_images_that_are_all_the_same(count):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(cluster(np.ones((4, 55)), count), np.zeros(4))
        np.testing.assert_array_equal(cluster(np.full((4, 55), np.nan), count), np.zeros(4))


def test_images_that_differ_by_less_than_rounding():
    statistics = np.ones((8, 55)) + np.spacing(1.0) * np.random.default_rng(0).integers(0, 2, (8, 55))
    statistics[:4, 0] = 7
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        labels = cluster(statistics, 8)
    check(labels, 8, 8)
    assert set(labels[:4]).isdisjoint(labels[4:])


@given(st.integers(0, 2**32 - 1), st.integers(1, 14), st.integers(1, 6), st.data())
@settings(max_examples=30, deadline=None)
def test_any_statistics_give_labels(seed, images, levels, data):
    """Columns of few values: constant, equal, opposite and missing ones, and equal images."""
    rng = np.random.default_rng(seed)
    statistics = rng.integers(0, levels, (images, 8)).astype(float)
    statistics[rng.random(statistics.shape) < 0.1] = np.nan
    count = data.draw(st.integers(1, images))
    labels = cluster(statistics, count)
    check(labels, images, count)


def test_missing_values_become_the_median():
    statistics = np.array([[1.0, np.nan, np.inf], [np.nan, np.nan, 4], [3, np.nan, 6], [9, np.nan, 11]])
    given = statistics.copy()
    filled = fill_missing(statistics)
    np.testing.assert_array_equal(filled, [[1, 0, 6], [3, 0, 4], [3, 0, 6], [9, 0, 11]])
    np.testing.assert_array_equal(statistics, given)


def test_missing_values_do_not_change_planted_clusters():
    statistics, group = planted(3, 20)
    statistics[np.random.default_rng(5).random(statistics.shape) < 0.03] = np.nan
    statistics[:, 4] = np.nan
    assert adjusted_rand_score(group, cluster(statistics, 3)) == 1


def plain_filter(features):
    """Plain version: drop constant columns, then examine all pairs in descending order of correlation."""
    selected = [column for column in range(features.shape[1]) if features[:, column].var() > 1e-10]
    pairs = []
    for position, one in enumerate(selected):
        for other in selected[position + 1 :]:
            strength = abs(np.corrcoef(features[:, one], features[:, other])[0, 1])
            if strength >= 0.95:
                pairs.append((strength, one, other))
    for _, one, other in sorted(pairs, key=lambda pair: -pair[0]):
        if one in selected and other in selected:
            selected.remove(other if features[:, one].var() >= features[:, other].var() else one)
    return selected


@pytest.mark.parametrize("seed", range(10))
def test_correlated_columns_against_a_plain_version(seed):
    rng = np.random.default_rng(seed)
    sources = rng.normal(size=(50, 6))
    mixed = sources[:, rng.integers(0, 6, 25)] * rng.choice([-1, 1], 25) + rng.normal(size=(50, 25)) * rng.uniform(
        0, 0.6, 25
    )
    mixed *= 10.0 ** rng.uniform(-2, 2, 25)
    mixed[:, 3] = 5
    selected = uncorrelated_columns(mixed)
    assert selected.tolist() == plain_filter(mixed)
    assert 6 <= len(selected) < 24
    left = np.abs(np.corrcoef(mixed[:, selected], rowvar=False))
    assert (left[~np.eye(len(selected), dtype=bool)] < 0.95).all()


def test_of_two_correlated_columns_the_one_of_larger_raw_variance_stays():
    column = np.random.default_rng(0).normal(size=30)
    assert uncorrelated_columns(np.stack([column, -3 * column, 2 * column], axis=1)).tolist() == [1]
    assert uncorrelated_columns(np.stack([column, column + 5], axis=1)).tolist() == [0]
    assert uncorrelated_columns(np.stack([column, 1e-6 * column], axis=1)).tolist() == [0]  # below 1e-10
    assert uncorrelated_columns(np.ones((30, 4))).tolist() == []


def test_the_strongest_pair_is_filtered_first():
    """The middle column correlates with the left one and more with the right one, which replaces it."""
    rng = np.random.default_rng(0)
    a, b, c = np.linalg.qr(rng.normal(size=(200, 3)))[0].T
    columns = np.stack([a + 0.27 * b, a, 2 * (a - 0.2 * c)], axis=1)
    correlation = np.abs(np.corrcoef(columns, rowvar=False))
    assert correlation[1, 2] > correlation[0, 1] >= 0.95 > correlation[0, 2]
    assert uncorrelated_columns(columns).tolist() == [0, 2]


@pytest.mark.parametrize(("ranks", "expected"), [(1, 2), (5, 5), (40, 20)])
def test_principal_components_reach_ninety_percent_in_2_to_20(ranks, expected):
    rng = np.random.default_rng(ranks)
    basis = np.linalg.qr(rng.normal(size=(300, ranks)))[0]
    features = np.repeat(basis - basis.mean(axis=0), 2, axis=1) + 1e-4 * rng.normal(size=(300, 2 * ranks))
    points = principal_components(features)
    assert points.shape == (300, expected)
    standardised = (features - features.mean(axis=0)) / features.std(axis=0)
    explained = points.var(axis=0).sum() / standardised.var(axis=0).sum()
    assert ranks == 40 or explained >= 0.9
    assert ranks != 5 or points[:, :-1].var(axis=0).sum() / standardised.var(axis=0).sum() < 0.9


def test_independent_of_threads_and_of_the_global_generator():
    statistics, _ = planted(6, 50, features=10, spread=1.0)  # more than the 256 rows of a chunk of k-means
    expected = cluster(statistics, 8)
    for threads in (1, 2):
        np.random.seed(threads)
        with threadpool_limits(limits=threads):
            np.testing.assert_array_equal(cluster(statistics, 8), expected)
    assert not np.array_equal(cluster(statistics, 8, seed=2), expected)


def test_the_argument_is_not_changed():
    statistics, _ = planted(3, 5)
    statistics[0, 0] = np.nan
    given = statistics.copy()
    cluster(statistics, 3)
    np.testing.assert_array_equal(statistics, given)


def test_a_count_that_fits_is_taken():
    assert capped_count(5, 5, explicit=True) == (5, None)
    assert capped_count(1, 5, explicit=False) == (1, None)


def test_a_preset_is_capped_and_says_so():
    count, sentence = capped_count(256, 213, explicit=False)
    assert count == 213
    assert "256" in sentence
    assert "213" in sentence


def test_the_users_own_count_above_the_images_is_refused():
    with pytest.raises(UserError, match=r"^clusters\.count: 256 .* 213") as refused:
        capped_count(256, 213, explicit=True)
    assert "\n" not in str(refused.value)
