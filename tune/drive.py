"""One life of a sweep's driver, in a process of its own: ``python -m tune.drive URI GENERATION [--local]``.

`tune submit` and `tune resume` start it on this machine, where it makes its own Ray, and Ray's job server starts it on
a cluster, where Ray is there. All that it says goes to its log; how far the sweep is stands in the sweep's storage.
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
from semprior.storage import Storage
from semprior.terminal import complain, show_what_can_be_shown
from tune.catalogue import open_sweep
from tune.compaction import compacting
from tune.heartbeat import Heart, StopRequested
from tune.here import driver_log
from tune.telling import told


def drive(uri: str, generation: int, local: bool, attached: bool, log: Path | None) -> bool:
    """Run a sweep until it is done or somebody asks it to stop.

    Args:
        uri: of the sweep.
        generation: of this driver.
        local: whether to start a Ray on this machine, else that of the job is used.
        attached: whether to stop when whoever started this process is gone, told by the end of standard input.
        log: the file that it writes to; copied to the sweep's storage where it does not lie there.

    Returns:
        Whether it is done.

    Raises:
        UserError: the sweep cannot be had, or cannot run here; or a fault came that every trial would meet.
        SystemExit: the driver broke, which its last heartbeat and its log tell.
    """
    sweep = open_sweep(uri)
    with Heart(sweep.storage, generation, with_each=_copying(log, sweep.storage, generation)) as heart:
        if attached:
            threading.Thread(target=_ask_when_left, args=(heart,), daemon=True).start()
        try:
            from tune.driver import run_sweep  # here: it takes seconds, in which another driver might begin
            from tune.local import local_ray

            with local_ray() if local else _ray_of_the_job():
                _ask_on_signals(heart)  # Ray's own handlers, set at its start, would kill the trials' last checkpoints
                with compacting(sweep.storage, lambda text: complain("semprior-tune", text)):
                    done = run_sweep(sweep.spec, uri, generation, stop=StopRequested(heart))
        except UserError:
            raise
        except Exception as error:
            heart.finish("stopped", f"{told(error)}; log: {_logged(sweep.storage, generation, log)}")
            raise SystemExit(1) from error
        heart.finish("done" if done else "stopped")
    return done


def _logged(storage: Storage, generation: int, log: Path | None) -> str:
    """Write how the driver broke where its log is kept; the address of that."""
    traceback.print_exc()
    sys.stderr.flush()
    if log is None:
        with contextlib.suppress(StorageError):
            storage.put(driver_log(generation), traceback.format_exc().encode())
    return f"{storage.uri.partition('?')[0]}/{driver_log(generation)}"


def _copying(log: Path | None, storage: Storage, generation: int) -> Callable[[], None]:
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


def _ask_when_left(heart: Heart) -> None:
    while os.read(0, 1024):  # not through sys.stdin, whose lock a thread may not hold when Python ends
        continue
    heart.ask()


def _ask_on_signals(heart: Heart) -> None:
    def ask(number: int, _: types.FrameType | None) -> None:
        if heart.stop_requested:  # for the second time: at once
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        heart.ask()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask)


def main(arguments: Sequence[str]) -> int:
    """Run a driver; the exit code: 0 done or stopped, 1 for a fault of ours, 2 for one of the user."""
    parser = argparse.ArgumentParser(prog="tune.drive", description="One life of a sweep's driver.")
    parser.add_argument("uri")
    parser.add_argument("generation", type=int)
    parser.add_argument("--local", action="store_true")
    parser.add_argument("--attached", action="store_true")
    parser.add_argument("--log", type=Path)
    given = parser.parse_args(arguments)
    show_what_can_be_shown()
    try:
        drive(given.uri, given.generation, given.local, given.attached, given.log)
    except UserError as error:
        complain("semprior-tune", str(error))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
