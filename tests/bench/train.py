"""How fast and how big training is, against TRL: `make bench-train`, or `python -m tests.bench.train --only dpo,kto`.

Sections, in the order of the table:

    dpo      a step of 4 pairs of 94-276 + 56-235 tokens, SmolLM2-135M's shape, random weights: TRL as it comes, TRL tuned, ours
    sweep    an epoch of 100 short pairs, then the same with another beta: the second run finds the reference in a cache
    kto orpo sft   a step of the same rows as dpo's
    nf4      our step over an NF4 base against a bf16 one
    start    from the order to train to the first step, by the studio's own queue: warm and cold
    gpu      shapes of 1B and 8B where there is a GPU

Contenders are processes of their own (`train_contender`), so that memory is each one's alone; they take turns step by step, so
that whatever else the machine does meets all alike. A step's figure is the median over its turns. An epoch's figure is the sum,
and its ratio the median over three thirds of it. A section that is done is kept in `$STUDIO_HOME/bench/train-sections.json`:
`--only` measures some anew and shows the others as they were.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tests.bench import train_gpu, train_start
from tests.bench.table import Row, publish
from tests.bench.train_contender import Contender, Who
from tests.bench.train_turns import Found, alternate

PACKAGES = ("torch", "transformers", "trl", "peft", "bitsandbytes")
SHORT: dict[str, Any] = {"prompt": (20, 120), "completion": (30, 120)}
WHO: tuple[Who, ...] = ("trl-default", "trl-tuned", "studio")


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    steps: int  # timed a contender, after one that is not
    pairs: int  # of the sweep
    layers: int  # 0 = all


def four_pairs(folder: str, size: Size, **more: Any) -> list[Contender]:
    """Of `dpo`, `kto`, `orpo`, `nf4`: 4 pairs a step."""
    first = Contender("studio", folder, steps=1 + size.steps, layers=size.layers, **more)
    return [replace(first, who=who) for who in WHO]


def step_row(what: str, peer: Found, ours: Found, bar: float) -> Row:
    theirs, own = (statistics.median(turn.seconds for turn in found.steps[1:]) for found in (peer, ours))
    ratio = theirs / own
    return Row(what, round(own, 2), "s/step", round(theirs, 2), round(ratio, 2), f">= {bar:g}", ratio >= bar)


def dpo(folder: str, size: Size) -> list[Row]:
    default, tuned, ours = alternate(four_pairs(folder, size))
    what = "DPO, SmolLM2-135M shape, LoRA r16, 4 pairs of 94-276 + 56-235 tokens"
    least = min(default.peak_mb, tuned.peak_mb)
    memory = Row(
        "the same: peak memory of the process, against the lesser of TRL's (defaults "
        f"{default.peak_mb:.0f}, tuned {tuned.peak_mb:.0f})",
        round(ours.peak_mb), "MB", round(least), round(least / ours.peak_mb, 2), ">= 1", ours.peak_mb <= least,
    )  # fmt: skip
    return [
        step_row(f"{what}: against TRL's defaults", default, ours, 3.5),
        step_row("the same: against TRL tuned", tuned, ours, 2.5),
        memory,
    ]


def kto(folder: str, size: Size) -> list[Row]:
    _, *both = four_pairs(folder, size, method="kto")
    tuned, ours = alternate(both)
    return [step_row("KTO, the same rows as 8 answers: against TRL tuned", tuned, ours, 1.5)]


def orpo(folder: str, size: Size) -> list[Row]:
    _, *both = four_pairs(folder, size, method="orpo")
    tuned, ours = alternate(both)
    return [step_row("ORPO, the same rows: against TRL's experimental one, tuned", tuned, ours, 1.5)]


def sft(folder: str, size: Size) -> list[Row]:
    _, *both = four_pairs(folder, size, method="sft")
    tuned, ours = alternate(both)
    what = "SFT, the chosen answers of the same rows: against TRL tuned"
    memory = Row("the same: peak memory of the process", round(ours.peak_mb), "MB", round(tuned.peak_mb))
    return [step_row(what, tuned, ours, 1.0), memory]


def sweep(folder: str, size: Size) -> list[Row]:
    steps = -(-size.pairs // 4)
    studio = Contender("studio", folder, pairs=size.pairs, steps=steps, layers=size.layers, **SHORT)
    tuned = replace(studio, who="trl-tuned")
    their_first, first = alternate([tuned, studio])
    their_second, second = alternate([replace(tuned, beta=0.2), replace(studio, beta=0.2)])
    pass_s = their_first.prepared.seconds
    hit = their_second.prepared.seconds < pass_s / 2
    cache = "found it in its disk cache" if hit else "computed it again: another beta is another key of its disk cache"
    what = f"DPO, {size.pairs} pairs of 20-120 + 30-120 tokens, one epoch"
    first_what = f"{what}, first run of a beta sweep: against TRL tuned, its reference pass included"
    second_what = f"the same, second run: against TRL tuned, its reference pass included (it {cache})"
    rows = [epoch_row(first_what, their_first, pass_s, first, 2), epoch_row(second_what, their_second, pass_s, second, 3)]
    if hit:
        what = "the same, second run: against TRL tuned as its cache lets it begin"
        rows.append(epoch_row(what, their_second, their_second.prepared.seconds, second, None))
    return rows


def epoch_row(what: str, peer: Found, pass_s: float, ours: Found, bar: float | None) -> Row:
    """`pass_s`: what the peer takes before its first step."""
    theirs, own = (pass_s + peer.step_seconds, ours.prepared.seconds + ours.step_seconds)
    pieces = zip(thirds(peer), thirds(ours), strict=True)
    ratio = statistics.median((pass_s / 3 + a) / (ours.prepared.seconds / 3 + b) for a, b in pieces)
    shown = None if bar is None else f">= {bar:g}"
    return Row(what, round(own, 1), "s", round(theirs, 1), round(ratio, 2), shown, bar is None or ratio >= bar)


def thirds(found: Found) -> list[float]:
    """Seconds of the steps by thirds, each as if it were exactly one."""
    seconds = [turn.seconds for turn in found.steps]
    cuts = [round(len(seconds) * i / 3) for i in range(4)]
    return [statistics.mean(seconds[a:b]) * len(seconds) / 3 for a, b in itertools.pairwise(cuts)]


def nf4(folder: str, size: Size) -> list[Row]:
    *_, ours = four_pairs(folder, size)
    plain, quantised = alternate([ours, replace(ours, nf4=True)])
    slow, fast = (statistics.median(turn.seconds for turn in found.steps[1:]) for found in (quantised, plain))
    more, less = plain.peak_mb, quantised.peak_mb
    what = "QLoRA (NF4, our step) against bf16, dpo's rows"
    return [
        Row(f"{what}: a step", round(slow, 2), "s/step", round(fast, 2), round(fast / slow, 2)),
        Row(f"{what}: peak memory of the process", round(less), "MB", round(more), round(more / less, 2)),
    ]


def start(folder: str, size: Size) -> list[Row]:
    return train_start.rows(Path(folder), max(3, size.steps))


def gpu(folder: str, size: Size) -> list[Row]:
    return train_gpu.rows(folder, size.steps)


SECTIONS: dict[str, Callable[[str, Size], list[Row]]] = {
    "dpo": dpo, "sweep": sweep, "kto": kto, "orpo": orpo, "sft": sft, "nf4": nf4, "start": start, "gpu": gpu,
}  # fmt: skip


# --- what is kept of sections ---------------------------------------------------------------------------------------------------


def kept_file() -> Path:
    return Path(os.environ.get("STUDIO_HOME", "workspace")) / "bench" / "train-sections.json"


def kept() -> dict[str, list[Row]]:
    try:
        return {name: [Row(**row) for row in rows] for name, rows in json.loads(kept_file().read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, TypeError):
        return {}


def keep(name: str, rows: Sequence[Row]) -> None:
    everything = {**kept(), name: rows}
    kept_file().parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({name: [asdict(row) for row in rows] for name, rows in everything.items()}, ensure_ascii=False, indent=1)
    kept_file().write_text(text + "\n", encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections to measure now, by commas")
    parser.add_argument("--steps", type=int, default=3, help="timed steps a contender, after one that is not")
    parser.add_argument("--pairs", type=int, default=100, help="of the sweep")
    parser.add_argument("--layers", type=int, default=0, help="fewer layers, to try the benchmark itself")
    flags = parser.parse_args(argv)
    wanted = flags.only.split(",")
    if unknown := set(wanted) - set(SECTIONS):
        parser.error(f"no section {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    size = Size(flags.steps, flags.pairs, flags.layers)
    for name in (name for name in SECTIONS if name in wanted):
        print(f"--- {name}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            keep(name, SECTIONS[name](folder, size))
    done = kept()
    return 0 if publish("train", [row for name in SECTIONS for row in done.get(name, [])], PACKAGES) else 1


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    sys.exit(main())
