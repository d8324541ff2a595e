"""What the training benchmark counts and keeps, without training anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench import train, train_gpu
from tests.bench.table import Row
from tests.bench.train_contender import Contender, Turn, pairs_of
from tests.bench.train_turns import Found, alternate
from training.memory import Shape

pytestmark = pytest.mark.app


def found(*seconds: float, prepared: float = 3.0) -> Found:
    return Found(Turn(prepared, prepared, 100), [Turn(s, s, 100 + s) for s in seconds], [])


def test_flops_by_hand() -> None:
    """One layer without keys' groups, a prompt of 2 and answers of 3 and 1."""
    shape = Shape(hidden=8, layers=1, feed_forward=16, vocabulary=50, heads=2, kv_heads=2, head_dim=4, tied=True)
    weights = 4 * 8 * 8 + 3 * 8 * 16
    seen = 3 + (3 * 2 + 6) + (1 * 2 + 1)
    assert train_gpu.flops(shape, [([1, 2], [3, 4, 5], [6])]) == 4 * weights * 6 + 4 * 50 * 8 * 4 + 6 * 2 * seen * 8


def test_an_8b_shape_is_one_of_eight_billions() -> None:
    shape = train_gpu.shape_of(Contender("studio", "", shape="Llama-8B"))
    assert shape.parameters == pytest.approx(8.03e9, rel=0.01)
    assert train_gpu.shape_of(Contender("studio", "")).parameters == pytest.approx(134.5e6, rel=0.01)
    assert train_gpu.shape_of(Contender("studio", "", shape="Llama-1B")).parameters == pytest.approx(1.236e9, rel=0.01)


def test_the_share_of_the_peak() -> None:
    assert train_gpu._share(989e12 * 0.5, 1.0, "NVIDIA H100 80GB HBM3") == "50 %"
    assert train_gpu._share(121e12 * 0.1, 1.0, "NVIDIA L4") == "10 %"
    assert train_gpu._share(1.0, 1.0, "Some other device") == "an unknown share"


@pytest.mark.model
def test_without_a_gpu_nothing_is_made_up() -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert train_gpu.rows("", 3) == [Row("1B and 8B shapes on a GPU", "not measured: no GPU here")]


def test_rows_have_the_lengths_that_are_told() -> None:
    pairs = pairs_of(Contender("studio", "", pairs=100, **train.SHORT))
    prompts, answers = [len(pair[0]) for pair in pairs], [len(answer) for pair in pairs for answer in pair[1:]]
    assert (min(prompts), max(prompts), min(answers), max(answers), len(pairs)) == (20, 120, 30, 120, 100)
    assert pairs == pairs_of(Contender("trl-tuned", "elsewhere", pairs=100, beta=0.2, **train.SHORT)), "the same for all"


def test_an_epoch_is_the_sum_and_its_ratio_the_median_of_thirds() -> None:
    peer, ours = found(4, 4, 4, 40, 8, 8), found(2, 2, 2, 2, 2, 2, prepared=0.0)
    row = train.epoch_row("epoch", peer, 12, ours, 3.0)
    assert (row.ours, row.peer, row.ratio, row.met) == (12.0, 80.0, 5.0, True)
    assert train.thirds(found(*[1.0] * 25)) == pytest.approx([25 / 3] * 3), "thirds of 25 steps count alike"


def test_the_first_step_is_not_timed_and_a_bar_can_be_missed() -> None:
    row = train.step_row("step", found(99, 3, 3, 9), found(99, 1.5, 1.5, 9), 2.5)
    assert (row.ours, row.peer, row.ratio, row.met) == (1.5, 3, 2.0, False)


def test_sections_measured_earlier_stay_in_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_HOME", str(tmp_path))
    train.keep("kto", [Row("kto", 1.0, met=False)])
    train.keep("dpo", [Row("dpo", 2.0)])
    train.keep("kto", [Row("kto", 3.0)])
    assert train.kept() == {"kto": [Row("kto", 3.0)], "dpo": [Row("dpo", 2.0)]}
    train.kept_file().write_text("{")
    assert train.kept() == {}


@pytest.mark.slow(reason="a contender is a process with the imports of a training")
def test_a_contender_that_dies_ends_the_benchmark_with_its_name() -> None:
    with pytest.raises(SystemExit, match=r"studio dpo ended without a result \(exit code 1"):
        alternate([Contender("studio", "", shape="no such shape")])
