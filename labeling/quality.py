"""What speaks against trusting a label, decided when it is cast. Flags are kept with it; an export may leave flagged labels out.

*Too fast*: below the time in which anybody could have looked at the texts. Adults read 238 words a minute (Brysbaert 2019, 190
studies), which at six characters a word is 24 characters a second; nobody who compares two answers goes ten times as fast, so the
floor is 1 ms per 0.24 characters of both answers. It is never under half a second, the reaction time that crowd-work tools use
(Potato's default), and never over five seconds, because one look can be enough to reject a long answer. This is a rule of thumb
on purpose: it catches clicking through, not quick readers, and pauses nobody.

*Unread*: a scrolling text whose end was never on the screen. *Identical*: both answers are the same text, so a choice between
them means nothing. *Extra*: the overlap was already met. *Reported*: the annotator says that
something is wrong with the item itself. A vote of somebody who knows the models, or before the answers are
written, gets no flag: it is refused (`studio/ask_tab.py`), because nothing may be trained on it.
"""

from __future__ import annotations

from collections.abc import Sequence

from data.records import Flag

READING_RATE = 24.0  # characters a second: 238 words a minute of six characters each, space included
FASTEST = 10 * READING_RATE
SHORTEST_MS = 500
LONGEST_MS = 5_000
READ = 0.95  # of a text seen: the rest is a rounded pixel or a blank last line


def floor_ms(lengths: Sequence[int]) -> int:
    """The time under which a label on answers of these lengths (characters) is `too_fast`."""
    return int(min(LONGEST_MS, max(SHORTEST_MS, 1000 * sum(lengths) / FASTEST)))


def flags_of_vote(
    dwell_ms: int | None,
    lengths: Sequence[int],
    read_share: float | None = None,
    *,
    skipped: bool = False,
    identical: bool = False,
    extra: bool = False,
    reported: bool = False,
) -> tuple[Flag, ...]:
    """The flags of one label, in a fixed order.

    `dwell_ms`: time the item was on the screen, None = not measured (imported). `lengths`: characters of the one or two answers.
    `read_share`: in [0, 1], of the text seen least; None = not measured. A skip needs no reading: it is never too fast or unread.
    """
    decided = not skipped
    raised: dict[Flag, bool] = {
        "too_fast": decided and dwell_ms is not None and dwell_ms < floor_ms(lengths),
        "unread": decided and read_share is not None and read_share < READ,
        "identical": identical,
        "extra": extra,
        "reported": reported,
    }
    return tuple(flag for flag, is_raised in raised.items() if is_raised)
