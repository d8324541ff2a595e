"""Which prompts are for training and which are held out.

The split is a pure function of the prompt's text, so it is fixed before anything is trained, is the same in every
process and release, and cannot drift when rows are added, reordered or imported twice. A row has no say in it: two
rows with the same prompt always land on the same side.
"""

from __future__ import annotations

import hashlib
from typing import Literal

Split = Literal["train", "held_out"]


def split_of(prompt_text: str, held_out_share: float = 0.2) -> Split:
    """The side a prompt is on. `prompt_text` is its user turns joined as they stand; the share is of distinct prompts.

    Raising the share only moves prompts from train to held-out, never the other way.
    """
    digest = hashlib.sha256(prompt_text.encode("utf-8", "surrogatepass")).digest()
    return "held_out" if int.from_bytes(digest[:8], "big") < held_out_share * 2**64 else "train"
