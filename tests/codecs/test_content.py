import bz2
import gzip
import lzma
import random
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from peaks import IMPORT

from precomputed_store.codecs import content
from precomputed_store.codecs.jpeg import Jpeg
from precomputed_store.codecs.raw import Raw
from precomputed_store.errors import FormatError, UnsupportedError

NAMES = ["gzip", "br", "zstd", "xz", "bz2"]
SINGLE_STREAM = ["br"]
SEVERAL_STREAMS = [name for name in NAMES if name not in SINGLE_STREAM]
TEXT = b"a chunk of voxels, " * 7 + bytes(100)


@pytest.fixture(params=["isal", "zlib"])
def gzip_library(request, monkeypatch):
    """Every gzip test runs with isal and without."""
    if request.param == "isal":
        pytest.importorskip("isal")
    else:
        monkeypatch.setitem(sys.modules, "isal", None)
    content.zlib_library.cache_clear()
    yield request.param
    content.zlib_library.cache_clear()


def undo(data, encoding, limit=10_000, **options):
    return content.undo(data, encoding, limit=limit, **options)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("plain", [b"", b"x", TEXT, random.Random(0).randbytes(70_000)])
def test_undo_reverses_apply(name, plain):
    assert undo(content.apply(plain, name), name, limit=len(plain)) == plain


@pytest.mark.parametrize("name", NAMES)
def test_other_kinds_of_buffers_are_taken(name):
    data = content.apply(memoryview(bytearray(TEXT)), name)
    assert data == content.apply(TEXT, name)
    assert undo(bytearray(data), name) == TEXT
    assert undo(memoryview(b"__" + data)[2:], name) == TEXT


def test_gzip_is_read_by_the_standard_library_and_the_other_way_round(gzip_library):
    assert gzip.decompress(content.apply(TEXT, "gzip")) == TEXT
    assert undo(gzip.compress(TEXT), "gzip") == TEXT
    name_and_comment = b"\x1f\x8b\x08\x18" + bytes(6) + b"name\0comment\0"
    assert undo(name_and_comment + gzip.compress(TEXT)[10:], "gzip") == TEXT


def test_brotli_is_read_by_its_library_and_the_other_way_round():
    brotli = pytest.importorskip("brotli")
    assert brotli.decompress(content.apply(TEXT, "br")) == TEXT
    assert undo(brotli.compress(TEXT), "br") == TEXT


def test_zstd_is_read_by_another_library_and_the_other_way_round():
    zstandard = pytest.importorskip("zstandard")
    assert zstandard.ZstdDecompressor().decompress(content.apply(TEXT, "zstd")) == TEXT
    for options in ({"write_content_size": False}, {"write_checksum": True}, {"level": 22}):
        data = zstandard.ZstdCompressor(**options).compress(TEXT)
        assert undo(data, "zstd") == TEXT
    skippable = struct.pack("<II", 0x184D2A53, 4) + b"note"
    assert undo(skippable + data + skippable, "zstd") == TEXT


def test_xz_and_bz2_are_read_by_the_standard_library_and_the_other_way_round():
    assert lzma.decompress(content.apply(TEXT, "xz")) == TEXT
    assert undo(lzma.compress(TEXT, preset=9 | lzma.PRESET_EXTREME), "xz") == TEXT
    assert bz2.decompress(content.apply(TEXT, "bz2")) == TEXT
    assert undo(bz2.compress(TEXT, 1), "bz2") == TEXT


@pytest.mark.parity
def test_cloudvolumes_files_are_read():
    compression = pytest.importorskip("cloudfiles.compression")
    for name, theirs in zip(NAMES, ["gzip", "br", "zstd", "xz", "bzip2"], strict=True):
        assert undo(compression.compress(TEXT, theirs), theirs) == TEXT
        assert compression.decompress(content.apply(TEXT, name), theirs) == TEXT


@pytest.mark.parametrize("name", NAMES)
def test_every_truncation_is_refused(name, gzip_library):
    data = content.apply(TEXT, name)
    for length in range(len(data)):
        with pytest.raises(FormatError):
            undo(data[:length], name)


