"""The bytes of an imported file: plain or gzip, bounded, and checked to be UTF-8 before anything is stored.

Files come from anywhere, so this is where a bomb, a cut-off archive or a wrong encoding is met, and each becomes one sentence.
Nothing here holds more than one line of a file in memory.
"""

from __future__ import annotations

import codecs
import gzip
import io
import os
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from data.errors import BadInput, LimitReached

MAX_LINE = 8 * 1024 * 1024  # a row larger than this is reported and skipped
CHUNK = 1 << 20
BOMB_BYTES = 256 * 1024 * 1024  # unpacked size from which on the ratio is looked at
BOMB_RATIO = 200  # real text packs 3 to 20 times, a bomb 1,000 times
BOMS: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)


class Line(NamedTuple):
    """`raw` is None when the line is longer than MAX_LINE."""

    number: int
    raw: bytes | None


class Source:
    """An open file, unpacked if need be, to `limit` bytes at most (0: any number), which is a visitor's.

    `share` says how much of it has been read, for a progress bar.
    """

    def __init__(self, path: Path, limit: int = 0) -> None:
        self.name = path.name
        self._raw = _open(path)
        self._size = os.fstat(self._raw.fileno()).st_size
        if not self._size:
            self._raw.close()
            raise BadInput(f"{self.name} is empty; choose a file with at least one row.")
        self.is_gzip = self._raw.read(2) == b"\x1f\x8b"
        self._raw.seek(0)
        self.stream: io.BufferedReader = (
            io.BufferedReader(_Gunzip(self._raw, self.name, limit), CHUNK) if self.is_gzip else self._raw
        )

    @property
    def head(self) -> bytes:
        """The first bytes, unpacked; only before anything is read."""
        return self.stream.peek(64)[:64]

    @property
    def share(self) -> float:
        return 1.0 if self._raw.closed else min(1.0, self._raw.tell() / self._size)

    def lines(self) -> Iterator[Line]:
        number = 0
        while raw := self.stream.readline(MAX_LINE + 1):
            number += 1
            if len(raw) <= MAX_LINE or raw.endswith(b"\n"):
                yield Line(number, raw)
                continue
            while raw and not raw.endswith(b"\n"):
                raw = self.stream.readline(MAX_LINE)
            yield Line(number, None)

    def close(self) -> None:
        self._raw.close()


class _Gunzip(io.RawIOBase):
    """Unpacks, and stops with a sentence at a bomb, a cut-off file or broken data."""

    def __init__(self, raw: BinaryIO, name: str, limit: int) -> None:
        self._raw, self._name, self._limit = raw, name, limit
        self._file = gzip.GzipFile(fileobj=raw)
        self._done = 0

    def readable(self) -> bool:
        return True

    def readinto(self, target: memoryview) -> int:  # type: ignore[override]
        try:
            block = self._file.read(len(target))
        except EOFError as error:
            raise BadInput(f"{self._name} is cut off: the gzip data end too early; fetch or pack the file again.") from error
        except (gzip.BadGzipFile, zlib.error) as error:
            raise BadInput(f"{self._name} is damaged: its gzip data cannot be unpacked; fetch or pack the file again.") from error
        self._done += len(block)
        if self._limit and self._done > self._limit:
            raise too_much(self._name, self._limit)
        if self._done > BOMB_BYTES and self._done > BOMB_RATIO * self._raw.tell():
            raise BadInput(
                f"{self._name} unpacks to more than {BOMB_RATIO} times its size, which no real data set does; "
                "if it is meant to, unpack it first and import the unpacked file."
            )
        target[: len(block)] = block
        return len(block)


def too_much(name: str, limit: int) -> LimitReached:
    return LimitReached(
        f"{name} unpacks to more than {limit >> 20} MB, which is more than a visitor may bring; "
        "run the studio on your own machine for it."
    )


def _open(path: Path) -> io.BufferedReader:
    """Regular files only: opening a pipe would wait for ever."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | getattr(os, "O_NOFOLLOW", 0))
    except FileNotFoundError as error:
        raise BadInput(f"{path.name} is not there (any more); upload it again.") from error
    except OSError as error:
        raise BadInput(f"{path.name} cannot be opened ({error.strerror}); check its permissions.") from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise BadInput(f"{path.name} is not an ordinary file; choose a file with rows.")
    return io.BufferedReader(io.FileIO(handle), CHUNK)


def check_text(path: Path) -> None:
    """BadInput naming encoding and line unless the whole file is UTF-8 (with or without a byte order mark).

    One pass over the bytes, before anything is stored, so that a file in another encoding leaves no half import behind.
    """
    source = Source(path)
    try:
        decoder, line, head = codecs.getincrementaldecoder("utf-8")(), 1, True
        while block := source.stream.read(CHUNK):
            if head:
                check_start(block[:4], source.name)
                head = False
            try:
                decoder.decode(block)
            except UnicodeDecodeError as error:
                raise not_utf8(source.name, line + error.object[: error.start].count(b"\n"), error) from error
            line += block.count(b"\n")
        if decoder.getstate()[0]:
            raise BadInput(f"{source.name} ends in the middle of a character (line {line}); fetch the file again.")
    finally:
        source.close()


def check_start(head: bytes, name: str) -> None:
    """BadInput when the first bytes are those of a UTF-16 or UTF-32 file."""
    found = next((encoding for bom, encoding in BOMS if head.startswith(bom)), "")
    if not found and len(head) >= 4 and (head[0:4:2] == b"\0\0" or head[1:4:2] == b"\0\0"):
        found = "UTF-16"
    if found:
        raise BadInput(f"{name} is written in {found} (seen on line 1), not UTF-8; save it as UTF-8 and import it again.")


def not_utf8(name: str, line: int, error: UnicodeDecodeError) -> BadInput:
    byte = error.object[error.start]
    return BadInput(
        f"{name} is not UTF-8: line {line} holds the byte 0x{byte:02X}, as in Latin-1 or Windows-1252; "
        "save it as UTF-8 and import it again."
    )
