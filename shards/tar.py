"""The 512-byte blocks of a tar: headers made, headers read."""

from __future__ import annotations

import tarfile
import zlib
from typing import NamedTuple

BLOCK = 512
RECORD = 10_240
_ZERO = bytes(BLOCK)
_SIZE_AT = 124
_CHECKSUM = slice(148, 156)


class Header(NamedTuple):
    """What a reader needs of a header.

    Attributes:
        name: path of the member.
        size: its length in bytes.
        kind: the type flag; `b"0"` is a regular file.
    """

    name: str
    size: int
    kind: bytes


def make_header(name: str, size: int) -> bytes:
    """The header of a regular file of `size` bytes; time, owner and mode are always the same.

    Raises:
        ValueError: the name is longer than 100 bytes, or the size 8 GiB or more.
    """
    encoded = name.encode()
    if len(encoded) > _SIZE_AT - 24 or size >= 8**11:
        return _tarfile_header(name, size)  # which says what is wrong, or finds another place for the name
    return usual_header(encoded, size)


def usual_header(name: bytes, size: int) -> bytes:
    """What `make_header` makes of a name of at most 100 bytes and less than 8 GiB."""
    digits = b"%011o" % size
    return b"".join(
        (
            name.ljust(100, b"\0"),
            _EMPTY[100:_SIZE_AT],
            digits,
            _EMPTY[_SIZE_AT + 11 : 148],
            b"%06o" % (_EMPTY_SUM + sum(name) + sum(digits)),
            _EMPTY[154:],
        )
    )


def _tarfile_header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o644
    return info.tobuf(format=tarfile.USTAR_FORMAT, encoding="utf-8", errors="strict")


# What all headers share: they differ in name, size and checksum, and are put together at a tenth of the
# time that a `TarInfo` takes.
_EMPTY = _tarfile_header("", 0)
_EMPTY_SUM = int(_EMPTY[148:154], 8) - sum(b"%011o" % 0)


def parse_header(block: bytes) -> Header | None:
    """Read a header; None for the zeros that end an archive. Bytes of the name that are not UTF-8 are
    written as `\\xff`.

    Raises:
        ValueError: it is not a header, or one with an altered byte.
    """
    if len(block) != BLOCK:
        raise ValueError("the tar ends in the middle of a header")
    if block == _ZERO:
        return None
    try:
        stored = _octal(block[_CHECKSUM])
        size = _octal(block[124:136])
    except ValueError:
        raise ValueError("not a tar header") from None
    # The checksum is the sum of the bytes, its own eight counted as blanks. Adler-32 has 1 + the sum of
    # the bytes modulo 65,521 in its lower half, and is many times as fast as sum().
    if ((zlib.adler32(block) & 0xFFFF) - 1 - sum(block[_CHECKSUM]) + 8 * 0x20 - stored) % 65_521:
        raise ValueError("the checksum of the tar header does not match")
    name = block[:100].split(b"\0", 1)[0]
    if block[257:263] == b"ustar\0" and block[345]:
        name = block[345:500].split(b"\0", 1)[0] + b"/" + name
    kind = block[156:157]
    return Header(name.decode("utf-8", "backslashreplace"), size, b"0" if kind == b"\0" else kind)


def padded(size: int) -> int:
    """`size` rounded up to whole blocks."""
    return -(-size // BLOCK) * BLOCK


def _octal(field: bytes) -> int:
    if field[0] & 0x80:  # GNU's base-256, for sizes of 8 GiB and more
        return int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
    digits = field.split(b"\0", 1)[0].strip() or b"0"
    if not digits.isdigit():  # int() would take signs and underscores too, and a negative size leads nowhere
        raise ValueError
    return int(digits, 8)
