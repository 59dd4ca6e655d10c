"""Seeded splits and holdouts depend on names and seed alone."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semprior.data.images import IntensityRange
from semprior.data.layout import find_layout, read_scenes
from semprior.data.splits import split_holdout
from semprior.errors import UserError


def test_without_split_files_a_seeded_split_is_made(tiny_dataset, tmp_path):
    layout = find_layout(tiny_dataset(None, count=20))
    again = find_layout(tiny_dataset(None, count=20, suffix=".bmp", root=tmp_path / "again"))
    assert layout.splits == again.splits
    assert {split: len(names) for split, names in layout.splits.items()} == {"train": 12, "val": 4, "test": 4}
    assert sorted(sum(layout.splits.values(), ())) == sorted(f"Tiny_{i}" for i in range(20))
    assert len(read_scenes(layout, "val", IntensityRange())) == 4


def test_the_smallest_set_that_can_be_split(tiny_dataset, tmp_path):
    assert all(len(names) == 1 for names in find_layout(tiny_dataset(None, count=3)).splits.values())
    with pytest.raises(UserError, match="2 images are too few to split"):
        find_layout(tiny_dataset(None, count=2, root=tmp_path / "two"))


def test_a_missing_validation_split_is_taken_from_training(tiny_dataset, tmp_path):
    layout = find_layout(tiny_dataset((("train", 15), ("test", 3))))
    assert {split: len(names) for split, names in layout.splits.items()} == {"train": 12, "val": 3, "test": 3}
    assert {*layout.splits["train"], *layout.splits["val"]} == {f"Tiny_{i}" for i in range(15)}
    root = tiny_dataset((("train", 15), ("test", 3)), root=tmp_path / "reversed")
    lines = (root / "mode/train.txt").read_text().split()
    (root / "mode/train.txt").write_text("\n".join(reversed(lines)))
    assert set(find_layout(root).splits["val"]) == set(layout.splits["val"])


def test_the_file_named_exactly_after_its_split_counts(tiny_dataset):
    root = tiny_dataset()
    (root / "mode/trainval.txt").write_text("Tiny_0\n")
    assert len(find_layout(root).splits["train"]) == 6


def named(points):
    return [f"image {i}" for i in range(len(points))]


def chosen(names, points, fraction, seed):
    training, held_out = split_holdout(names, points, fraction, seed)
    assert training == sorted(training) and held_out == sorted(held_out)
    assert sorted(training + held_out) == list(range(len(names)))
    return {names[i] for i in held_out}


@settings(deadline=None, max_examples=60)
@given(
    points=st.lists(st.integers(0, 4), min_size=1, max_size=60),
    fraction=st.floats(0, 0.95),
    seed=st.integers(0, 5),
    order=st.randoms(),
)
def test_holdout_is_stratified_and_independent_of_order(points, fraction, seed, order):
    names = named(points)
    held_out = chosen(names, points, fraction, seed)
    assert len(held_out) == min(round(fraction * len(names)), len(names) - 1)
    for count in set(points):
        members = {name for name, n in zip(names, points, strict=True) if n == count}
        share = len(held_out) * len(members) / len(names)
        assert share - 1 < len(held_out & members) < share + 1
    shuffled = list(range(len(names)))
    order.shuffle(shuffled)
    assert held_out == chosen([names[i] for i in shuffled], [points[i] for i in shuffled], fraction, seed)


def test_holdout_of_nothing_and_by_seed():
    points = [1] * 100
    assert split_holdout(named(points), points, 0.0, 0) == (list(range(100)), [])
    assert split_holdout([], [], 0.15, 0) == ([], [])
    held_out = [chosen(named(points), points, 0.15, seed) for seed in range(4)]
    assert all(len(names) == 15 for names in held_out)
    assert len({frozenset(names) for names in held_out}) == 4
    often = sum("image 3" in chosen(named(points), points, 0.15, seed) for seed in range(200))
    assert 15 <= often <= 50  # 30 expected


def test_a_larger_holdout_contains_the_smaller_one():
    points = [1] * 70 + [2] * 20 + [3] * 10
    assert chosen(named(points), points, 0.1, 3) < chosen(named(points), points, 0.2, 3)


def test_holdout_of_sirst(sirst):
    scenes = read_scenes(find_layout(sirst), "train", IntensityRange())
    training, held_out = split_holdout([s.name for s in scenes], [len(s.points) for s in scenes], 0.15, 0)
    assert (len(training), len(held_out)) == (145, 26)
    with_one = sum(len(scene.points) == 1 for scene in scenes) / len(scenes)
    assert abs(sum(len(scenes[i].points) == 1 for i in held_out) - with_one * 26) < 1
