"""The process of a sweep's driver: ``python -m tune.session.driver_process URI GENERATION [--local]``.

`submit` and `resume` start it on this machine, where it starts a Ray of its own; on a cluster, Ray's job server starts
it. Its output goes to its log, and the progress of the sweep to the sweep's storage.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
import traceback
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from semprior.errors import StorageError, UserError
from semprior.io.storage import Storage
from semprior.reporting.terminal import print_error, replace_unencodable_output
from tune.monitor.exception_text import describe
from tune.monitor.heartbeat import HeartbeatWriter, StopRequested
from tune.store.compaction import compact_in_background
from tune.store.sweeps import SWEEP_FILE, driver_log, open_sweep, with_extensions


def run_driver(uri: str, generation: int, local: bool, attached: bool, log: Path | None) -> bool:
    """Run a sweep until it is done or is asked to stop.

    Args:
        uri: address of the sweep's storage.
        generation: number of this driver.
        local: whether to start a Ray on this machine; otherwise that of the job is used.
        attached: whether to stop at the end of standard input, which means that the parent process is gone.
        log: the file that this process writes to. It is copied to the sweep's storage unless it lies there.

    Returns:
        Whether the sweep is done.

    Raises:
        UserError: the sweep cannot be opened or cannot run here, or there was a fault that every trial would have.
        SystemExit: an error in the driver, which is in its last heartbeat and its log.
    """
    sweep = open_sweep(uri)
    copy_log = _log_copier(log, sweep.storage, generation)
    with HeartbeatWriter(sweep.storage, generation, on_write=copy_log, required=SWEEP_FILE) as heart:
        _claim_log(log, sweep.storage, generation)
        if attached:
            threading.Thread(target=_stop_at_end_of_input, args=(heart,), daemon=True).start()
        try:
            from tune.launch.local_ray import local_ray
            from tune.session.session import run_sweep  # it takes seconds, after the claim of the generation

            with local_ray() if local else _ray_of_the_job():
                _stop_on_signals(heart)  # Ray's handlers, set at its start, would kill trials that write a checkpoint
                with compact_in_background(sweep.storage, lambda text: print_error("semprior-tune", text)):
                    done = run_sweep(sweep.spec, uri, generation, stop=StopRequested(heart))
                    while done and (raised := with_extensions(sweep)) is not sweep:  # perhaps at the last moment
                        sweep = raised
                        done = run_sweep(sweep.spec, uri, generation, stop=StopRequested(heart))
                if heart.fault:
                    raise UserError(heart.fault)
        except UserError:
            raise
        except Exception as error:
            if heart.fault:
                raise UserError(heart.fault) from error
            heart.finish("stopped", f"{describe(error)}; log: {_log_error(sweep.storage, generation, log)}")
            raise SystemExit(1) from error
        if done and with_extensions(sweep) is sweep:
            heart.finish("done", done)
        else:
            heart.finish("stopped")
    return bool(done)


def _claim_log(log: Path | None, storage: Storage, generation: int) -> None:
    """Give the log of this driver, which has a name of its own so far, the name that belongs to its number."""
    if log is not None and storage.local is not None and log.parent == storage.local / "logs":
        os.replace(log, Path(storage.path(driver_log(generation))))


def _log_error(storage: Storage, generation: int, log: Path | None) -> str:
    """Write the current exception to the log of the driver, and return the address of the log."""
    traceback.print_exc()
    sys.stderr.flush()
    if log is None:
        with contextlib.suppress(StorageError):
            storage.put(driver_log(generation), traceback.format_exc().encode())
    return f"{storage.uri.partition('?')[0]}/{driver_log(generation)}"


def _log_copier(log: Path | None, storage: Storage, generation: int) -> Callable[[], None]:
    """A function that copies the log to the storage if it has grown."""
    copied = 0

    def copy() -> None:
        nonlocal copied
        if log is not None and storage.local is None and log.stat().st_size > copied:
            content = log.read_bytes()
            storage.put(driver_log(generation), content)
            copied = len(content)

    return copy


@contextlib.contextmanager
def _ray_of_the_job() -> Iterator[None]:
    import ray

    ray.init(address="auto", log_to_driver=False)
    try:
        yield
    finally:
        ray.shutdown()


def _stop_at_end_of_input(heart: HeartbeatWriter) -> None:
    while os.read(0, 1024):  # sys.stdin has a lock that a thread may not hold when Python ends
        continue
    heart.request_stop()


def _stop_on_signals(heart: HeartbeatWriter) -> None:
    def request_stop(number: int, _: types.FrameType | None) -> None:
        if heart.stop_requested:  # the second signal ends the process at once
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        heart.request_stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, request_stop)


def main(arguments: Sequence[str]) -> int:
    """Run a driver and return the exit code: 0 done or stopped, 1 an internal error, 2 an error of the user."""
    parser = argparse.ArgumentParser(prog="tune.session.driver_process", description="The driver of a sweep.")
    parser.add_argument("uri")
    parser.add_argument("generation", type=int)
    parser.add_argument("--local", action="store_true")
    parser.add_argument("--attached", action="store_true")
    parser.add_argument("--log", type=Path)
    options = parser.parse_args(arguments)
    replace_unencodable_output()
    try:
        run_driver(options.uri, options.generation, options.local, options.attached, options.log)
    except UserError as error:
        with contextlib.suppress(OSError):  # its log may be on the disk that is full
            print_error("semprior-tune", str(error))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
