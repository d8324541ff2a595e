"""Rows as tokens and tensors: every row once, parts within their budget, completions that cannot see each other."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.preference_rows import Item, block_mask, deal, pack, parts, with_others

pytestmark = pytest.mark.model

CPU = torch.device("cpu")
ROW = Item((1, 2, 3), ((4, 5), (6, 7, 8)))
lengths = st.lists(st.integers(1, 400), min_size=1, max_size=70)


@given(lengths=lengths, batch=st.integers(1, 9), seed=st.integers(0, 5), epoch=st.integers(0, 3))
@settings(max_examples=40)
def test_an_epoch_holds_every_row_once(lengths: list[int], batch: int, seed: int, epoch: int) -> None:
    batches = deal(lengths, batch, seed, epoch)
    assert sorted(i for part in batches for i in part) == list(range(len(lengths)))
    assert len(batches) == -(-len(lengths) // batch)
    assert sorted(map(len, batches))[1:] == [batch] * (len(batches) - 1)
    assert deal(lengths, batch, seed, epoch) == batches


def test_rows_of_like_length_go_together_and_the_order_changes_by_epoch() -> None:
    lengths = [10, 500] * 32
    batches = deal(lengths, 8, 0, 0)
    assert all(len({lengths[i] for i in batch}) == 1 for batch in batches)
    assert batches != deal(lengths, 8, 0, 1)


@given(
    rows=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 20), st.integers(1, 20)), min_size=1, max_size=20),
    budget=st.integers(1, 300),
    layout=st.sampled_from(["shared", "apart"]),
)
@settings(max_examples=40)
def test_parts_hold_every_row_once_and_keep_the_budget(rows: list[tuple[int, int, int]], budget: int, layout: str) -> None:
    items = [Item((i,) * p, ((i,) * c, (i,) * r)) for i, (p, c, r) in enumerate(rows)]
    cut = list(parts(items, layout, budget))  # type: ignore[arg-type]
    assert sorted(item.prompt[0] for part in cut for item in part) == list(range(len(rows)))
    for part in cut:
        packed = pack(part, layout, 0, CPU)  # type: ignore[arg-type]
        assert packed.ids.numel() <= budget or len(part) == 1
        assert packed.counts == [len(completion) for item in part for completion in item.completions]


def test_a_shared_row_is_laid_out_with_positions_that_restart() -> None:
    packed = pack([ROW], "shared", 0, CPU)
    assert packed.ids.tolist() == [[1, 2, 3, 4, 5, 6, 7, 8]]
    assert packed.positions is not None
    assert packed.positions.tolist() == [[0, 1, 2, 3, 4, 3, 4, 5]]
    assert packed.at.tolist() == [2, 3, 2, 5, 6], "both completions begin after the prompt's last token"
    assert packed.targets.tolist() == [4, 5, 6, 7, 8]


def test_the_rejected_completion_cannot_see_the_chosen_one() -> None:
    mask = block_mask(torch.tensor([[0, 0, 0, 1, 1, 2, 2, 2, -1, -1]]))[0, 0]
    seen = {query: set(torch.nonzero(mask[query])[:, 0].tolist()) for query in range(10)}
    assert seen[2] == {0, 1, 2}
    assert seen[4] == {0, 1, 2, 3, 4}
    assert seen[5] == {0, 1, 2, 5}
    assert seen[7] == {0, 1, 2, 5, 6, 7}
    assert seen[8] == {8}
    assert seen[9] == {8, 9}, "padding sees padding, and no row is empty"


def test_a_mask_to_be_added_says_the_same() -> None:
    boolean, added = pack([ROW], "shared", 0, CPU).mask, pack([ROW], "shared", 0, CPU, torch.float32).mask
    assert boolean is not None
    assert added is not None
    assert torch.equal(added == 0, boolean)
    assert (added[~boolean] < -1e30).all()


def test_apart_each_completion_has_its_prompt() -> None:
    packed = pack([ROW], "apart", 0, CPU)
    assert packed.ids.tolist() == [[1, 2, 3, 4, 5, 0], [1, 2, 3, 6, 7, 8]]
    assert packed.at.tolist() == [2, 3, 8, 9, 10]


def test_kto_pairs_each_prompt_with_its_neighbours_completion() -> None:
    rows = [Item((i,), ((10 + i, 20 + i),)) for i in range(5)]
    assert [row.other for row in with_others(rows, 3, 2)] == [(12,), (10,), (11,), (14,), (13,)]
