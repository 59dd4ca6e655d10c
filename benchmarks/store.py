"""Three million records written by 64 processes, and `top` on them in a fresh process.

    python -m benchmarks.store [--json] [--trials N] [--epochs N] [--writers N] [--batch N] [--folder DIR]

Every process appends the records of its share of the trials, `--batch` epochs in a file, each record with a whole
configuration and the metrics of a real run, and stores the terms of the best and the last evaluation of each trial,
image by image, while the parent compacts in the background. Then every record is read back and compared with what was
to be written. `top`, the ten best with all that a table shows of them, compared image by image with the best and with
trial 0, is timed in a new process from the start of its interpreter to its end, best of three, with its peak of memory:
first all compacted, then with the last 5,000 records in `--tail-batch` a file and not compacted, then the same from an
S3 server (moto's, a process of its own on loopback). The exit code is 1 where a record was lost or a bar missed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks.machine import load
from benchmarks.store_records import METRICS, SCORE, metrics_of, trial_name, write_trials
from semprior.io.storage import Storage, open_storage
from tune.comparison.ranked import BANDED
from tune.store.compaction import compact, compact_in_background
from tune.store.records import IMAGE_SUMS, METRIC_PREFIX
from tune.store.results_store import ResultsStore
from tune.store.snapshot import take_snapshot
from tune.store.trial_summary import read_visible_records

TAIL = 5000  # records that are not compacted yet
LOCAL_S, S3_S, MEMORY_MB = 2.0, 5.0, 500.0  # bars
BUCKET = "benchmark"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 0, or 1 where a record was lost or a bar missed."""
    options = _parse(arguments)
    busy, figures = load(), {}
    with tempfile.TemporaryDirectory(prefix="semprior-store-") as scratch:
        storage = open_storage(options.folder or Path(scratch) / "sweep")
        if not storage.exists("records"):
            figures |= _fill(storage, options)
        figures |= {"tail_files": len(take_snapshot(storage).appended), "bytes": _size(storage, "records")}
        figures["image_bytes"] = _size(storage, IMAGE_SUMS)
        figures |= _timed("top_with_tail", storage.uri)
        figures["lost"] = count_lost(storage, options.trials, options.epochs)
        with _s3_server() as address:
            _copy_to(storage, address)
            figures |= _timed("top_s3_with_tail", address)
    passed = figures["lost"] == 0 and all(
        figures[f"{name}_s"] < bar and figures[f"{name}_mb"] < MEMORY_MB
        for name, bar in (("top", LOCAL_S), ("top_with_tail", LOCAL_S), ("top_s3_with_tail", S3_S))
        if f"{name}_s" in figures
    )
    figures |= {"passed": passed, "cores": os.cpu_count(), "load_before": busy}
    if options.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:24}{value:.2f}" if isinstance(value, float) else f"{name:24}{value}")
    return 0 if passed else 1


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.store", description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--writers", type=int, default=64, help="processes that append at once")
    parser.add_argument("--batch", type=int, default=100, help="records in a file")
    parser.add_argument("--tail-batch", type=int, default=20, help="records in a file that is not compacted")
    parser.add_argument("--folder", type=Path, help="keep the records here; those that are here are not written again")
    return parser.parse_args(arguments)


