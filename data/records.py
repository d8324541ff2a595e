"""The studio's records: one frozen dataclass a table, field = column = JSON key (`data/schema/001_core.sql` says what each
column means).

JSON columns are decoded here and nowhere else: `messages` is a tuple of Message, settings are dicts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from functools import cache
from typing import Any, Literal, TypeVar

from data.engine import Message

Task = Literal["pairwise", "binary"]
Split = Literal["train", "held_out"]
Preference = Literal["a", "b", "tie", "both_bad", "skip", "good", "bad"]
LabelEventType = Literal["cast", "revised", "retracted", "excluded", "restored"]
Strength = Literal["", "slightly", "clearly"]
Flag = Literal["too_fast", "unread", "identical", "empty", "truncated", "error_text", "identity_leak", "extra", "reported"]
Outcome = Literal["first", "second", "tie", "both_bad", "good", "bad"]  # a preference in the pair's own order, sides undone
Policy = Literal["stratified_random", "close_call", "judge_disagreement"]
Role = Literal["annotator", "researcher", "admin"]
ImpressionKind = Literal["normal", "gold", "repeat", "imported"]
ModelKind = Literal["base", "adapter", "endpoint", "judge", "reward"]
RunKind = Literal[
    "sft", "dpo", "kto", "orpo", "simpo", "reward", "rloo", "grpo",
    "preflight", "generate", "compare", "merge", "gguf", "hub_import", "hub_push", "hub_model",
]  # fmt: skip
RunStatus = Literal["queued", "running", "finished", "failed", "stopped", "lost"]
SnapshotLayout = Literal["preference", "binary", "sft", "prompts"]
PersonKind = Literal["local", "visitor", "simulated", "imported", "account"]

PAIRWISE_PREFERENCES: tuple[Preference, ...] = ("a", "b", "tie", "both_bad", "skip")
BINARY_PREFERENCES: tuple[Preference, ...] = ("good", "bad", "skip")


def content_id(*parts: object) -> str:
    """24 hex digits of the sha256 of the parts' JSON: the id of a thing that is what it contains."""
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False, default=str).encode()).hexdigest()[:24]


@dataclass(frozen=True)
class ProjectSettings:
    """How a project is labelled; every field may be changed while labelling goes on and counts from then.

    `overlap`: labels an item needs. `adaptive`: two labels that agree are enough, else up to `max_overlap`; a share
    `full_overlap` of the items, fixed by hash, always gets `max_overlap`, so that agreement stays unbiased. `gold_rate` and
    `repeat_rate`: share of what a person is shown that is a silent gold item, or one of their earlier items with sides swapped.
    `random_share` of what `policy` serves is drawn at random all the same (never under 0.25). `sources`: names of the models
    whose answers are labelled, empty = all. `target`: labels wanted, 0 = every item.
    """

    strength: bool = False
    reasons: tuple[str, ...] = ()
    notes: bool = False
    overlap: int = 1
    adaptive: bool = False
    max_overlap: int = 5
    full_overlap: float = 0.15
    gold_rate: float = 0.05
    repeat_rate: float = 0.05
    policy: Policy = "stratified_random"
    random_share: float = 0.25
    sources: tuple[str, ...] = ()
    target: int = 0
    leak_phrases: tuple[str, ...] = ()  # beside the built-in ones


@dataclass(frozen=True)
class Project:
    project_id: str
    name: str
    task: Task
    guidelines: str
    owner: str
    is_demo: bool
    created_at: datetime
    archived_at: datetime | None = None
    settings: ProjectSettings = ProjectSettings()


@dataclass(frozen=True)
class Prompt:
    prompt_id: str
    project_id: str
    messages: tuple[Message, ...]
    follow_up: tuple[str, ...]
    reference: str
    category: str
    source: str
    external_id: str
    split: Split
    created_at: datetime

    @property
    def text(self) -> str:
        """The last user turn: what a person is shown as "the prompt"."""
        return self.messages[-1].content


@dataclass(frozen=True)
class Completion:
    completion_id: str
    prompt_id: str
    project_id: str
    text: str
    origin: Literal["generated", "imported"]
    model: str
    model_id: str
    run_id: str
    sampling: dict[str, Any]
    seed: int
    sample_index: int
    finish_reason: str
    created_at: datetime
    flags: tuple[Flag, ...] = ()


@dataclass(frozen=True)
class Pair:
    pair_id: str
    project_id: str
    prompt_id: str
    completion_a: str
    completion_b: str
    rank: int
    created_at: datetime


@dataclass(frozen=True)
class Person:
    annotator_id: str
    name: str
    kind: PersonKind
    project_id: str
    created_at: datetime
    role: Role = "annotator"
    pseudonym_key: str = ""


@dataclass(frozen=True)
class Impression:
    impression_id: str
    project_id: str
    annotator_id: str
    prompt_id: str
    pair_id: str
    left_completion_id: str
    right_completion_id: str
    task: Task
    kind: ImpressionKind
    policy: str
    probability: float
    served_at: datetime
    lease_expires_at: datetime
    repeat_of: str = ""


