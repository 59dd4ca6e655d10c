"""Images: bounded by what their header says, and decoded without a word from the decoder."""

import struct
import zlib

import cv2
import numpy as np
import pytest

from semprior.data.images import decode
from semprior.errors import UserError
from semprior.reading.pixels import bits_per_channel


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, raw, depth=8, colour=0, interlaced=0, before=b"", size=None):
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    packed = zlib.compress(raw, 1)[:size]
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


INTERLACED = bytes(2 + 2 + 3 + 2 * 3 + 2 * 5 + 4 * 5 + 4 * 9)
REFUSED = {
    "3.6 GB": (png(30_000, 30_000, bytes(10**6), colour=6), "30000x30000 pixels; at most 67 million"),
    "16-bit colour": (png(8192, 8192, b"", depth=16, colour=6), "at most 34 million of this kind"),
    "pixels beyond the header": (png(3, 2, bytes(10**7)), "do not decompress to the size in its header"),
    "one byte more": (png(3, 2, bytes(9)), "do not decompress to the size in its header"),
    "one byte less": (png(3, 2, bytes(7)), "do not decompress to the size in its header"),
    "truncated data": (png(30, 20, bytes(620), size=5), "do not decompress"),
    "unknown filter": (png(3, 2, b"\0abc\x05abc"), "do not decompress"),
    "interlaced, one byte more": (png(8, 8, INTERLACED + b"\0", interlaced=1), "do not decompress"),
    "no pixels": (png(0, 5, b""), "its header is wrong"),
    "depth": (png(3, 2, bytes(8), depth=3), "its header is wrong"),
    "colour type": (png(3, 2, bytes(8), colour=5), "its header is wrong"),
    "no palette": (png(3, 2, bytes(8), colour=3), "its palette is missing"),
    "large BMP": (b"BM" + struct.pack("<IIIIiiHHII", 0, 0, 54, 40, 2**30, -(2**31), 1, 8, 1, 0) + bytes(30), "pixels"),
    "large OS/2 BMP": (b"BM" + struct.pack("<IIIIHHHH", 0, 0, 26, 12, 65535, 65535, 1, 1) + bytes(30), "65535x65535"),
    "cut OS/2 BMP": (b"BM" + struct.pack("<IIIIHHHH", 0, 0, 26, 12, 100, 100, 1, 24) + bytes(30), "truncated BMP"),
}


@pytest.mark.parametrize(("content", "fault"), REFUSED.values(), ids=REFUSED.keys())
def test_an_image_that_is_not_what_its_header_says_is_one_line(tmp_path, capfd, content, fault):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"a\.png: .*{fault}"):
        decode(path)
    assert capfd.readouterr().err == ""


SOUND = {
    "grey": png(3, 2, b"\0abc\0def"),
    "1 bit": png(9, 2, b"\0\xff\x80\0\x01\x80", depth=1),
    "16 bit": png(3, 2, bytes(14), depth=16),
    "colour with alpha": png(3, 2, b"\0abcdefghijkl" * 2, colour=6),
    "interlaced": png(8, 8, INTERLACED, interlaced=1),
    "unknown profile": png(3, 2, b"\0abc\0def", before=chunk(b"iCCP", b"x\0\0" + zlib.compress(b"no profile"))),
    "transparent grey": png(3, 2, b"\0abc\0def", before=chunk(b"tRNS", b"\0a")),
    "short palette": png(3, 2, b"\0\0\1\2\0\2\1\0", colour=3, before=chunk(b"PLTE", b"\xff" * 3)),
    "long palette": png(8, 1, b"\0\xaa", depth=1, colour=3, before=chunk(b"PLTE", bytes(3) + b"\xff" * 30)),
}


@pytest.mark.parametrize("content", SOUND.values(), ids=SOUND.keys())
def test_a_sound_image_is_decoded_without_a_word(tmp_path, capfd, content):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    found = decode(path)
    assert capfd.readouterr().err == ""
    plain = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if plain.ndim == 3:
        plain = cv2.cvtColor(plain, cv2.COLOR_BGR2GRAY if plain.shape[2] == 3 else cv2.COLOR_BGRA2GRAY)
    assert np.array_equal(found, plain)
    assert bits_per_channel(path) == found.dtype.itemsize * 8
