"""Reference log-probabilities on disk: found again, never from another reference, never from a damaged record."""

from __future__ import annotations

import fcntl
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.rundir import RunDir
from training import reference_cache
from training.reference_cache import ReferenceCache, cache_folder, weights_id

REFERENCE = {"base": "a", "parent": "", "template": "t"}
ROWS = [((1, 2), (3,), -1.5), ((1, 2), (4, 5), -2.25), ((1,), (2, 3), -math.pi)]


def test_what_was_put_is_found_by_the_next_run(tmp_path: Path) -> None:
    ReferenceCache(tmp_path, REFERENCE).put(ROWS)
    again = ReferenceCache(tmp_path, REFERENCE)
    assert [again.get(prompt, completion) for prompt, completion, _ in ROWS] == [value for *_, value in ROWS]
    assert again.get((9,), (9,)) is None
    assert (again.hits, again.misses) == (3, 1)


def test_where_the_prompt_ends_is_part_of_the_key(tmp_path: Path) -> None:
    cache = ReferenceCache(tmp_path, REFERENCE)
    cache.put([((1, 2), (3,), -1.0)])
    assert cache.get((1,), (2, 3)) is None
    assert cache.get((1, 2), (3,)) == -1.0


@pytest.mark.parametrize("part", list(REFERENCE))
def test_another_reference_knows_nothing_of_it(tmp_path: Path, part: str) -> None:
    ReferenceCache(tmp_path, REFERENCE).put(ROWS)
    assert ReferenceCache(tmp_path, {**REFERENCE, part: "other"}).get(*ROWS[0][:2]) is None


@given(at=st.integers(0, 95), bit=st.integers(0, 7))
def test_a_flipped_bit_costs_one_row_and_nothing_is_believed(tmp_path_factory: pytest.TempPathFactory, at: int, bit: int) -> None:
    folder = tmp_path_factory.mktemp("cache")
    cache = ReferenceCache(folder, REFERENCE)
    cache.put(ROWS)
    raw = bytearray(cache.path.read_bytes())
    raw[at] ^= 1 << bit
    cache.path.write_bytes(bytes(raw))
    found = [ReferenceCache(folder, REFERENCE).get(prompt, completion) for prompt, completion, _ in ROWS]
    assert found == [None if i == at // 32 else value for i, (*_, value) in enumerate(ROWS)]


@pytest.mark.parametrize("left", [0, 1, 31, 32, 50, 64, 95])
def test_a_torn_end_is_written_over(tmp_path: Path, left: int) -> None:
    cache = ReferenceCache(tmp_path, REFERENCE)
    cache.put(ROWS)
    cache.path.write_bytes(cache.path.read_bytes()[:left])
    torn = ReferenceCache(tmp_path, REFERENCE)
    found = [torn.get(prompt, completion) for prompt, completion, _ in ROWS]
    assert found == [value if i < left // 32 else None for i, (*_, value) in enumerate(ROWS)]
    torn.put(ROWS)
    healed = ReferenceCache(tmp_path, REFERENCE)
    assert all(healed.get(prompt, completion) == value for prompt, completion, value in ROWS)
    assert healed.path.stat().st_size % 32 == 0


def test_two_runs_may_write_at_once(tmp_path: Path) -> None:
    def write(number: int) -> None:
        ReferenceCache(tmp_path, REFERENCE).put([((number, i), (i,), -float(i)) for i in range(50)])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    cache = ReferenceCache(tmp_path, REFERENCE)
    assert all(cache.get((number, i), (i,)) == -float(i) for number in range(4) for i in range(50))


def test_a_run_that_was_suspended_while_it_wrote_keeps_no_other_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference_cache, "_LOCK_S", 0.0)
    ReferenceCache(tmp_path, REFERENCE).put(ROWS[:1])
    cache = ReferenceCache(tmp_path, REFERENCE)
    with cache.path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        cache.put(ROWS)
    assert cache.get(*ROWS[1][:2]) == ROWS[1][2], "known for this run"
    assert ReferenceCache(tmp_path, REFERENCE).get(*ROWS[1][:2]) is None
    cache.put(ROWS)
    assert ReferenceCache(tmp_path, REFERENCE).get(*ROWS[1][:2]) == ROWS[1][2]


def test_a_value_that_is_no_number_is_not_kept(tmp_path: Path) -> None:
    cache = ReferenceCache(tmp_path, REFERENCE)
    cache.put([((1,), (2,), math.nan), ((1,), (3,), -math.inf)])
    assert cache.get((1,), (2,)) is cache.get((1,), (3,)) is None
    assert not cache.path.exists()


def test_a_folder_that_cannot_be_written_costs_only_time(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    cache = ReferenceCache(tmp_path / "cache", REFERENCE)
    cache.put(ROWS)
    assert cache.get(*ROWS[0][:2]) == ROWS[0][2], "known for this run"


def test_it_lies_in_the_workspace(tmp_path: Path) -> None:
    assert cache_folder(RunDir(tmp_path / "home" / "runs" / "r1")) == tmp_path / "home" / "cache" / "reference"


def test_weights_are_told_apart_by_their_content(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"one")
    (tmp_path / "config.json").write_text("{}")
    first = weights_id(tmp_path)
    assert weights_id(tmp_path) == first
    (tmp_path / "model.safetensors").write_bytes(b"two")
    assert weights_id(tmp_path) != first
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(OSError, match="no weights"):
        weights_id(tmp_path)
