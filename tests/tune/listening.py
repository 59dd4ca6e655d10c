"""The addresses on which the processes of a test listen, as Linux tells in /proc."""

import ipaddress
import os
import re
from collections.abc import Iterator
from pathlib import Path

_TCP_LISTEN = "0A"
_UDP_UNCONNECTED = "07"


def processes_with(mark: str) -> dict[int, str]:
    """The command line of every process of this user whose environment holds `mark`, by process id.

    Children inherit the environment, and keep it where they are adopted by another process.
    """
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:  # it has ended, or belongs to somebody else
            continue
    return found


def listening(process: int) -> set[tuple[str, int]]:
    """Address and port of each socket on which a process waits for others: TCP that listens, UDP that is bound."""
    sockets = dict(_sockets(process))
    inodes = set()
    try:
        for handle in Path(f"/proc/{process}/fd").iterdir():
            try:
                inodes |= set(re.findall(r"^socket:\[(\d+)\]$", os.readlink(handle)))
            except OSError:  # it was closed meanwhile
                continue
    except OSError:
        return set()
    return {sockets[inode] for inode in inodes if inode in sockets}


def _sockets(process: int) -> Iterator[tuple[str, tuple[str, int]]]:
    for kind, state in (
        ("tcp", _TCP_LISTEN),
        ("tcp6", _TCP_LISTEN),
        ("udp", _UDP_UNCONNECTED),
        ("udp6", _UDP_UNCONNECTED),
    ):
        try:
            lines = Path(f"/proc/{process}/net/{kind}").read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == state:
                yield fields[9], _address(fields[1])


def _address(text: str) -> tuple[str, int]:
    """Decode an address as the kernel writes it: words of four bytes in the order of the machine."""
    address, _, port = text.partition(":")
    words = [int(address[start : start + 8], 16).to_bytes(4, "little") for start in range(0, len(address), 8)]
    found = ipaddress.ip_address(b"".join(words))
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found), int(port, 16)
