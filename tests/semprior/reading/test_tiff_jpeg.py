"""TIFF and JPEG: bounded by what their headers say, and decoded without a word from the decoder."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from semprior.errors import UserError
from semprior.reading.pixels import bits_per_channel, read_pixels

GREY = np.random.default_rng(0).integers(0, 255, (12, 15), dtype=np.uint8)
COLOUR = np.stack([GREY, GREY.T.repeat(2, 1)[:12, :15], 255 - GREY], axis=2)


def saved(pixels, kind, **how):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **how)
    return stream.getvalue()


def tiff(tags, tail=b"", large=False):
    """A TIFF whose only page has tags (tag, type, count, value)."""
    count, entry, following = ("Q", "HHQQ", 16) if large else ("H", "HHII", 8)
    start = struct.pack("<2sHHHQ", b"II", 43, 8, 0, following) if large else struct.pack("<2sHI", b"II", 42, following)
    entries = b"".join(struct.pack("<" + entry, *tag) for tag in sorted(tags))
    return start + struct.pack("<" + count, len(tags)) + entries + bytes(8 if large else 4) + tail


def grey_tiff(*more, width=4, height=4, tail=bytes(16), large=False):
    size = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (262, 3, 1, 1)]
    return tiff([*size, *more], tail, large)


JPEG = saved(COLOUR, "JPEG", progressive=True, exif=Image.Exif(), comment=b"some words")
SCAN = JPEG[JPEG.rindex(b"\xff\xda") : -2]
FRAME = JPEG.index(b"\xff\xc2")
WIDE, MIDDLE = (JPEG[: FRAME + 5] + side * 2 + JPEG[FRAME + 9 :] for side in (b"\x7f\xff", b"\x20\x00"))
REFUSED = {
    "large": (grey_tiff(width=2**16, height=2**16), "65536x65536 pixels; at most 67 million"),
    "large tile": (grey_tiff((322, 4, 1, 2**20), (323, 4, 1, 2**20)), "1048576x1048576 pixels"),
    "no size": (tiff([(262, 3, 1, 1)]), "damaged TIFF .its size is missing.; copy the file again"),
    "tags larger than the file": (
        grey_tiff(*((50_000 + n, 7, 900, 8) for n in range(20)), tail=bytes(1000)),
        "its tags are larger than the file",
    ),
    "tags below larger than the file": (
        grey_tiff(
            (34665, 4, 1, 74), tail=struct.pack("<H", 2) + 2 * struct.pack("<HHII", 37500, 7, 150, 8) + bytes(50)
        ),
        "its tags are larger than the file",
    ),
    "tags beyond the end": (b"II*\0" + struct.pack("<I", 2**31), "truncated TIFF; copy"),
    "more tags than bytes": (b"II+\0" + struct.pack("<HHQQ", 8, 0, 16, 2**62), "its tags are larger"),
    "a size twice": (grey_tiff((256, 4, 1, 5)), "a tag is given twice"),
    "parts that repeat": (grey_tiff((273, 4, 10, 74), (278, 3, 1, 3), tail=bytes(100)), "more parts than its size"),
    "loop of pages": (b"II*\0\x08\0\0\0\0\0\x08\0\0\0" + bytes(100), "its tags are larger than the file"),
    "large JPEG": (WIDE, "32767x32767 pixels; at most 27 million of this kind"),
    "progressive JPEG": (MIDDLE, "8192x8192 pixels; at most 27 million of this kind"),
    "many scans": (JPEG[:-2] + SCAN * 200 + b"\xff\xd9", "scans; at most 100"),
    "cut JPEG": (JPEG[:-40], "JPEG"),
    "cut segment": (JPEG[:30], "truncated JPEG; copy"),
    "segment without length": (b"\xff\xd8\xff\xe1\0\0" + bytes(20), "damaged JPEG"),
}


@pytest.mark.parametrize(("content", "fault"), REFUSED.values(), ids=REFUSED)
def test_an_image_that_is_not_what_its_header_says_is_one_line(tmp_path, capfd, content, fault):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"a\.png: .*{fault}") as raised:
        read_pixels(path)
    assert "\n" not in str(raised.value)
    assert bits_per_channel(path) == 8
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "tiff_ccitt"])
def test_a_tiff_that_is_damaged_anywhere_is_read_or_refused_without_a_word(tmp_path, capfd, compression):
    picture = Image.fromarray(GREY).convert("1") if compression == "tiff_ccitt" else Image.fromarray(GREY)
    picture.save(tmp_path / "a.tif", compression=compression)
    content = (tmp_path / "a.tif").read_bytes()
    refused = 0
    for place in range(8, len(content), 3):
        (tmp_path / "a.tif").write_bytes(content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :])
        try:
            read_pixels(tmp_path / "a.tif")
        except UserError:
            refused += 1
    assert refused
    assert capfd.readouterr().err == ""


EXIF = Image.Exif()
EXIF[0x010E] = "a text"
SOUND = {
    "grey": (saved(GREY, "TIFF"), GREY),
    "strips": (grey_tiff((273, 4, 1, 98), (278, 3, 1, 4), (279, 4, 1, 16), tail=bytes(range(16))), None),
    "big": (grey_tiff((273, 4, 1, 152), (279, 4, 1, 16), tail=bytes(range(16)), large=True), None),
    "LZW": (saved(GREY, "TIFF", compression="tiff_lzw"), GREY),
    "16 bit": (saved(GREY.astype(np.uint16) * 200, "TIFF"), GREY.astype(np.uint16) * 200),
    "float": (saved(GREY / np.float32(3), "TIFF", compression="tiff_adobe_deflate"), GREY / np.float32(3)),
    "colour": (saved(COLOUR, "TIFF", big_tiff=True, exif=EXIF), COLOUR[..., ::-1]),
}


@pytest.mark.parametrize(("content", "expected"), SOUND.values(), ids=SOUND)
def test_a_sound_tiff_is_read_without_a_word(tmp_path, capfd, content, expected):
    path = tmp_path / "a.tif"
    path.write_bytes(content)
    found = read_pixels(path)
    expected = np.arange(16, dtype=np.uint8).reshape(4, 4) if expected is None else expected
    assert found.dtype == expected.dtype and np.array_equal(found, expected)
    assert bits_per_channel(path) == found.dtype.itemsize * 8
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_is_read_as_if_it_had_no_metadata(tmp_path, progressive):
    content = saved(COLOUR, "JPEG", progressive=progressive, exif=EXIF, comment=b"words", icc_profile=bytes(200))
    (tmp_path / "a.jpg").write_bytes(content)
    expected = np.asarray(Image.open(io.BytesIO(content)))
    assert np.array_equal(read_pixels(tmp_path / "a.jpg"), expected[..., ::-1])


def test_a_jpeg_of_several_pictures_is_refused(tmp_path):
    one, other = Image.fromarray(COLOUR), Image.fromarray(COLOUR[::-1])
    one.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[other])
    with pytest.raises(UserError, match=r"a\.jpg: a JPEG file of 2 pages; save each as an image of its own"):
        read_pixels(tmp_path / "a.jpg")
