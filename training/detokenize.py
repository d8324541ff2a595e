"""Token ids to text, piece by piece: half a character is held back, and so is what may become a stop string.

What is streamed and what a finished result holds come from the same object, so they cannot differ.
"""

from __future__ import annotations

from collections.abc import Sequence

from training.chat import Tokenizer

HALF = "\ufffd"  # what a byte-level tokenizer decodes an incomplete character to
PATIENCE = 8  # tokens: a character has four bytes at most; after that the model really wrote a replacement character


class TextBuffer:
    """The text of one reply. `push` takes a token and returns what can be shown of it; `stopped` is set when a stop string occurs.

    `text` is everything settled so far, without the stop string. Where nobody watches (no stream, no stop string) tokens are only
    collected and decoded at the end.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = (), streaming: bool = True) -> None:
        self.tokenizer = tokenizer
        self.stop = tuple(s for s in stop if s)
        self.watched = streaming or bool(self.stop)
        self.text = ""
        self.stopped = False
        self._held = ""  # settled, but perhaps the beginning of a stop string
        self._ids: list[int] = []
        self._start = 0  # the window that is decoded: a token's text can depend on the one before
        self._read = 0  # tokens whose text is settled

    def push(self, token: int) -> str:
        self._ids.append(token)
        return self._take(self._settle(False)) if self.watched else ""

    def finish(self) -> str:
        """What was held back; the reply is over."""
        if self.stopped:
            return ""
        shown = self._take(self._settle(True))
        if self.stopped:
            return shown
        rest, self._held = self._held, ""
        self.text += rest
        return shown + rest

    def _settle(self, last: bool) -> str:
        before = self._decode(self._ids[self._start : self._read])
        now = self._decode(self._ids[self._start :])
        waiting = len(self._ids) - self._read
        if not last and (waiting == 0 or (now.endswith(HALF) and waiting < PATIENCE)):
            return ""
        self._start, self._read = self._read, len(self._ids)
        return now[len(before) :]

    def _take(self, new: str) -> str:
        if not new:
            return ""
        pending = self._held + new
        found = [at for s in self.stop if (at := pending.find(s)) >= 0]
        if found:
            self.stopped = True
            shown, self._held = pending[: min(found)], ""
        else:
            keep = max((_overlap(pending, s) for s in self.stop), default=0)
            shown, self._held = pending[: len(pending) - keep], pending[len(pending) - keep :]
        self.text += shown
        return shown

    def _decode(self, ids: Sequence[int]) -> str:
        if not ids:
            return ""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