@pytest.mark.parametrize("name", ["gzip", "zstd", "xz", "bz2"])
def test_every_flipped_bit_is_refused_or_harmless(name, gzip_library):
    data = content.apply(TEXT, name)
    harmless = 0
    for position in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[position // 8] ^= 1 << position % 8
        try:
            assert undo(damaged, name) == TEXT
        except FormatError:
            continue
        harmless += 1
    assert harmless <= 64  # time stamp, hints, padding


@pytest.mark.parametrize("name", NAMES)
def test_garbage_is_refused(name, gzip_library):
    generator = random.Random(1)
    for _ in range(200):
        garbage = generator.randbytes(generator.randrange(1, 60))
        try:
            decoded = undo(garbage, name)
        except FormatError:
            continue
        assert name == "br"  # any few bytes can be a brotli stream
        assert len(decoded) <= 10_000


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("tail", [b"x", b"\0", bytes(512), b"garbage behind the end"])
def test_bytes_behind_the_end_are_refused(name, tail, gzip_library):
    with pytest.raises(FormatError):
        undo(content.apply(TEXT, name) + tail, name)


@pytest.mark.parametrize("name", SEVERAL_STREAMS)
def test_streams_one_behind_the_other_are_one(name, gzip_library):
    parts = [b"first", b"", TEXT, random.Random(2).randbytes(5000), b"last"]
    data = b"".join(content.apply(part, name) for part in parts)
    assert undo(data, name) == b"".join(parts)
    with pytest.raises(FormatError, match="truncated"):
        undo(data[:-1], name)
    with pytest.raises(FormatError, match=f"more than the {5 + len(TEXT)} bytes"):
        undo(data, name, limit=5 + len(TEXT))


@pytest.mark.parametrize("name", NAMES)
def test_the_limit_is_exact(name, gzip_library):
    data = content.apply(TEXT, name)
    assert undo(data, name, limit=len(TEXT)) == TEXT
    with pytest.raises(FormatError, match=f"more than the {len(TEXT) - 1} bytes expected"):
        undo(data, name, limit=len(TEXT) - 1)
    with pytest.raises(FormatError, match="more than the 0 bytes expected"):
        undo(data, name, limit=0)


@pytest.mark.parametrize("claimed", [0, 5, 2**32 - 1])
def test_length_that_gzip_declares_is_checked_but_not_believed(claimed, gzip_library):
    data = gzip.compress(TEXT)[:-4] + struct.pack("<I", claimed)
    with pytest.raises(FormatError):
        undo(data, "gzip")


BOMB = (
    IMPORT
    + """
import zlib
from precomputed_store.codecs import content
from precomputed_store.errors import FormatError

if sys.argv[1] == "zlib":
    sys.modules["isal"] = None
compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
mebibyte = compressor.compress(bytes(1 << 20)) + compressor.flush(zlib.Z_FULL_FLUSH)
bomb = b"\\x1f\\x8b\\x08" + bytes(7) + (3 << 10) * mebibyte
before = forget_peak()
try:
    content.undo(bomb, "gzip", limit=64**3)
except FormatError as error:
    print(peak_bytes() - before, error)
"""
)


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is counted in other units")
@pytest.mark.parametrize("library", ["isal", "zlib"])
def test_three_gibibytes_of_zeros_cost_no_memory(library):
    command = [sys.executable, "-c", BOMB, library]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    grown, _, message = output.partition(" ")
    assert "more than the 262144 bytes expected" in message
    assert 0 < int(grown) < 100 << 20


@pytest.mark.parametrize("name", NAMES)
def test_inflation_stops_close_to_the_limit(name, gzip_library, monkeypatch):
    data = content.apply(bytes(20 << 20), name)
    produced = []
    original = content._opener

    def opener(*args, **options):
        new = original(*args, **options)

        class Counting:
            def __init__(self):
                self.stream = new()

            def __getattr__(self, attribute):
                return getattr(self.stream, attribute)

            def decompress(self, block, max_length):
                part = self.stream.decompress(block, max_length)
                produced.append(len(part))
                return part

        return Counting

    monkeypatch.setattr(content, "_opener", opener)
    with pytest.raises(FormatError, match="more than"):
        undo(data, name, limit=100_000)
    assert sum(produced) < 500_000


def test_many_empty_streams_do_not_take_quadratic_time(gzip_library):
    data = 20_000 * gzip.compress(b"", mtime=0)
    copied = 0

    class Counting:
        def __init__(self):
            self.stream = content._opener("gzip", allow_zlib=False)()

        def __getattr__(self, attribute):
            return getattr(self.stream, attribute)

        def decompress(self, block, max_length):
            nonlocal copied
            copied += len(block)
            return self.stream.decompress(block, max_length)

    assert content._inflate(data, "gzip", Counting, limit=0) == b""
    assert copied < 20 * len(data)


def test_zlib_streams_are_taken_for_gzip_only_when_asked(gzip_library):
    data = zlib.compress(TEXT)
    assert undo(data, "gzip", allow_zlib=True) == TEXT
    assert undo(gzip.compress(TEXT), "gzip", allow_zlib=True) == TEXT
    with pytest.raises(FormatError):
        undo(data, "gzip")
    for length in range(len(data)):
        with pytest.raises(FormatError):
            undo(data[:length], "gzip", allow_zlib=True)


def test_deflate_is_what_http_calls_zlib_streams():
    assert undo(zlib.compress(TEXT), "deflate") == TEXT


def test_xz_stream_that_asks_for_gigabytes_is_refused():
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 20}]
    data = bytearray(lzma.compress(TEXT, filters=filters))
    assert undo(data, "xz") == TEXT
    # The dictionary's size is the last byte of the filter; a checksum covers the header.
    header = data[12 : 12 + 4 * (data[12] + 1)]
    position = header.index(bytes([lzma.FILTER_LZMA2, 1])) + 2
    header[position] = 40
    header[-4:] = struct.pack("<I", zlib.crc32(header[:-4]))
    data[12 : 12 + len(header)] = header
    with pytest.raises(FormatError, match=r"[Mm]emory"):
        undo(data, "xz")


