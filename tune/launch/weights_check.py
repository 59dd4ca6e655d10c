"""Checks, before the first trial begins, that the foundation model's weights are where the sweep says."""

from __future__ import annotations

import shlex
from pathlib import Path

from semprior.errors import UserError
from semprior.io.push_fetch import is_address, read_manifest
from tune.spec.sweep_file import SweepSpec

KEY = "vfm.weights"
_SOURCES = ("auto", "hub", "offline", "random")  # every other value is a file or an address


def weights_locations(spec: SweepSpec) -> list[str]:
    """Files and addresses of weights that the base, the search or a configuration names."""
    values = {spec.base_config().vfm.weights}
    values |= set((spec.search[KEY].values if KEY in spec.search else None) or ())
    values |= {configuration[KEY] for configuration in spec.configurations or () if KEY in configuration}
    return sorted(str(value) for value in values if value not in _SOURCES)


def check_weights(spec: SweepSpec) -> None:
    """Refuse a sweep whose weights are missing, as this machine sees it.

    Raises:
        UserError: there is no such file, or the address has nothing or something other than weights.
    """
    for location in weights_locations(spec):
        if is_address(location):
            try:
                read_manifest(location, "vfm")
            except UserError as error:
                raise UserError(f"{KEY}: {error}") from error
        elif not Path(location).expanduser().is_file():
            raise UserError(
                f"{KEY}: {location}: no such file; give a file, an address, or one of {', '.join(_SOURCES)}"
            )


def refuse_files(spec: SweepSpec) -> None:
    """Refuse a sweep on a cluster whose weights are in a file of one machine.

    Raises:
        UserError: names the file and the command that puts its content at an address.
    """
    files = [location for location in weights_locations(spec) if not is_address(location)]
    if files:
        push = f"semprior vfm push {spec.base_config().vfm.name} URI --weights {shlex.quote(files[0])}"
        raise UserError(
            f"{KEY}: {files[0]}: is on one machine only; put it where the cluster fetches it, with `{push}`,"
            f" and write {KEY}: with the address that it prints"
        )
