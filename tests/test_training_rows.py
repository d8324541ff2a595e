"""Frozen rows: what cannot be learned from is refused or left out in words; KTO's batches hold good and bad ones."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import RunError
from data.rundir import RunDir, Stopped
from tests.training_runs import assistant, dpo_rows, kto_rows, make_run, sft_rows, user
from training.config import DpoConfig, KtoConfig, SftConfig
from training.rows import Dropped, Rows, check_template, in_turn, kto_balance, kto_order, read_rows, usable, usable_or_refuse


class LetterTokenizer:
    """Renders as a chat template would, one token a letter; `end` after an answer, `other_prompt` where an answer follows."""

    def __init__(self, end: str = "$", other_prompt: str = "") -> None:
        self.end, self.other_prompt = end, other_prompt

    def apply_chat_template(self, messages: list[Any], add_generation_prompt: bool, **_: Any) -> dict[str, list[int]]:
        text = "".join("?" + m["content"] if m["role"] == "user" else ">" + m["content"] + self.end for m in messages)
        text = text + ">" if add_generation_prompt else self.other_prompt + text
        return {"input_ids": [ord(letter) for letter in text]}


def test_the_split_is_kept_and_other_columns_stay_out(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", "base", DpoConfig(), dpo_rows(6) + dpo_rows(2, "held_out"))
    rows = read_rows(run, "dpo")
    assert (len(rows.train), len(rows.held_out)) == (6, 2)
    ready = usable_or_refuse(rows, "dpo", LetterTokenizer(), 100, Dropped())
    assert set(ready.train[0]) == {"prompt", "chosen", "rejected"}


def test_a_changed_or_missing_file_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", "base", SftConfig(), sft_rows())
    (run.path / "data.parquet").write_bytes(b"PAR1 not what was frozen")
    with pytest.raises(RunError, match="has changed since it was frozen"):
        read_rows(run, "sft")
    (run.path / "data.parquet").unlink()
    with pytest.raises(RunError, match="missing"):
        read_rows(run, "sft")
    with pytest.raises(RunError, match="no data file; choose a snapshot"):
        read_rows(RunDir.create(tmp_path / "none", {"args": {}}), "sft")


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    from data.rundir import sha256_of

    file = tmp_path / "r" / "data.parquet"
    file.parent.mkdir()
    file.write_text("prompt,chosen\n")
    run = RunDir.create(tmp_path / "r2", {"data": {"file": "../r/data.parquet", "sha256": sha256_of(file)}})
    with pytest.raises(RunError, match="no readable Parquet"):
        read_rows(run, "dpo")


@pytest.mark.parametrize(
    ("method", "rows", "words"), [("dpo", sft_rows(), "no column 'chosen'"), ("kto", sft_rows(), "no column 'label'")]
)
def test_labels_of_the_wrong_kind_are_refused(tmp_path: Path, method: Any, rows: list[dict[str, Any]], words: str) -> None:
    run = make_run(tmp_path / "r", "base", DpoConfig(), rows)
    with pytest.raises(RunError, match=words):
        read_rows(run, method)


def test_kto_takes_pairs_apart(tmp_path: Path) -> None:
    rows = read_rows(make_run(tmp_path / "r", "base", KtoConfig(), dpo_rows(5)), "kto").train
    assert Counter(row["label"] for row in rows) == {True: 5, False: 5}
    assert {row["completion"][0]["content"] for row in rows if not row["label"]} == {"no"}


def test_what_cannot_be_learned_from_is_counted_and_named() -> None:
    good = dpo_rows(1)[0]
    rows = [
        good,
        good | {"prompt_id": "long", "prompt": user("x" * 50)},
        good | {"prompt_id": "cut", "chosen": assistant("y" * 50)},
        good | {"prompt_id": "same", "rejected": good["chosen"]},
        good | {"prompt_id": "empty", "chosen": assistant("  ")},
        good | {"prompt_id": "turn", "prompt": assistant("hello")},
        good | {"prompt_id": "null", "chosen": None},
    ]
    dropped = Dropped()
    kept = usable(rows, "dpo", LetterTokenizer(), 40, dropped)
    assert len(kept) == 2
    assert dropped.count == 5
    assert dropped.reasons["the prompt is longer than 40 tokens"].ids == ["long"]
    assert dropped.reasons["both answers are the same"].ids == ["same"]
    assert dropped.reasons["an answer is empty"].ids == ["empty"]
    assert dropped.truncated is not None
    assert dropped.truncated.ids == ["cut"]
    assert list(dropped.sentences()) == [
        f"1 row left out: the prompt is longer than 40 tokens (“{'x' * 50}”).",
        "1 row left out: both answers are the same (“Say sun 0”).",
        "1 row left out: an answer is empty (“Say sun 0”).",
        "1 row left out: the prompt is not a conversation that ends with a user turn (“hello”).",
        "1 row left out: an answer is not an assistant turn (“Say sun 0”).",
        "1 row with an answer that was cut at the length limit (“Say sun 0”).",
    ]
    assert dropped.to_json()["reasons"]["an answer is empty"] == {"rows": 1, "example": "Say sun 0"}
    assert "left out, an answer is empty: empty" in list(dropped.named())


def test_a_person_reads_how_many_and_a_piece_of_the_prompt_and_only_the_log_has_ids() -> None:
    row = dpo_rows(1)[0]
    rows = [
        row | {"prompt_id": f"9f{i}", "prompt": user("Tell me\n a  story about " + "very " * i + "long rain")} for i in range(30)
    ]
    rows.append(row | {"prompt_id": "9fx", "prompt": "no messages <img>"})
    dropped = Dropped()
    assert usable(rows, "dpo", LetterTokenizer(), 10, dropped) == []
    said = list(dropped.sentences())
    assert said == [
        "30 rows left out: the prompt is longer than 10 tokens (such as “Tell me a story about long rain”).",
        "1 row left out: the prompt is not a conversation that ends with a user turn.",
    ]
    assert "9f" not in json.dumps(dropped.to_json()) + " ".join(said)
    assert "9f0, 9f1," in next(dropped.named())
    assert "and 10 more" in next(dropped.named())
    long = Dropped()
    usable([rows[29]], "dpo", LetterTokenizer(), 10, long)
    assert len(next(iter(long.reasons.values())).example) == 60


def test_checking_rows_says_how_far_it_is_and_can_be_ended() -> None:
    said: list[tuple[str, int, int]] = []

    def say(what: str, done: int, total: int) -> None:
        said.append((what, done, total))
        if done == 7:
            raise Stopped

    with pytest.raises(Stopped):
        usable_or_refuse(Rows(dpo_rows(20), []), "dpo", LetterTokenizer(), 40, Dropped(), say)
    assert said == [("checking rows", i, 20) for i in range(8)]


def test_no_row_left_is_refused_with_the_most_frequent_reason() -> None:
    rows = [row | {"prompt": user("x" * 50)} for row in dpo_rows(3)]
    with pytest.raises(RunError, match=r"None of the 3 training rows .* longer than 40 tokens"):
        usable_or_refuse(Rows(rows, []), "dpo", LetterTokenizer(), 40, Dropped())
    with pytest.raises(RunError, match="no training rows; label some training prompts"):
        usable_or_refuse(Rows([], dpo_rows(2)), "dpo", LetterTokenizer(), 40, Dropped())


def test_a_template_that_would_spoil_the_training_is_refused() -> None:
    row = dpo_rows(1)[0]
    check_template(LetterTokenizer(), row, [ord("$")])
    with pytest.raises(RunError, match="never stop"):
        check_template(LetterTokenizer(end=""), row, [ord("$")])
    with pytest.raises(RunError, match="differently once an answer follows"):
        check_template(LetterTokenizer(other_prompt="#"), row, [ord("$")])


@given(st.integers(1, 60), st.integers(1, 60), st.integers(2, 16), st.integers(0, 5))
def test_every_kto_batch_is_whole_and_holds_both_labels_where_it_can(good: int, bad: int, batch: int, seed: int) -> None:
    rows = kto_rows(good, bad)
    order = kto_order(rows, batch, seed)
    parts = [order[i : i + batch] for i in range(0, len(order), batch)]
    assert len(order) % batch == 0
    assert len(parts) == -(-len(rows) // batch)
    assert {row["prompt_id"] for row in order} == {row["prompt_id"] for row in rows}, "no label is lost"
    both = sum(len({row["label"] for row in part}) == 2 for part in parts)
    assert both >= min(len(parts), good, bad)
    assert order == kto_order(rows, batch, seed)


def test_half_a_kto_batch_holds_both_kinds_too() -> None:
    rows = kto_order([{"label": i < 12, "n": i} for i in range(24)], 8, 1)
    turns = in_turn(rows, 8)
    for first in (0, 8, 16):
        assert {row["n"] for row in turns[first : first + 8]} == {row["n"] for row in rows[first : first + 8]}
    assert all({row["label"] for row in turns[first : first + 4]} == {True, False} for first in range(0, 24, 4))


def test_kto_weights_follow_the_balance() -> None:
    for good, bad in ((10, 10), (30, 10), (10, 30), (13, 10), (399, 1)):
        weights = kto_balance(kto_rows(good, bad), 0.0, 0.0)
        ratio = weights.desirable * good / (weights.undesirable * bad)
        assert 1 - 1e-9 <= ratio <= 4 / 3 + 1e-9
        assert min(weights) == 1.0
    assert kto_balance(kto_rows(10, 30), 2.0, 0.5) == (2.0, 0.5)
    with pytest.raises(RunError, match="same label"):
        kto_balance(kto_rows(5, 0), 0.0, 0.0)