def test_several_encodings_are_undone_from_the_last_to_the_first():
    data = content.apply(content.apply(TEXT, "gzip"), "zstd")
    assert undo(data, "gzip, zstd") == TEXT
    with pytest.raises(FormatError):
        undo(data, "zstd, gzip")
    assert undo(content.apply(content.apply(b"", "gzip"), "gzip"), "gzip,gzip", limit=0) == b""


def test_a_bomb_in_between_is_noticed():
    data = content.apply(content.apply(bytes(50 << 20), "gzip", level=0), "gzip")
    with pytest.raises(FormatError, match="gzip stream holds more than"):
        undo(data, "gzip,gzip", limit=1000)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("", None),
        ("identity", None),
        ("aws-chunked", None),
        ("gzip", "gzip"),
        ("GZIP", "gzip"),
        ("x-gzip", "gzip"),
        ("gzip,aws-chunked", "gzip"),
        ("br", "br"),
        ("zstd", "zstd"),
        ("xz", "xz"),
        ("bzip2", "bz2"),
        ("x-bzip2", "bz2"),
        ("deflate", "deflate"),
        ("gzip , br", "gzip,br"),
        ("compress", "compress"),
    ],
)
def test_headers_say_what_is_left_to_undo(header, expected):
    assert content.from_header(header) == expected


def test_unknown_encoding_is_named_with_those_that_are_known():
    with pytest.raises(UnsupportedError, match="'compress' is unknown; known are gzip, br"):
        undo(b"data", "compress")
    with pytest.raises(ValueError, match="'compress'; expected one of gzip, br, zstd"):
        content.apply(b"data", "compress")


@pytest.mark.parametrize(
    ("name", "module"), [("br", "brotli"), ("zstd", "backports.zstd")], ids=["br", "zstd"]
)
def test_missing_library_names_the_extra(name, module, monkeypatch):
    if sys.version_info >= (3, 14) and name == "zstd":
        module = "compression.zstd"
    data = content.apply(TEXT, name)
    monkeypatch.setitem(sys.modules, module, None)
    for attempt in (lambda: undo(data, name), lambda: content.apply(TEXT, name)):
        with pytest.raises(UnsupportedError, match=r"precomputed-store\[fast\]"):
            attempt()


def test_brotli_that_cannot_stop_at_a_limit_is_not_used(monkeypatch):
    brotli = pytest.importorskip("brotli")
    monkeypatch.setattr(brotli, "Decompressor", type("Decompressor", (), {}))
    with pytest.raises(UnsupportedError, match=r"brotli 1\.2"):
        undo(b"data", "br")


@pytest.mark.parametrize("name", NAMES)
def test_the_same_bytes_come_out_every_time(name, monkeypatch):
    first = content.apply(TEXT, name)
    monkeypatch.setattr("time.time", lambda: 0.0)
    assert content.apply(TEXT, name) == first
    if name == "gzip":
        assert first[4:8] == bytes(4)


@pytest.mark.parametrize(
    ("name", "lowest", "highest"),
    [("gzip", 0, 9), ("br", 0, 11), ("zstd", 1, 22), ("xz", 0, 9), ("bz2", 1, 9)],
)
def test_levels_are_checked_and_used(name, lowest, highest):
    text = random.Random(3).randbytes(2000) + 50 * TEXT
    for level in (lowest, highest, np.int64(highest)):
        assert undo(content.apply(text, name, level=level), name, limit=len(text)) == text
    if name != "bz2":  # its level is the size of its blocks, larger than this text
        low, high = (len(content.apply(text, name, level=level)) for level in (lowest, highest))
        assert high < low
    for level in (lowest - 1, highest + 1, 5.0, "5", True):
        with pytest.raises(ValueError, match=f"level of {name} is"):
            content.apply(text, name, level=level)


class TestGuess:
    shape = (1, 4, 5, 6)
    dtype = np.dtype("uint8")

    def guess(self, data, codec):
        return content.guess(data, codec, shape=self.shape, dtype=self.dtype)

    @pytest.mark.parametrize("name", ["gzip", "zstd", "xz", "bz2"])
    def test_compressed_chunks_are_seen(self, name):
        voxels = np.arange(120, dtype=np.uint8).reshape(self.shape)
        assert self.guess(content.apply(Raw().encode(voxels), name), Raw()) == name
        assert self.guess(content.apply(Jpeg().encode(voxels), name), Jpeg()) == name

    @pytest.mark.parametrize("codec", [Raw(), Jpeg()])
    def test_chunks_as_they_are_are_left_alone(self, codec):
        assert self.guess(codec.encode(np.zeros(self.shape, np.uint8)), codec) is None

    @pytest.mark.parametrize(
        "magic", [b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ\0"]
    )
    def test_raw_voxels_that_look_compressed_are_voxels(self, magic):
        assert self.guess(magic.ljust(120, b"\0"), Raw()) is None
        assert self.guess(magic.ljust(119, b"\0"), Raw()) is not None

    def test_anything_else_is_for_the_codec_to_refuse(self):
        assert self.guess(b"<html>", Raw()) is None
        assert self.guess(b"", Jpeg()) is None
