"""Damaged and foreign inputs of every kind that is read: only a `UserError` of one line may come out.

    python -m benchmarks.fuzz --minutes 20

Each target makes inputs of one kind (settings, sweep files, images, manifests, ...) and reads them. Inputs are drawn by
hypothesis from fixed seeds: mostly valid ones with a few edits, since what is damaged all over is refused early. An
input fails if another exception comes out, if the message has several lines, or if reading takes more than 20 s of
processor time or 1 GB of memory. `tests/benchmarks/test_fuzz.py` runs the first round of each target.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import logging
import math
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import hypothesis
import numpy as np
import pyarrow as pa
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from benchmarks.fuzz_inputs import WORDS, edited, edited_json
from semprior.config.schema import environment_leaves, flatten, leaves, parse_settings, resolve, unflatten, variable_of
from semprior.data.annotations import find_points
from semprior.data.image_tables import read_groups, read_subsets
from semprior.data.images import decode, encode_png, intensity_range_of, read_mask
from semprior.data.importing.convert import import_dataset
from semprior.data.splits import find_splits
from semprior.deployment.load_model import checkpoint_info
from semprior.errors import UserError
from semprior.foundation.feature_file import FeatureStore
from semprior.foundation.weights import read_state_dict
from semprior.io.checkpoint import CheckpointFolder, Snapshot, find_checkpoint, load_checkpoint, save_checkpoint
from semprior.io.manifest import DamagedError
from semprior.io.push_fetch import read_manifest
from semprior.io.storage import open_storage
from semprior.reading.names import checked_name
from semprior.training.run_folder import RunFolder
from tune.launch.cluster_file import read_cluster
from tune.monitor.heartbeat import hours_before, last_heartbeat
from tune.search.search import Search
from tune.spec.start_configurations import StartFrom
from tune.spec.sweep_file import SweepSpec, load_sweep
from tune.store.record_files import file_name, write_file
from tune.store.records import RECORD_SCHEMA, SCHEMA_VERSION, Record, to_table
from tune.store.results_store import ResultsStore
from tune.store.sweeps import open_sweep, read_each

MOST_SECONDS = 20  # of processor time for one input
MOST_BYTES = 1e9  # of memory, beyond what the process had before
SWEEP = """\
name: small
data: scenes
base: {preset: quick, detector: alclnet, epochs: 45, optim: {rate: 1e-3}}
search:
  clusters.count: {int: [1, 128], log: true}
  scam.stages: {subset: all}
  scam.scale: {float: [0.05, 1.0], when: {scam.stages: nonempty}}
  optim.weight_decay: {float: [0.0, 0.1], step: 0.01}
  data.crop: {values: [96, 192]}
