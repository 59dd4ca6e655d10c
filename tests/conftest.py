"""Fixtures for all tests: the real images, a writer of small data sets, an S3 server on loopback."""

import os
import resource
import uuid
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

from semprior.cli.app import main
from semprior.io.cache_folder import cache_folder
from tests.repository import ROOT

# The tests' numbers are those of the CPU, and what they run would take a GPU by itself where there is one. This stands
# before anything imports torch, and processes that tests start inherit it.
os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["PYTHONPATH"] = str(ROOT)  # processes of a Ray that tests start import what tests define
# Of a Ray that a test starts; some are read when ray is first imported.
os.environ |= {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_raylet_start_wait_time_s": "300",  # of a machine that does much else
    "RAY_memory_monitor_refresh_ms": "0",  # whatever else fills its memory is not the sweep's fault
}


@pytest.fixture(scope="session")
def sirst() -> Path:
    """The folder of SIRST v1: SEMPRIOR_SIRST, else ../shared/data/sirst-v1 beside the repository."""
    folder = Path(os.environ.get("SEMPRIOR_SIRST", ROOT.parent / "shared" / "data" / "sirst-v1"))
    if not (folder / "images").is_dir():
        lack = pytest.fail if os.environ.get("SEMPRIOR_REQUIRE_ALL") == "1" else pytest.skip
        lack(f"no SIRST v1 at {folder}; set SEMPRIOR_SIRST to its folder")
    return folder


def pytest_collection_modifyitems(items):
    """Files with more slow tests come first, so that no process is left with a long one when the others are done."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="session")
def kernels() -> Path:
    """Where the user's compiled layers lie, which all tests share, so that they are compiled once."""
    folder = cache_folder() / "kernels"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory, kernels):
    """Where a module's tests keep feature banks, away from the user's; the compiled layers are the user's."""
    folder = tmp_path_factory.mktemp("cache") / "features"
    folder.mkdir()
    (folder / "kernels").symlink_to(kernels)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEMPRIOR_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def s3_server():
    """Address of moto's S3 server, which runs in a thread of the tests."""
    server_module = pytest.importorskip("moto.server")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_server, monkeypatch):
    """Address of a new bucket, ``s3://NAME``; the usual variables lead to the server."""
    import boto3

    for variable in ("AWS_PROFILE", "AWS_ENDPOINT_URL_S3", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in (
        ("AWS_ACCESS_KEY_ID", "testing"),
        ("AWS_SECRET_ACCESS_KEY", "testing"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("AWS_ENDPOINT_URL", s3_server),
    ):
        monkeypatch.setenv(variable, value)
    bucket = f"bucket-{uuid.uuid4().hex[:12]}"
    boto3.client("s3", endpoint_url=s3_server).create_bucket(Bucket=bucket)
    return f"s3://{bucket}"


@pytest.fixture(params=["folder", "s3"])
def place(request, tmp_path):
    """An address that nothing is at yet: a folder, then one in a bucket."""
    return str(tmp_path / "runs") if request.param == "folder" else f"{request.getfixturevalue('s3')}/runs"


@pytest.fixture
def refused(capsys):
    """Run a command that must be refused: exit code 2 and one line, which is returned."""

    def run(*arguments):
        assert main([str(argument) for argument in arguments]) == 2
        error = capsys.readouterr().err
        assert error.startswith("semprior: ")
        assert error.count("\n") == 1
        return error

    return run


@pytest.fixture
def full_disk():
    """A context in which nothing can be written to any file, as on a full disk."""

    @contextmanager
    def full():
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return full


def write_picture(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture)


def tiny_picture(index: int, shape=(24, 32)) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image (H,W) uint8, mask (H,W) bool and points (P,2) with index % 3 targets of 3x3 pixels."""
    rng = np.random.default_rng(index)
    image = rng.integers(40, 60, shape, dtype=np.uint8)
    mask = np.zeros(shape, bool)
    points = [(6, 6 + index % 5), (16, 20 - index % 5)][: index % 3]
    for row, column in points:
        mask[row - 1 : row + 2, column - 1 : column + 2] = True
    image[mask] = 200
    return image, mask, np.array(points, np.int64).reshape(-1, 2)


@pytest.fixture
def tiny_dataset(tmp_path):
    """A function that writes a data set of small images in the SIRST layout and returns its folder.

    Names are ``Tiny_0``, ``Tiny_1``, ...; image i has i % 3 targets of 3x3 pixels. ``splits`` gives the number of
    images in each split, in the order of the names; None writes no split files.
    """

    def write(
        splits=(("train", 6), ("val", 3), ("test", 3)),
        *,
        count=None,
        suffix=".png",
        bits=8,
        colour=False,
        masks="labels",
        points="masks_centroid",
        split_folder="mode",
        split_file="{}.txt",
        entry="{}",
        root=None,
    ):
        root = tmp_path / "set" if root is None else root
        count = sum(n for _, n in splits) if count is None else count
        rows = ["name,x,y"]
        for index in range(count):
            name = f"Tiny_{index}"
            image, mask, marked = tiny_picture(index)
            if bits == 16:
                image = image.astype(np.uint16) * 20 + 3000
            if colour:
                image = np.repeat(image[:, :, None], 3, axis=2)
            write_picture(root / "images" / f"{name}{suffix}", image)
            if masks:
                write_picture(root / masks / f"{name}{suffix}", mask.astype(np.uint8) * 255)
            if points == "masks_centroid":
                spots = np.zeros(mask.shape, np.uint8)
                spots[marked[:, 0], marked[:, 1]] = 255
                write_picture(root / points / f"{name}.png", spots)
            rows += [f"{entry.format(name)},{column},{row}" for row, column in marked]
        if points == "points.csv":
            (root / points).write_text("\n".join(rows) + "\n")
        first = 0
        for split, number in splits or ():
            path = root / split_folder / split_file.format(split)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(entry.format(f"Tiny_{i}") + "\n" for i in range(first, first + number)))
            first += number
        return root

    return write
