"""The foundation model's weights that the trials of a sweep will ask for, looked at before the first one begins."""

from __future__ import annotations

import shlex
from pathlib import Path

from semprior.errors import UserError
from semprior.io.push_fetch import is_address, read_manifest
from tune.spec.sweep_file import SweepSpec

KEY = "vfm.weights"
_SOURCES = ("auto", "hub", "offline", "random")  # every other value is a place


def places(spec: SweepSpec) -> list[str]:
    """Files and addresses of weights that the base, the search or a configuration names."""
    asked = {spec.base_config().vfm.weights}
    asked |= set((spec.search[KEY].values if KEY in spec.search else None) or ())
    asked |= {configuration[KEY] for configuration in spec.configurations or () if KEY in configuration}
    return sorted(str(place) for place in asked if place not in _SOURCES)


def check_weights(spec: SweepSpec) -> None:
    """See that weights are where the sweep says, as this machine sees it.

    Raises:
        UserError: no such file, nothing at an address, or something else than weights.
    """
    for place in places(spec):
        if is_address(place):
            try:
                read_manifest(place, "vfm")
            except UserError as error:
                raise UserError(f"{KEY}: {error}") from error
        elif not Path(place).expanduser().is_file():
            raise UserError(f"{KEY}: {place}: no such file; give a file, an address, or one of {', '.join(_SOURCES)}")


def refuse_files(spec: SweepSpec) -> None:
    """Refuse weights in a file of one machine, for a sweep on several.

    Raises:
        UserError: names such a file, and how its content gets an address.
    """
    files = [place for place in places(spec) if not is_address(place)]
    if files:
        push = f"semprior vfm push {spec.base_config().vfm.name} URI --weights {shlex.quote(files[0])}"
        raise UserError(
            f"{KEY}: {files[0]}: is on one machine only; put it where the cluster fetches it, with `{push}`,"
            f" and write {KEY}: with the address that it prints"
        )
