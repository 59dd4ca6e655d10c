"""Groups of images by their names, and names that look like frames of sequences."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping

from semprior.errors import UserError

_NUMBERED = re.compile(r"(.*?)(\d+)$")
_WORDS = re.compile(r"frame|seq|video|clip|track", re.IGNORECASE)
_CONSECUTIVE = 5  # frames that make a sequence
_SEQUENCES = 2


def groups_by_pattern(names: Collection[str], pattern: str) -> dict[str, str]:
    """The group of each name that a regular expression matches.

    Args:
        names: of images.
        pattern: searched for in each name. The group is the first parenthesised part of the match, or all of it. For
            example, ``^(seq\\d+)_`` makes one group of ``seq03_0001`` and ``seq03_0002``.

    Raises:
        UserError: the pattern is no regular expression, or matches no name.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UserError(f"--groups {pattern}: not a regular expression ({error})") from error
    found = {name: match for name in names if (match := expression.search(name))}
    groups = {name: match[1] if expression.groups else match[0] for name, match in found.items()}
    groups = {name: group for name, group in groups.items() if group}
    if not groups:
        raise UserError(f"--groups {pattern}: matches no name, such as {min(names, default='')}")
    return groups


def sequences(names: Collection[str], subsets: Mapping[str, str]) -> dict[str, int]:
    """Beginnings of names that look like sequences, each with its number of images.

    A sequence has at least five names with consecutive numbers behind the same beginning. Beginnings count if there
    are several within one subset, so that a data set numbered throughout is not mistaken, or if they say so
    (``frame_0001``).

    Args:
        names: of images.
        subsets: of a joined data set, by name.
    """
    numbers: dict[tuple[str, str], set[int]] = defaultdict(set)
    for name in names:
        if match := _NUMBERED.fullmatch(name):
            numbers[subsets.get(name, ""), match[1]].add(int(match[2]))
    long = {key: found for key, found in numbers.items() if _longest_run(found) >= _CONSECUTIVE}
    several = {subset for subset, _ in long if sum(other == subset for other, _ in long) >= _SEQUENCES}
    return {
        beginning: len(found)
        for (subset, beginning), found in long.items()
        if subset in several or _WORDS.search(beginning)
    }


def _longest_run(numbers: set[int]) -> int:
    longest = 0
    for start in (number for number in numbers if number - 1 not in numbers):
        end = start
        while end in numbers:
            end += 1
        longest = max(longest, end - start)
    return longest