@dataclass(frozen=True)
class LabelEvent:
    """`seq`, the resolved completions and `created_at` are filled in at commit by `data/labels.py`."""

    event_id: str
    impression_id: str
    project_id: str
    annotator_id: str
    event: LabelEventType
    preference: Preference | Literal[""]
    chosen_completion_id: str = ""
    rejected_completion_id: str = ""
    note: str = ""
    dwell_ms: int = 0
    simulated: bool = False
    client_at: datetime | None = None
    seq: int = 0
    created_at: datetime | None = None
    strength: Strength = ""
    reasons: tuple[str, ...] = ()
    flags: tuple[Flag, ...] = ()
    read_share: float = 1.0
    actor: str = ""


@dataclass(frozen=True)
class Gold:
    """What the right answer to an item is; the newest row of an item counts, `outcome` '' withdraws it."""

    gold_id: str
    project_id: str
    item_id: str
    outcome: Outcome | Literal[""]
    source: Literal["entered", "unanimous"]
    actor: str
    note: str
    created_at: datetime


@dataclass(frozen=True)
class Adjudication:
    """A researcher's decision on an item the annotators disagree on; the newest counts, `outcome` '' takes it back."""

    adjudication_id: str
    project_id: str
    item_id: str
    outcome: Outcome | Literal[""]
    reason: str
    actor: str
    created_at: datetime


@dataclass(frozen=True)
class Account:
    """Who may sign in. `password_hash` '' = signs in elsewhere; a cookie signed before `sessions_from` is no longer good."""

    annotator_id: str
    login: str
    password_hash: str
    sessions_from: datetime
    created_at: datetime
    disabled_at: datetime | None = None


@dataclass(frozen=True)
class Invitation:
    """`invitation_id` is the hash of the token in the link."""

    invitation_id: str
    role: Role
    project_id: str
    invited_by: str
    created_at: datetime
    expires_at: datetime
    used_by: str = ""
    withdrawn_at: datetime | None = None


@dataclass(frozen=True)
class Member:
    member_id: str
    project_id: str
    annotator_id: str
    added_at: datetime
    removed_at: datetime | None = None


@dataclass(frozen=True)
class Model:
    model_id: str
    project_id: str
    owner: str
    name: str
    kind: ModelKind
    spec: dict[str, Any]
    run_id: str
    parent_model_id: str
    created_at: datetime
    removed_at: datetime | None = None


@dataclass(frozen=True)
class Snapshot:
    snapshot_id: str
    project_id: str
    layout: SnapshotLayout
    path: str
    sha256: str
    rows: int
    manifest: dict[str, Any]
    created_at: datetime


@dataclass(frozen=True)
class Run:
    run_id: str
    project_id: str
    owner: str
    kind: RunKind
    name: str
    module: str
    status: RunStatus
    device: str
    config: dict[str, Any]
    snapshot_id: str
    pid: int
    pid_created: float
    event_offset: int
    progress: dict[str, Any]
    result: dict[str, Any]
    error: str
    queued_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    place: float = 0.0
    group_id: str = ""
    earlier_s: float = 0.0


@dataclass(frozen=True)
class Judgment:
    judgment_id: str
    run_id: str
    project_id: str
    prompt_id: str
    sample_index: int
    model_a: str
    model_b: str
    completion_a: str
    completion_b: str
    judge: str
    p_ab: float | None
    p_ba: float | None
    p: float | None
    verdict: Literal["a", "b", "tie", ""]
    flipped: bool | None
    unscored: str
    created_at: datetime
    raw: dict[str, Any] = field(default_factory=dict)
    rule_a: bool | None = None
    rule_b: bool | None = None


# --- rows <-> records -------------------------------------------------------------------------------------------------------

R = TypeVar("R")
JSON_FIELDS = frozenset(
    {"messages", "follow_up", "sampling", "spec", "manifest", "config", "progress", "result", "raw", "settings", "reasons", "flags"}
)
TUPLES = frozenset({"follow_up", "reasons", "flags"})


def now() -> datetime:
    return datetime.now(UTC)


def to_row(record: Any) -> dict[str, Any]:
    """A record as a table row: JSON fields as text, the rest as it is."""
    kind: Any = type(record)
    names, held = _names(kind), vars(record)
    return {name: _encode(name, held[name]) if name in JSON_FIELDS else held[name] for name in names}


def from_row(kind: type[R], row: Mapping[str, Any]) -> R:
    """A table row as a record; further columns (from a join) are ignored."""
    plain: Any = kind
    return kind(**{name: _decode(name, row[name]) for name in _names(plain)})


@cache
def _names(kind: Any) -> tuple[str, ...]:
    return tuple(f.name for f in fields(kind))


_dump = json.JSONEncoder(ensure_ascii=False).encode  # made once: `json.dumps` makes one a call


def _encode(name: str, value: Any) -> str:
    if value == ():
        return "[]"  # most labels have neither reasons nor flags
    plain = [m._asdict() for m in value] if name == "messages" else asdict(value) if name == "settings" else value
    return _dump(plain)


def _decode(name: str, value: Any) -> Any:
    if name not in JSON_FIELDS:
        return value
    decoded = json.loads(value)
    if name == "messages":
        return tuple(Message(m["role"], m["content"]) for m in decoded)
    if name == "settings":
        known = set(_names(ProjectSettings))
        stored: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in decoded.items() if k in known}
        return ProjectSettings(**stored)
    return tuple(decoded) if name in TUPLES else decoded
