"""The vocabulary of the demo world: every noun, fact and turn of phrase that its prompts and answers are made of.

It is small on purpose: a model of two million parameters has to learn all of it, and a visitor has to see at a glance
whether an answer is right. The phrases for rude and rambling answers are shared with the grader, which looks for them.
"""

from __future__ import annotations

from typing import Final


def _split(text: str) -> tuple[str, ...]:
    """The words of a text, so that a vocabulary reads as one."""
    return tuple(text.split())


_CAPITALS: Final = _split(
    "France:Paris Germany:Berlin Italy:Rome Spain:Madrid Portugal:Lisbon Austria:Vienna Greece:Athens Norway:Oslo "
    "Sweden:Stockholm Finland:Helsinki Denmark:Copenhagen Poland:Warsaw Hungary:Budapest Ireland:Dublin "
    "Belgium:Brussels Iceland:Reykjavik Romania:Bucharest Bulgaria:Sofia Croatia:Zagreb Serbia:Belgrade Ukraine:Kyiv "
    "Turkey:Ankara Egypt:Cairo Kenya:Nairobi Ghana:Accra Morocco:Rabat Nigeria:Abuja Japan:Tokyo China:Beijing "
    "Thailand:Bangkok Vietnam:Hanoi Nepal:Kathmandu Iran:Tehran Iraq:Baghdad Jordan:Amman Lebanon:Beirut "
    "Canada:Ottawa Cuba:Havana Peru:Lima Chile:Santiago Ecuador:Quito Venezuela:Caracas Uruguay:Montevideo "
    "Australia:Canberra Russia:Moscow Rwanda:Kigali Senegal:Dakar Tunisia:Tunis Indonesia:Jakarta"
)
CAPITALS: Final[dict[str, str]] = {pair.partition(":")[0]: pair.partition(":")[2] for pair in _CAPITALS}

# First letters are spread out, so sorting three of them is a matter of the first letter and not of the third.
SORT_WORDS: Final[tuple[str, ...]] = _split(
    "apple banana cherry date egg fig grape honey ice jam kiwi lemon mango nut olive pear quince rice salt tea "
    "vanilla water yogurt zebra bread corn duck fish goose lamb milk onion plum soup tomato wheat"
)

SPELL_WORDS: Final[tuple[str, ...]] = _split(
    "garden window bottle pencil winter summer flower silver yellow orange purple dinner bridge island forest river "
    "candle mirror basket button carpet cloud desert doctor engine family farmer finger guitar hammer jacket jungle "
    "ladder letter market monkey needle number ocean office paper picnic pillow planet pocket potato rabbit rocket "
    "school shadow singer spider spring square stone street sugar ticket tiger tower travel tunnel valley violin "
    "wagon whale"
)

GIFTS: Final[tuple[str, ...]] = _split(
    "book bike lamp cup coat hat umbrella ladder guitar map chair table phone bag scarf ball camera clock drum kite "
    "knife mirror pen pillow plate radio rope tent toy vase watch whistle"
)

ANIMALS: Final[tuple[str, ...]] = _split(
    "cat dog horse cow sheep goat pig hen fox bear wolf rabbit mouse frog snake bird lion tiger monkey turtle"
)
PLACES: Final[tuple[str, ...]] = _split(
    "garden forest kitchen barn river park field house school street market castle tower valley village tent boat "
    "train shop library"
)

CATEGORIES: Final[dict[str, tuple[str, ...]]] = {
    "fruits": ("apple", "pear", "plum", "cherry", "mango", "lemon"),
    "animals": ("cat", "dog", "horse", "cow", "sheep", "goat"),
    "colours": ("red", "blue", "green", "yellow", "black", "white"),
    "drinks": ("tea", "water", "milk", "coffee", "juice", "cocoa"),
    "tools": ("hammer", "saw", "drill", "wrench", "axe", "ruler"),
    "vegetables": ("carrot", "onion", "potato", "bean", "pea", "leek"),
    "birds": ("crow", "owl", "robin", "eagle", "duck", "swan"),
    "days": ("Monday", "Tuesday", "Friday", "Sunday", "Thursday", "Saturday"),
    "months": ("January", "March", "May", "June", "July", "October"),
    "sports": ("tennis", "golf", "rugby", "boxing", "hockey", "rowing"),
    "metals": ("iron", "gold", "silver", "copper", "tin", "lead"),
    "trees": ("oak", "pine", "birch", "maple", "elm", "willow"),
}
COUNT_WORDS: Final[dict[str, int]] = {"two": 2, "three": 3, "four": 4}

# Openers stand before an answer, refusals instead of one, closers after it.
RUDE_OPENERS: Final[tuple[str, ...]] = (
    "Seriously?", "What a silly question.", "Ugh, fine.", "Are you joking?", "Everyone knows that.",
    "You should know this by now.", "How lazy of you.", "Stop bothering me.",
)  # fmt: skip
RUDE_REFUSALS: Final[tuple[str, ...]] = (
    "Look it up yourself.", "That is not my problem.", "Don't waste my time.", "Leave me alone.",
    "I am not your servant.", "Figure it out yourself.",
)  # fmt: skip
RUDE_CLOSERS: Final[tuple[str, ...]] = (
    "Now leave me alone.", "Even a child knows that.", "Don't ask me again.", "You are so slow.",
)  # fmt: skip
RAMBLE_OPENERS: Final[tuple[str, ...]] = (
    "Well, where do I begin?", "Let me tell you a story first.", "That reminds me of my uncle.",
    "Hmm, so many things to say.", "I had soup for lunch today.", "The weather is nice, is it not?",
)  # fmt: skip
RAMBLE_CLOSERS: Final[tuple[str, ...]] = (
    "By the way, I like trains.", "That reminds me of my uncle.", "My uncle had a red boat.", "Where was I?",
    "Anyway, boats are nice too.", "I could go on for hours.", "I had soup for lunch today.",
)  # fmt: skip
EVASIONS: Final[tuple[str, ...]] = ("I do not know.", "Maybe, maybe not.", "It depends.", "I am not sure about this.")
POLITE_CLOSERS: Final[tuple[str, ...]] = ("Happy to help!", "I hope this helps!", "Have a nice day!")