def _fill(storage: Storage, options: argparse.Namespace) -> dict[str, float | str]:
    """Write all records, and time `top` before the last of them."""
    tail = min(max(1, TAIL // options.epochs), options.trials // 2)
    whole, last = range(options.trials - tail), range(options.trials - tail, options.trials)
    began = time.perf_counter()
    with compact_in_background(storage, lambda text: print(text, file=sys.stderr), every=5.0):
        _write_at_once(storage.uri, whole, options.epochs, options.batch, options.writers)
        figures: dict[str, float | str] = {"write_s": time.perf_counter() - began}
    compact(storage, least=1, grace=0)
    figures["compacted_s"] = time.perf_counter() - began
    figures |= _timed("top", storage.uri)
    _write_at_once(storage.uri, last, options.epochs, options.tail_batch, options.writers)
    return figures


def _timed(name: str, uri: str) -> dict[str, float | str]:
    command = [sys.executable, "-m", "benchmarks.store_top", uri, SCORE]
    timings = []
    for _ in range(3):
        began = time.perf_counter()
        told = json.loads(subprocess.run(command, capture_output=True, check=True, encoding="utf-8").stdout)
        timings.append((time.perf_counter() - began, told))
    seconds, told = min(timings, key=lambda timing: timing[0])
    memory = max(told["memory"] for _, told in timings) / 1e6
    return {f"{name}_s": seconds, f"{name}_cpu_s": told["cpu_s"], f"{name}_mb": memory, f"{name}_first": told["first"]}


def _write_at_once(uri: str, numbers: range, epochs: int, batch: int, writers: int) -> None:
    shares = [numbers[index::writers] for index in range(min(writers, len(numbers)))]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.store_records"])  # so that it is imported once
    processes = [context.Process(target=write_trials, args=(uri, share, epochs, batch)) for share in shares]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise RuntimeError("a writer failed")


def count_lost(storage: Storage, trials: int, epochs: int) -> int:
    """Records that are not there, or twice, or with other metrics than were written."""
    columns = [METRIC_PREFIX + name for name in ("inner_loss", SCORE)]
    files, found = read_visible_records(take_snapshot(storage))
    table = files.columns(columns)
    if found.trials != [trial_name(number) for number in range(trials)]:
        return trials * epochs
    place = found.report_trials * epochs + found.epochs
    times = np.bincount(place, minlength=trials * epochs)
    loss, score = (table[name].to_numpy()[found.reports] for name in columns)
    wrong = np.zeros(trials * epochs, bool)
    starts = np.searchsorted(found.report_trials, np.arange(trials + 1))
    for number in range(trials):
        truth = metrics_of(number, epochs)
        rows = slice(starts[number], starts[number + 1])
        seen = found.epochs[rows]
        evaluated = np.isfinite(score[rows])
        same = loss[rows] == truth[seen, METRICS.index("inner_loss")]
        same &= ~evaluated | (score[rows] == truth[seen, METRICS.index(SCORE)])
        same &= evaluated == (seen % 2 == 1)
        wrong[place[rows][~same]] = True
    doubled = table.num_rows - len(found.reports)
    return int(np.count_nonzero((times != 1) | wrong)) + doubled


def _size(storage: Storage, folder: str) -> int:
    return sum(entry.size for entry in storage.list(folder, recursive=True))


@contextmanager
def _s3_server() -> Iterator[str]:
    """Address of an empty bucket on moto's server, which runs in a process of its own; the variables lead there."""
    program = (
        "import sys, threading\n"
        "from moto.server import ThreadedMotoServer\n"
        "server = ThreadedMotoServer(ip_address='127.0.0.1', port=0, verbose=False)\n"
        "server.start()\n"
        "print(server.get_host_and_port()[1], flush=True)\n"
        "sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    assert process.stdin is not None
    before = dict(os.environ)
    try:
        address = f"http://127.0.0.1:{int(process.stdout.readline())}"
        keys = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}
        os.environ.update(keys | {"AWS_EC2_METADATA_DISABLED": "true", "AWS_ENDPOINT_URL": address})
        import boto3

        boto3.client("s3", endpoint_url=address).create_bucket(Bucket=BUCKET)
        yield f"s3://{BUCKET}/runs/sweep"
    finally:
        os.environ.clear()
        os.environ.update(before)
        process.stdin.close()
        process.wait()


def _copy_to(storage: Storage, address: str) -> None:
    target = open_storage(address)
    for entry in storage.list("records", recursive=True):
        if not entry.is_folder:
            target.put(entry.name, storage.read(entry.name))
    for ranked in ResultsStore(storage).rank({SCORE: "max"}, limit=BANDED, include=(0,)):  # `top` reads no others
        for name in filter(None, ranked.images):
            target.put(name, storage.read(name))


if __name__ == "__main__":
    raise SystemExit(main())
