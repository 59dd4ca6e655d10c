"""Names that look like frames of sequences, of which neighbours should not part."""

import pytest

from semprior.data.finding.sequences import sequences


def numbered(beginning, count, start=1):
    return [f"{beginning}{number:04d}" for number in range(start, start + count)]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (numbered("seq1_", 6) + numbered("seq2_", 9), {"seq1_": 6, "seq2_": 9}),
        (numbered("day/", 6) + numbered("night/", 5) + numbered("dusk/", 4), {"day/": 6, "night/": 5}),
        (numbered("frame_", 40), {"frame_": 40}),
        (numbered("", 40), {}),  # a data set that is numbered throughout, like NUDT-SIRST
        (numbered("Misc_", 40), {}),
        (["Misc_3", "Misc_7", "XDU4", "XDU90"], {}),
        (["no number", "nor here"], {}),
    ],
)
def test_beginnings_with_consecutive_numbers(names, expected):
    assert sequences(names, {}) == expected


def test_data_sets_that_were_joined_are_no_sequences():
    names = numbered("Misc_", 30) + numbered("XDU", 30)
    assert sequences(names, {name: name[:3] for name in names}) == {}
    assert len(sequences(names, {})) == 2