objective: {holdout/point_score: max}
sampler: {name: tpe, seed: 0, startup: 4}
scheduler: {name: asha, factor: 3}
budget: {trials: 12, hours: 2}
seeds: 1
resources: {workers: 1, cpus: 1, gpus: 0}
concurrent: auto
failures: {retries: 2}
storage: ./runs
"""
LISTED = (
    "name: listed\ndata: d\nconfigurations: [{clusters.count: 8}]\nobjective: {holdout/iou: max}\nbudget: {trials: 1}\n"
)
STARTED = SWEEP.replace(
    "objective: ",
    "start: [{scam.scale: 0.3}, {clusters.count: 8, scam.stages: [1, 3]}]\nconstraints: {holdout/point_fa: '<= 20'}\n"
    "objective: ",
)
CLUSTER = "cluster_name: c\nprovider: {type: local, head_ip: 10.0.0.1}\nauth: &a {ssh_user: me}\nmore: {<<: *a}\n"
CONFIG = b"epochs: 60\nscam: {scale: 0.3, stages: [1, 2]}\noptim.rate: 1e-3\n"
TABLE = b"name,x,y\na,3,4\nb,10,2\na,5.0,6\n"
NAMES = ("a", "b", "c")


@dataclass(frozen=True)
class Target:
    """One kind of input.

    Attributes:
        inputs: makes them.
        read: reads one, in an empty folder.
        share: number of examples, relative to those of other targets.
    """

    inputs: st.SearchStrategy[Any]
    read: Callable[[Any, Path], object]
    share: float = 1.0


class TooMuchError(Exception):
    """An input took too much time or memory."""


def explore(name: str, examples: int, seed: int) -> int:
    """Read inputs of one target, drawn from a seed, and return how many.

    Raises:
        TooMuchError: reading one takes too long, or too much memory.
        Exception: whatever comes out of a reader that is not a `UserError` of one line.
    """
    target, count = TARGETS[name], 0
    folder = Path(tempfile.mkdtemp(prefix="semprior-fuzz-"))
    before = _peak()

    @hypothesis.seed(seed)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(target.inputs)
    def attempt(value: Any) -> None:  # noqa: ANN401
        nonlocal count
        count += 1
        place = folder / "input"
        place.mkdir()
        try:
            with _limited_time():
                target.read(value, place)
        except UserError as error:
            if "\n" in str(error) or not str(error).strip():
                raise AssertionError(f"the message has not one line: {error}") from error
        finally:
            shutil.rmtree(place)
        if _peak() - before > MOST_BYTES:
            raise TooMuchError(f"{name}: reading took {(_peak() - before) / 1e9:.1f} GB")

    try:
        attempt()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return count


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@contextmanager
def _limited_time() -> Iterator[None]:
    """Interrupt the block after `MOST_SECONDS` of processor time, or after ten times as long if it only waits."""

    def interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
        raise TooMuchError(f"reading took more than {MOST_SECONDS} s")

    old = [signal.signal(kind, interrupt) for kind in (signal.SIGPROF, signal.SIGALRM)]
    signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
    signal.setitimer(signal.ITIMER_REAL, 10 * MOST_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for kind, handler in zip((signal.SIGPROF, signal.SIGALRM), old, strict=True):
            signal.signal(kind, handler)


# Settings


def _read_settings(given: list[tuple[str, str]], _: Path) -> None:
    flatten(resolve(flags=parse_settings([f"{key}={value}" for key, value in given]), environment={}).config)


def _read_environment(given: dict[str, str], _: Path) -> None:
    environment_leaves(given)
    resolve(environment=given)


def _read_config(content: bytes, folder: Path) -> None:
    (folder / "config.yaml").write_bytes(content)
    flatten(resolve(file=folder / "config.yaml", environment={}).config)


def _read_sweep(content: bytes, folder: Path) -> None:
    (folder / "sweep.yaml").write_bytes(content)
    _use(load_sweep(folder / "sweep.yaml", {"SEMPRIOR__SCAM__GATE_PENALTY": "0.1"}))


def _read_spec(content: bytes, _: Path) -> None:
    _use(SweepSpec.from_json(content.decode("utf-8", "replace")))


def _use(spec: SweepSpec) -> None:
    if isinstance(spec.start, StartFrom):  # `submit` makes a list of it
        spec = spec.model_copy(update={"start": ()})
    search = Search(spec)
    search.space.encoded(search.space.base_parameters())
    SweepSpec.from_json(spec.to_json())


def _read_cluster(content: bytes, folder: Path) -> None:
    (folder / "cluster.yaml").write_bytes(content)
    read_cluster(folder / "cluster.yaml")


# Data


def _read_table(content: bytes, folder: Path) -> None:
    (folder / "points.csv").write_bytes(content)
    points = find_points(folder, NAMES)
    assert points is not None
    for name in NAMES:
        points.read(name, (64, 64), _raise)


def _read_tables(given: tuple[str, bytes], folder: Path) -> None:
    name, content = given
    (folder / name).write_bytes(content)
    for read in (read_groups, read_subsets):
        read(folder, NAMES)


def _read_annotations(given: tuple[str, bytes], folder: Path) -> None:
    """Read a file beside the images of a data set, of whatever format its content is."""
    name, content = given
    (folder / "images").mkdir()
    for each in NAMES:
        (folder / "images" / f"{each}.png").write_bytes(_small())
    (folder / name).write_bytes(content)
    import_dataset(folder, folder / "ours", skip_faulty=True)


def _read_lists(content: bytes, folder: Path) -> None:
    (folder / "mode").mkdir()
    for place in ("mode/train.txt", "test.txt"):
        (folder / place).write_bytes(content)
    find_splits(folder, NAMES)


def _read_image(content: bytes, folder: Path) -> None:
    path = folder / "image.png"
    path.write_bytes(content)
    for read in (decode, read_mask):
        read(path)
    intensity_range_of([path])


def _raise(fault: str) -> NoReturn:
    raise UserError(fault)


@st.composite
def _pngs(draw: st.DrawFn) -> bytes:
    """PNG files whose checksums are right, whatever their header and pixels are."""
    side = st.sampled_from([0, 1, 2, 7, 8, 9, 64, 8192, 30_000, 2**31 - 1, 2**32 - 1])
    width, height, depth = draw(side), draw(side), draw(st.sampled_from([1, 2, 3, 4, 8, 16, 255]))
    colour, interlaced = draw(st.sampled_from([0, 2, 3, 4, 6, 1, 255])), draw(st.sampled_from([0, 0, 1, 2]))
    channels = {2: 3, 4: 2, 6: 4}.get(colour, 1)
    exact = min(height * (1 + (width * depth * channels + 7) // 8), 10**6)
    raw = bytes(max(0, exact + draw(st.sampled_from([0, 0, 0, 1, -1, 10**6])))) if exact < 10**6 else bytes(10**6)
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))]
    parts += draw(
        st.lists(
            st.tuples(st.sampled_from([b"PLTE", b"tRNS", b"iCCP", b"gAMA", b"acTL", b"zTXt"]), st.binary(max_size=40)),
            max_size=2,
        )
    )
    packed = zlib.compress(raw, 1)
    cut = draw(st.integers(0, len(packed)))
    parts += [(b"IDAT", packed[:cut]), (b"IDAT", packed[cut:]), (b"IEND", b"")]
    parts = [part for part in parts if draw(st.integers(0, 20))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )


@cache
def _small() -> bytes:
    return encode_png(np.random.default_rng(0).integers(0, 255, (32, 32), dtype=np.uint8))


@cache
def _images() -> tuple[bytes, ...]:
    import cv2

    rng = np.random.default_rng(0)
    grey = rng.integers(0, 255, (12, 15), dtype=np.uint8)
    colour = np.repeat(grey[:, :, None], 3, axis=2)
    bitmaps = [cv2.imencode(".bmp", picture)[1].tobytes() for picture in (grey, colour)]
    deep = cv2.imencode(".png", grey.astype(np.uint16) * 200)[1].tobytes()
    header = b"BM" + struct.pack("<IIIIiiHHIIIIII", 0, 0, 54, 40, 15, 12, 1, 8, 1, 40, 0, 0, 0, 0)  # run lengths
    return (encode_png(grey), encode_png(colour), deep, *bitmaps, header + bytes(range(200)), *_by_pillow(grey))


def _by_pillow(grey: np.ndarray) -> Iterator[bytes]:
    """TIFF and JPEG files of several kinds."""
    from PIL import Image

    floating = Image.fromarray(grey.astype(np.float32))
    colour, exif = Image.fromarray(np.repeat(grey[:, :, None], 3, axis=2)), Image.Exif()
    exif[0x010E], exif[0x0112] = "a text", 6
    kinds: list[tuple[Image.Image, str, dict[str, Any]]] = [
        *((floating, "TIFF", {"compression": packed}) for packed in (None, "tiff_lzw", "tiff_adobe_deflate")),
        (Image.fromarray(grey.astype(np.uint16) * 200), "TIFF", {}),
        (colour, "TIFF", {"exif": exif, "big_tiff": True}),
        (colour, "TIFF", {"save_all": True, "append_images": [colour]}),
        (colour, "JPEG", {"exif": exif, "progressive": True, "comment": b"a"}),
        (Image.fromarray(grey), "JPEG", {}),
    ]
    for image, kind, how in kinds:
        stream = io.BytesIO()
        image.save(stream, kind, **how)
        yield stream.getvalue()


# Runs and checkpoints


@cache
def _checkpoint() -> dict[str, bytes]:
    """The files of a small checkpoint, by name."""
    config = flatten(unflatten({"scam.stages": "none"}))
    values = {
        "config": config,
        "epoch": 3,
        "updates": 9,
        "rng": np.random.default_rng(0).bit_generator.state,
        "selection": {"best_value": 0.5, "best_epoch": 1},
        "normalisation": [0.3, 0.1],
        "intensity": [0, 255],
        "vfm": None,
        "data": "0" * 64,
        "precision": "fp32",
    }
    tensors = {name: {"w": torch.ones(3, 2), "n": torch.tensor(1)} for name in ("student", "modulator", "training")}
    arrays = {"clusters": np.arange(4), "soft.packed": np.zeros((2, 3), np.uint8)}
    with tempfile.TemporaryDirectory() as folder:
        save_checkpoint(Path(folder) / "c", Snapshot(tensors, arrays, values))
        return {path.name: path.read_bytes() for path in (Path(folder) / "c").iterdir()}


def _read_checkpoint(given: tuple[str, bytes], folder: Path) -> None:
    """Read a checkpoint in which one file is another; the manifest has its digest, unless it is the manifest."""
    name, content = given
    files = {**_checkpoint(), name: content}
    if name != "manifest.json":
        digests = {each: hashlib.sha256(files[each]).hexdigest() for each in files if each != "manifest.json"}
        files["manifest.json"] = json.dumps(json.loads(files["manifest.json"]) | {"sha256": digests}).encode()
    for each, data in files.items():
        (folder / each).write_bytes(data)
    checkpoint_info(find_checkpoint(folder), load_checkpoint(folder))


def _checkpoint_inputs() -> st.SearchStrategy[tuple[str, bytes]]:
    files = _checkpoint()

    def of(name: str) -> st.SearchStrategy[bytes]:
        whole = edited(files[name])
        return st.one_of(edited_json(files[name]), whole) if name.endswith(".json") else whole

    return st.one_of([st.tuples(st.just(name), of(name)) for name in sorted(files)])


def _read_weights(content: bytes, folder: Path) -> None:
    for name in ("w.safetensors", "w.pth"):
        (folder / name).write_bytes(content)
        read_state_dict(folder / name)


@cache
def _weights() -> tuple[bytes, bytes]:
    from safetensors.torch import save

    content, tensors = io.BytesIO(), {"a.weight": torch.ones(2, 3), "b": torch.zeros(1)}
    torch.save(tensors, content)
    return save(tensors), content.getvalue()


def _read_manifest(content: bytes, folder: Path) -> None:
    (folder / "manifest.json").write_bytes(content)
    for kind in ("data", "vfm"):
        read_manifest(str(folder), kind)  # type: ignore[arg-type]


def _read_run(given: tuple[str, bytes], folder: Path) -> None:
    run = RunFolder.create(folder / "run", unflatten({}), folder)
    name, content = given
    (run.root / name).write_bytes(content)
    run.lines()
    run.rewind(1)
    run.config()
    CheckpointFolder(run.root / "checkpoints").index()
    run.data()


def _read_bank(content: bytes, folder: Path) -> None:
    (folder / "features.bin").write_bytes(bytes(64))
    lines = [b"%08x %s" % (zlib.crc32(line), line) for line in content.splitlines()]
    (folder / "index.jsonl").write_bytes(b"\n".join(lines))
    FeatureStore(folder).entries(["a"])


# Sweeps


def _read_sweep_folder(given: tuple[str, bytes], folder: Path) -> None:
    name, content = given
    (folder / "runs" / "small" / "heartbeat").mkdir(parents=True)
    (folder / "runs" / "small" / name).write_bytes(content)
    storage = open_storage(folder / "runs")
    if name == "sweep.json":
        read_each(storage, lambda sweep: sweep.spec)
        open_sweep(storage.child("small").uri)
        return
    last_heartbeat(storage.child("small"))
    hours_before(storage.child("small"), 9)


def _read_records(given: pa.Table | bytes, folder: Path) -> None:
    content = given if isinstance(given, bytes) else write_file(given)
    store = ResultsStore(folder)
    (folder / "records" / "new").mkdir(parents=True)
    try:  # a name that fits, so that more is read than it and the footer
        name = file_name("00-a-1", ["0000"], content)
    except DamagedError:
        name = f"00-a-1.{'0' * 64}@0000.v{SCHEMA_VERSION}.parquet"
    (folder / "records" / "new" / name).write_bytes(content)
    store.trials()
    store.histories()
    store.faults()
    store.rank({"holdout/point_score": "max"})


@cache
def _records() -> pa.Table:
    config = {"clusters.count": 3}
    of: dict[str, Any] = {"trial": "0000", "configuration": 0, "seed": 0, "attempt": 1}
    of |= {"config": config, "writer": "a"}
    reports = [Record(kind="report", epoch=n, metrics={"holdout/point_score": n / 9}, **of) for n in range(3)]
    return to_table(
        [Record(kind="start", epoch=0, **of), *reports, Record(kind="end", epoch=3, state="completed", **of)]
    )


_CELLS = (
    *(None, 0, -1, 2**40, 1.5, math.nan, math.inf, True, b"\xff", [], [1.0]),
    *("", "x", "{", "[]", '{"a": NaN}', "9" * 5000),
)


@st.composite
def _tables(draw: st.DrawFn) -> pa.Table:
    """Tables of records, of which a column is missing, empty, or of another type."""
    table = _records()
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from([*RECORD_SCHEMA.names, "metric/holdout/point_score", "foreign"]))
        values = draw(st.sampled_from(_CELLS))
        column = pa.array([values] * table.num_rows)
        index = table.schema.get_field_index(name)
        table = table.append_column(name, column) if index < 0 else table.set_column(index, name, column)
        if draw(st.integers(0, 5)) == 0:
            table = table.drop_columns([name])
    return table


def _any_edited(files: tuple[bytes, ...]) -> st.SearchStrategy[bytes]:
    return st.one_of([edited(file) for file in files])


_ANNOTATIONS = (
    (
        "coco_train.json",
        b'{"images": [{"id": 1, "file_name": "a.png"}], "categories": [{"id": 1, "name": "ship"}],'
        b' "annotations": [{"id": 7, "image_id": 1, "category_id": 1, "bbox": [3, 4, 5, 6.5]}]}',
    ),
    (
        "datumaro.json",
        b'{"items": [{"id": "a", "annotations": [{"type": "bbox", "bbox": [3, 4, 5, 6], "label_id": 0},'
        b' {"type": "points", "points": [3, 4]}, {"type": "polygon", "points": [1, 2, 3, 4, 5, 9]}]}],'
        b' "categories": {}}',
    ),
    (
        "a.json",
        b'{"shapes": [{"label": "t", "shape_type": "circle", "points": [[9, 9], [10, 12]]},'
        b' {"shape_type": "point", "points": [[3, 4]]}, {"points": [[20, 20], [22, 23], [21, 25]]}],'
        b' "imagePath": "a.png"}',
    ),
    (
        "a.xml",
        b"<annotation><filename>a.png</filename><object><name>t</name><bndbox><xmin>3</xmin><ymin>4</ymin>"
        b"<xmax>9</xmax><ymax>8</ymax></bndbox></object></annotation>",
    ),
    (
        "annotations.xml",
        b'<?xml version="1.0" encoding="utf-8"?><annotations><image name="a.png">'
        b'<box label="t" xtl="1" ytl="2" xbr="3.5" ybr="4"/><points label="t" points="8,8"/>'
        b'<ellipse cx="20" cy="20" rx="2" ry="3"/><polygon points="9,20;12,21;10,25"/></image></annotations>',
    ),
    ("targets.csv", b"filename;xmin;ymin;xmax;ymax;class\na.png;3;4;9;8;ship\nb.png;1;2;3;4;ship\n"),
    ("points of targets.tsv", b"image\tx\ty\na.png\t3\t4\nb.png\t0.5\t2\n"),
    ("targets_of.csv", b"name,cx,cy,w,h\na,0.5,0.5,0.1,0.1\n"),
    ("a.txt", b"0 0.5 0.5 0.1 0.1\n1 0.1 0.1 0.2 0.1 0.15 0.2\n"),
    ("b.txt", b"3 4\n20, 21\n"),
    ("c.txt", "3 4\n20 21\n".encode("utf-16")),
)
"""Annotation files of every format, by name."""
_KEYS = st.one_of(st.sampled_from(sorted(leaves())), st.text(max_size=8), WORDS)
_VALUES = st.one_of(WORDS, edited(b"[1, 3]").map(lambda content: content.decode("utf-8", "surrogateescape")))
_INDEX = json.dumps({"last": "epoch-0001", "previous": "epoch-0001", "best": "epoch-0001"}).encode()
_LINES = b'{"epoch": 0, "best": true, "seconds": 1.5, "holdout/iou": 0.5}\n{"epoch": 1, "best": false, "seconds": 2}\n'
_HEARTBEAT = {
    **{"generation": 1, "state": "running", "time": 1.0, "started": 0.5, "host": "h", "processes": "p", "pid": 3},
    "note": "",
}
_MANIFEST = {
    "schema": 1,
    "kind": "data",
    "about": {"masks": True},
    "files": {"images/a.png": {"size": 3, "sha256": "0" * 64}, "points.csv": {"size": 1, "sha256": "1" * 64}},
}


@cache
def _sweep_json() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "sweep.yaml").write_text(SWEEP, encoding="utf-8")
        spec = json.loads(load_sweep(Path(folder) / "sweep.yaml", {}).to_json())
    content = {"schema": 1, "id": "small", "created": 1.0, "revision": "r", "versions": {"torch": "2"}, "spec": spec}
    return json.dumps(content).encode()


def _spec_json() -> bytes:
    return json.dumps(json.loads(_sweep_json())["spec"]).encode()


TARGETS = {
    "settings": Target(st.lists(st.tuples(_KEYS, _VALUES), min_size=1, max_size=3), _read_settings, 2),
    "environment": Target(
        st.dictionaries(_KEYS.map(variable_of), _VALUES, min_size=1, max_size=3), _read_environment, 2
    ),
    "settings file": Target(edited(CONFIG), _read_config, 2),
    "sweep file": Target(st.one_of([edited(text.encode()) for text in (SWEEP, LISTED, STARTED)]), _read_sweep, 2),
    "sweep as JSON": Target(st.deferred(lambda: edited_json(_spec_json())), _read_spec),
    "cluster file": Target(edited(CLUSTER.encode()), _read_cluster),
    "table of points": Target(edited(TABLE), _read_table, 2),
    "list of images": Target(edited(b"a\nb.png\nc\n"), _read_lists),
    "table of images": Target(
        st.one_of(
            st.tuples(st.just("groups.csv"), edited(b"name,group\na,1\nb.png,1\nc,2\n")),
            st.tuples(st.just("subset.csv"), edited(b"name,subset\na,one\nb,two\nc,two\n")),
        ),
        _read_tables,
    ),
    "annotations": Target(
        st.one_of(
            [
                st.tuples(st.just(name), st.one_of(edited_json(content), edited(content)))
                if name.endswith(".json")
                else st.tuples(st.just(name), edited(content))
                for name, content in _ANNOTATIONS
            ]
        ),
        _read_annotations,
        4,
    ),
    "image": Target(st.one_of(_pngs(), st.deferred(lambda: _any_edited(_images()))), _read_image, 3),
    "checkpoint": Target(st.deferred(_checkpoint_inputs), _read_checkpoint, 2),
    "weights": Target(st.deferred(lambda: _any_edited(_weights())), _read_weights),
    "manifest": Target(edited_json(json.dumps(_MANIFEST).encode()), _read_manifest),
    "run": Target(
        st.one_of(
            st.tuples(st.just("metrics.jsonl"), st.one_of(edited(_LINES), edited_json(_LINES.splitlines()[0]))),
            st.tuples(st.just("run.json"), edited_json(b'{"data": "/data", "versions": {"torch": "2"}}')),
            st.tuples(st.just("checkpoints/index.json"), edited_json(_INDEX)),
        ),
        _read_run,
    ),
    "feature bank": Target(
        edited_json(b'{"name": "a", "start": 0, "rows": 2, "cols": 2, "channels": 2, "crc": 0}'), _read_bank
    ),
    "name": Target(st.one_of(st.text(max_size=20), WORDS), lambda text, _: checked_name(text)),
    "heartbeat": Target(
        st.tuples(st.just("heartbeat/0001.json"), edited_json(json.dumps(_HEARTBEAT).encode())), _read_sweep_folder
    ),
    "sweep": Target(
        st.tuples(st.just("sweep.json"), st.deferred(lambda: edited_json(_sweep_json()))), _read_sweep_folder
    ),
    "records": Target(
        st.one_of(_tables(), st.binary(max_size=64), st.integers(0, 4000).map(lambda n: write_file(_records())[:n])),
        _read_records,
    ),
}
"""The targets by name."""


def main() -> int:
    """Explore all targets for some minutes and print what came out."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--only", choices=TARGETS, action="append", metavar="TARGET", help="; ".join(TARGETS))
    parser.add_argument("--seed", type=int, default=1, help="of the first round; a failure names the one of its round")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    logging.disable()
    until, seed = time.monotonic() + 60 * options.minutes, options.seed
    counts = dict.fromkeys(options.only or TARGETS, 0)
    failures: list[str] = []
    while time.monotonic() < until:
        for name in counts:
            try:
                with redirect_stderr(io.StringIO()):
                    counts[name] += explore(name, round(100 * TARGETS[name].share), seed)
            except Exception:
                failures.append(name)
                print(f"{name}, --seed {seed}\n{traceback.format_exc()}", file=sys.stderr)
        seed += 1
    report = {"inputs": sum(counts.values()), "by target": counts, "failures": len(failures)}
    if options.json:
        print(json.dumps(report))
    else:
        for name, count in counts.items():
            print(f"{name:<18}{count:>10,}")
        print(f"{sum(counts.values()):,} inputs, {len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
