"""The pieces that a journal is copied in (`data/copies.py`), by their names: which are whole, and which follow each other."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

PIECE = re.compile(r"journal/(\d{4,})-(\d{12})-(\d{12})\.jsonl")
MAX_PIECE = 16 * 1024 * 1024


class Piece(NamedTuple):
    """Bytes `start` to `end` of journal segment `segment`."""

    segment: int
    start: int
    end: int

    @property
    def name(self) -> str:
        return f"journal/{self.segment:04d}-{self.start:012d}-{self.end:012d}.jsonl"


def pieces(sizes: Mapping[str, int]) -> list[Piece]:
    """The whole ones among the files."""
    found = [(Piece(*map(int, m.groups())), size) for name, size in sizes.items() if (m := PIECE.fullmatch(name))]
    return sorted(piece for piece, size in found if piece.end - piece.start == size)


def chain(whole: Sequence[Piece], over_gaps: bool = True) -> list[Piece]:
    """The pieces of one segment that follow each other from its beginning, the longest first where several begin alike.

    `over_gaps`: go on with the next piece where one is missing, instead of ending there.
    """
    linked: list[Piece] = []
    for piece in sorted(whole, key=lambda p: (p.start, -p.end)):
        end = linked[-1].end if linked else 0
        if piece.start == end or (over_gaps and piece.start > end):
            linked.append(piece)
    return linked


def by_segment(whole: Iterable[Piece]) -> dict[int, list[Piece]]:
    found: dict[int, list[Piece]] = defaultdict(list)
    for piece in whole:
        found[piece.segment].append(piece)
    return dict(sorted(found.items()))


def cut(segment: int, start: int, end: int) -> Iterator[Piece]:
    """The pieces, none too long, that `start` to `end` is copied in."""
    while start < end:
        piece = Piece(segment, start, min(end, start + MAX_PIECE))
        yield piece
        start = piece.end
