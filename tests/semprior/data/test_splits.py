"""Seeded splits and holdouts depend on names and seed alone."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semprior.data.images import IntensityRange
from semprior.data.layout import find_layout, read_scenes
from semprior.data.splits import assign_folds, split_holdout
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


LISTS = {
    "in the folder itself": ("{}.txt", "train", "test"),
    "50_50": ("50_50/{}.txt", "train", "test"),
    "idx_427": ("idx_427/{}.txt", "trainval", "test"),
    "a folder of any name": ("my lists/{}_full.txt", "trainval", "test"),
    "folders below": ("lists/fold 1/a/{}.txt", "train", "test"),
    "capitals": ("{}.TXT", "TRAIN", "TEST"),
}


@pytest.mark.parametrize("place", LISTS)
def test_lists_are_found_wherever_they_lie(tiny_dataset, place):
    pattern, *names = LISTS[place]
    root = tiny_dataset((("train", 8), ("test", 4)))
    for name, split in zip(names, ("train", "test"), strict=True):
        path = root / pattern.format(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        (root / f"mode/{split}.txt").rename(path)
    (root / "mode").rmdir()
    splits = find_layout(root).splits
    assert splits["test"] == tuple(f"Tiny_{i}" for i in range(8, 12))
    assert {*splits["train"], *splits["val"]} == {f"Tiny_{i}" for i in range(8)}


@pytest.mark.parametrize(
    ("line", "encoding"),
    [
        ("{0}\r\n", "utf-16"),
        ("{0}.png {0}.png\n", "utf-8"),
        ("images/{0}.png masks/{0}_mask.png\n", "utf-8"),
        ("images\\{0}.PNG,masks\\{0}.png\n\n\n", "utf-8-sig"),
    ],
)
def test_spellings_of_lists(tiny_dataset, line, encoding):
    root = tiny_dataset(None, count=12)
    for split, numbers in (("train", range(8)), ("test", range(8, 12))):
        content = "".join(line.format(f"Tiny_{i}") for i in numbers)
        (root / f"{split}.txt").write_bytes(content.encode(encoding))
    splits = find_layout(root).splits
    assert splits["test"] == tuple(f"Tiny_{i}" for i in range(8, 12))
    assert {*splits["train"], *splits["val"]} == {f"Tiny_{i}" for i in range(8)}


def test_training_and_validation_images_in_one_list(tiny_dataset):
    root = tiny_dataset()
    (root / "mode/trainval.txt").write_text("".join(f"Tiny_{i}\n" for i in range(9)))
    (root / "mode/train.txt").unlink()
    assert find_layout(root).splits["train"] == tuple(f"Tiny_{i}" for i in range(6))


def test_other_text_files_are_no_lists(tiny_dataset):
    root = tiny_dataset(None, count=12)
    (root / "test results.txt").write_text("IoU 0.7\nPd 0.9\n")
    (root / "notes.txt").write_text("Tiny_1 is odd\nand others\n")
    assert len(find_layout(root).splits["train"]) == 8
    assert any(
        "no lists of splits: all images are split by seed: 8 train" in line for line in find_layout(root).remarks()
    )


def grouped(root, groups):
    rows = [f"{name},{group}" for name, group in groups.items()]
    (root / "groups.csv").write_text("\n".join(["name,group", *rows]))
    return root


def test_seeded_splits_and_validation_keep_groups_together(tiny_dataset, tmp_path):
    groups = {f"Tiny_{i}": f"g{i // 4}" for i in range(40)}
    whole = find_layout(grouped(tiny_dataset(None, count=40), groups)).splits
    listed = (("train", 32), ("test", 8))
    given = find_layout(grouped(tiny_dataset(listed, root=tmp_path / "listed"), groups)).splits
    for splits in (whole, given):
        homes = {}
        for split, names in splits.items():
            for name in names:
                assert homes.setdefault(groups[name], split) == split
    assert {split: len(names) for split, names in whole.items()} == {"train": 24, "val": 8, "test": 8}
    assert {split: len(names) for split, names in given.items()} == {"train": 28, "val": 4, "test": 8}


def test_two_groups_are_too_few_to_split(tiny_dataset):
    root = grouped(tiny_dataset(None, count=12), {f"Tiny_{i}": f"g{i // 6}" for i in range(12)})
    with pytest.raises(UserError, match="2 groups of images are too few to split"):
        find_layout(root)


@settings(deadline=None, max_examples=40)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=2, max_size=20),
    fraction=st.floats(0.02, 0.6),
    seed=st.integers(0, 3),
)
def test_a_holdout_never_parts_a_group(sizes, fraction, seed):
    groups = {f"{group} {i}": f"{group}" for group, size in enumerate(sizes) for i in range(size) if group % 3}
    names = [f"{group} {i}" for group, size in enumerate(sizes) for i in range(size)]
    training, held_out = split_holdout(names, [1] * len(names), fraction, seed, groups)
    assert sorted(training + held_out) == list(range(len(names)))
    assert not {groups.get(names[i]) for i in training} & {groups.get(names[i]) for i in held_out} - {None}
    total = round(fraction * len(names))
    assert training and (not total or held_out)
    assert abs(len(held_out) - total) <= max(sizes) or len(held_out) == min(sizes)


def test_one_group_cannot_be_held_out():
    with pytest.raises(UserError, match="all training images belong to the group g"):
        split_holdout(["a", "b"], [1, 1], 0.5, 0, {"a": "g", "b": "g"})


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=6, max_size=20),
    grouped=st.booleans(),
    folds=st.integers(2, 6),
    seed=st.integers(0, 3),
    random=st.randoms(use_true_random=False),
)
def test_folds_part_the_images_and_no_group(sizes, grouped, folds, seed, random):
    names = [f"{group} {i}" for group, size in enumerate(sizes) for i in range(size)]
    groups = {name: name.split()[0] for name in names if grouped and int(name.split()[0]) % 3}
    strata = {name: (random.randint(0, 2),) for name in names}
    found = assign_folds(names, [strata[name] for name in names], folds, seed, groups)
    fold_of = dict(zip(names, found, strict=True))
    assert set(found) == set(range(folds))  # each image is in one fold, and no fold is empty
    for group in set(groups.values()):
        assert len({fold_of[name] for name in names if groups.get(name) == group}) == 1
    counts = [found.count(fold) for fold in range(folds)]
    assert max(counts) - min(counts) <= (max(sizes) if groups else 1)
    if not groups:
        for stratum in set(strata.values()):
            own = [found[i] for i, name in enumerate(names) if strata[name] == stratum]
            shares = [own.count(fold) for fold in range(folds)]
            assert max(shares) - min(shares) <= 1
    shuffled = random.sample(names, len(names))
    again = assign_folds(shuffled, [strata[name] for name in shuffled], folds, seed, groups)
    assert dict(zip(shuffled, again, strict=True)) == fold_of


def test_folds_depend_on_the_seed_and_need_images_and_groups():
    names = [f"{i}" for i in range(20)]
    strata = [(1,)] * 20
    assert assign_folds(names, strata, 5, 0) != assign_folds(names, strata, 5, 1)
    with pytest.raises(UserError, match=r"data\.folds: 20 images are too few for 21 folds"):
        assign_folds(names, strata, 21, 0)
    with pytest.raises(UserError, match=r"data\.folds: 2 groups of images are too few for 3 folds"):
        assign_folds(names, strata, 3, 0, {name: "ab"[int(name) % 2] for name in names})
