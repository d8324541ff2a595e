"""What a training run's figures mean, in plain words: a pure function from what it has reported to one verdict.

Thresholds and where they come from (`tests/files/histories/` holds real runs of the demo model that each must get right):

* *No number*: the loss is no number; nothing after it counts.
* *Wrong start*: before the first step policy and reference agree, so DPO's loss is ln 2 and its margin 0 (Rafailov et al. 2023).
* *Collapsed*: a preference loss only asks for a gap, and both sides can fall while it grows (Pal et al. 2024, "Smaug"; Razin
  et al. 2024, "likelihood displacement"). A fall of the good answers is usual and harmless to a degree: published Zephyr runs
  end at about 1.2 to 1.4 times the log-probability they began with. Ours that lost 57 points ended at 8.8 times, those that
  gained 13 points below 1. FALLEN is 2 times (an answer of probability p has become one of p squared), and at least
  FALLEN_NATS, or an answer that was nearly certain would seem to fall.
* *Margins explode*: the bad answers' log-probability is PUSHED times what it was, and PUSHED_NATS lower. Ours without a gain that
  could be shown ended at 11 times (and so did the collapsed one), those that gained at 1.4 to 1.7; published ones at about 2.
* *Drifted*: KL above 1 nat a token, or answers twice as long as at the start, is how a policy looks that games its reward
  (Stiennon et al. 2020; Singhal et al. 2023 on length).
* *Overfit*: the held-out loss is a twentieth and more above its best, while training goes on to fall.
* *No detectable change*: the binomial 95 % interval (Wilson) of the held-out accuracy includes a coin's 50 %, or the held-out
  loss has hardly moved. Twenty pairs know an accuracy to +- 22 points at worst: 1.96 * sqrt(0.25 / 20). Of fewer it is only said
  that they cannot tell, and what can: a comparison, or how many more labels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

from data.words import number
from labeling.intervals import wilson
from studio.render import Html, Tone, count, esc, figures, percent, percents
from studio.run_history import LAST_SHARE, History, is_number, mean, variance

Kind = Literal["diverged", "wrong start", "collapsed", "worse", "drifted", "overfit", "no change", "too early", "healthy"]

LN2, START_TOLERANCE = math.log(2), 0.05
FALLEN, FALLEN_NATS = 2.0, 3.0  # times the log-probability at the start, and at least so many nats
PUSHED, PUSHED_NATS = 5.0, 20.0
KL_A_TOKEN = 1.0
LONGER, CUT_OFF = 2.0, 0.5
RISEN, RISEN_NATS = 1.05, 0.02  # held-out loss over its best
MOVED = 0.02  # of a held-out loss, as a share of where it began: less is nothing
UNMOVED = 1e-4  # a reward margin: the model is the one it was
FIRST_LOSSES = 3  # steps of training that tell where the loss began
FIRST_STEPS = 10  # fewer logged steps say nothing yet
TELLS = 20  # held-out rows: fewer know an accuracy to worse than ± 22 points, and nothing is made of that
FEW_HELD_OUT = 50
OF_LABELS = 5  # a label in so many is on a held-out prompt
UNTOLD = "Cannot be told yet"
SAMPLING = ("rloo", "grpo", "ppo")  # they learn from rewards on their own answers


@dataclass(frozen=True)
class Verdict:
    """`title` in a few words, `why` with the numbers, `do` as the next step."""

    kind: Kind
    title: str
    why: str
    do: str

    @property
    def tone(self) -> Tone:
        tones: dict[Kind, Tone] = {"healthy": "good", "too early": "", "drifted": "warn", "overfit": "warn", "no change": "warn"}
        return tones.get(self.kind, "bad")


def verdict(history: History) -> Verdict | None:
    """The first that fits, the worst first; None before anything has been reported."""
    if not history.metrics:
        return None
    if (diverged := _diverged(history)) is not None:
        return diverged
    history = history.of_what_is_kept()
    for look in (_wrong_start, _collapsed, _exploded, _drifted, _too_early, _overfit, _no_change):
        if (found := look(history)) is not None:
            return found
    return _healthy(history)


def shown(found: Verdict | None, ended: bool) -> Html:
    """As a note for the run's page, '' for none."""
    if found is None:
        return Html("")
    so_far = "" if ended or found.kind in ("too early", "diverged", "wrong start") else " so far"
    role = "alert" if found.tone == "bad" else "status"
    text = figures(f"{found.why} {found.do}".strip())
    return Html(f'<p class="st-note st-judgement {found.tone}" role="{role}"><b>{esc(found.title)}{so_far}.</b> {text}</p>')


# --- the kinds, the worst first -------------------------------------------------------------------------------------------------


def _diverged(h: History) -> Verdict | None:
    bad = next((m for m in h.metrics if any(key in m and not is_number(m[key]) for key in ("loss", "eval_loss"))), None)
    if bad is None:
        return None
    rate = h.settings.get("learning_rate")
    lower = f"Lower the step size (now {rate:g}) to a third and start again" if rate else "Lower the step size and start again"
    return Verdict(
        "diverged", "Diverged", f"The loss was no number at step {bad.get('step', '?')}.", f"{lower}; nothing after that counts."
    )


def _wrong_start(h: History) -> Verdict | None:
    first = next((m for m in h.metrics if "loss" in m), None)
    if h.method != "dpo" or first is None or first.get("step") != 1 or not is_number(first.get("rewards/margins")):
        return None
    plain = h.settings.get("loss", "sigmoid") == "sigmoid" and not h.settings.get("sft_weight")
    margin, loss = float(first["rewards/margins"]), float(first["loss"])
    if abs(margin) <= START_TOLERANCE and (not plain or abs(loss - LN2) <= START_TOLERANCE):
        return None
    said = f"Before the first step the loss was {loss:.3f} and the margin {number(margin, '.3f')}; they must be ln 2 = 0.693 and 0."
    return Verdict(
        "wrong start",
        "Wrong start",
        said,
        "The reference is not the model before the run: check that the parent belongs to this base.",
    )


def _collapsed(h: History) -> Verdict | None:
    found = _moved(h, "chosen")
    if found is None:
        return None
    start, logp, where = found
    if start - logp < FALLEN_NATS or start >= 0 or logp / start < FALLEN:
        return None
    bad = _moved(h, "rejected")
    with_them = " together with the bad ones" if bad is not None and bad.now < bad.start else ""
    accuracy = h.now("rewards/accuracies")
    looks = (
        f" That the right order is at {percent(accuracy)} in training hides it." if accuracy is not None and accuracy > 0.9 else ""
    )
    why = (
        f"The good answers became less likely{with_them}: on {where} their log-probability fell from {_nats(start)} to "
        f"{_nats(logp)}, so the model is likely to say something else altogether.{looks}"
    )
    return Verdict(
        "collapsed", "Collapsed", why, f"Do not use this adapter; start again from the same model: {_hold_it_closer(h)}."
    )


def _exploded(h: History) -> Verdict | None:
    found = _moved(h, "rejected")
    if found is None or found.start - found.now < PUSHED_NATS or found.start >= 0 or found.now / found.start < PUSHED:
        return None
    why = (
        f"The bad answers were pushed from a log-probability of {_nats(found.start)} to {_nats(found.now)} on {found.where}, much "
        "farther than it takes to tell them apart; what is like them goes along."
    )
    do = f"Compare it before you use it. To hold the next one closer, {_hold_it_closer(h)}."
    return Verdict("drifted", "Margins explode", why, do)


class _Moved(NamedTuple):
    """A log-probability at the start and now, and on which rows."""

    start: float
    now: float
    where: str


def _moved(h: History, side: str) -> _Moved | None:
    """The start's log-probability is what it is now less what was gained, which is the reward over beta."""
    prefix = "eval_" if h.values(f"eval_logps/{side}") else ""
    now, reward = h.now(f"{prefix}logps/{side}"), h.now(f"{prefix}rewards/{side}")
    if now is None or reward is None or h.beta <= 0 or h.method not in ("dpo", "kto"):
        return None
    return _Moved(now - reward / h.beta, now, "held-out rows" if prefix else "the training rows")


def _hold_it_closer(h: History) -> str:
    ways = [f"raise beta (now {h.beta:g})"] if h.beta < 1 else []
    if h.method == "dpo" and float(h.settings.get("sft_weight") or 0) < 1:
        ways.append(f"let it imitate the good answers beside (sft_weight, now {float(h.settings.get('sft_weight') or 0):g})")
    return ", or ".join([*ways, "lower the step size"])


def _drifted(h: History) -> Verdict | None:
    if h.method not in SAMPLING:
        return None
    kl, length, first = h.now("kl"), h.now("completions/mean_length"), h.start("completions/mean_length")
    closer = f"Raise beta (now {h.beta:g}) or lower the step size, and read the sample answers before you use it."
    if kl is not None and kl > KL_A_TOKEN:
        why = f"It has moved {kl:.1f} nats a token from the model before; above {KL_A_TOKEN:g} a policy usually games its reward."
        return Verdict("drifted", "Drifted far from its start", why, closer)
    cut = h.now("completions/clipped_ratio") or 0.0
    if length and first and length > LONGER * first:
        why = f"Answers have {length:.0f} tokens on average and had {first:.0f} at the start: a reward that likes length is gamed."
        return Verdict("drifted", "Answers explode in length", why, closer)
    if cut > CUT_OFF and cut > 2 * (h.start("completions/clipped_ratio") or 0.0):
        why = f"{percent(cut)} of its answers no longer end by themselves."
        return Verdict("drifted", "Answers no longer end", why, closer)
    return None


def _too_early(h: History) -> Verdict | None:
    steps, evaluations = len([m for m in h.metrics if "loss" in m]), len(h.values("eval_loss"))
    if h.ended or (steps >= FIRST_STEPS and (evaluations > 0 or not h.held_out)):
        return None
    waits = "the first look at held-out rows" if steps >= FIRST_STEPS else "more steps"
    return Verdict("too early", "Too early to tell", f"{count(steps, 'step')} so far; it takes {waits}.", "")


def _overfit(h: History) -> Verdict | None:
    looks = [(int(m.get("step", 0)), float(m["eval_loss"])) for m in h.metrics if is_number(m.get("eval_loss"))]
    if len(looks) < 2:
        return None
    best_step, best = min(looks, key=lambda look: look[1])
    last = looks[-1][1]
    fell, start = h.now("loss"), h.start("loss")
    if last < best * RISEN or last - best < RISEN_NATS or fell is None or start is None or fell > start:
        return None
    why = (
        f"The loss on held-out rows was best at step {best_step} ({best:.3f}) and has risen to {last:.3f} since, while training "
        f"fell to {fell:.3f}: it learns the rows by heart."
    )
    if 0 < h.held_out < TELLS:
        why += f" Only {count(h.held_out, 'held-out row says so', 'held-out rows say so')}, which may be chance."
    do = "Stop earlier (fewer epochs, or early stop), or label more; compare it before you use it, the best step may be behind you."
    return Verdict("overfit", "Overfit", why, do)


def _no_change(h: History) -> Verdict | None:
    """Against a coin where the accuracy is relative to the start; against the first figures where it is not."""
    if h.method in SAMPLING:
        return _no_more_reward(h)
    key = "eval_accuracy" if h.method == "reward" else "eval_rewards/accuracies"
    accuracy = h.now(key)
    if h.method in ("dpo", "reward") and accuracy is not None and h.held_out:
        return _coin(h, accuracy)
    looks, losses = h.values("eval_loss"), h.values("loss")[:FIRST_LOSSES]
    if not looks:
        return _no_held_out(h)
    began = max(looks[0], mean(losses or looks[:1]))  # the first look comes after some learning: training's first steps do not
    if began <= 0 or began - looks[-1] > MOVED * began:
        return None
    why = f"The loss on held-out rows is {looks[-1]:.3f} and was {began:.3f} at the start"
    if 0 < h.held_out < TELLS:
        return Verdict(
            "no change", UNTOLD, f"{why}: {count(h.held_out, 'row is', 'rows are')} too few to tell.", _compare_or_label(h)
        )
    return Verdict("no change", "No detectable change", f"{why}.", _more(h))


def _coin(h: History, accuracy: float) -> Verdict | None:
    low, high = interval(accuracy, h.held_out)
    told = _of_pairs(h, accuracy)
    margin = h.now("eval_rewards/margins")
    unmoved = margin is not None and abs(margin) < UNMOVED  # ties count as wrong, so that its 0 % says nothing
    if high < 0.5 and not unmoved:
        do = "See whether the labels are turned around, and whether held-out rows are of the same kind as the others."
        return Verdict("worse", "It prefers the bad answers", f"{told}.", do)
    if low > 0.5 and not unmoved:
        return None
    if h.held_out < TELLS:
        return Verdict("no change", UNTOLD, f"{told}: too few to tell that from a coin's 50 %.", _compare_or_label(h))
    why = f"{told}, which may be a coin's 50 %: so few tell it to ± {at_worst(h.held_out):.0f} points at worst."
    return Verdict("no change", "No detectable change", why, _more(h))


def _of_pairs(h: History, accuracy: float) -> str:
    low, high = interval(accuracy, h.held_out)
    told = f"Of {count(h.held_out, 'held-out pair')} it prefers the good answer in {percent(accuracy)}"
    return f"{told} (95 % interval {percents(low, high)})"


def at_worst(n: int) -> float:
    """Half the width of an accuracy's 95 % interval over n rows, in points, where it is widest: 22 for 20 rows."""
    return 100 * 1.96 * math.sqrt(0.25 / n)


def _more(h: History) -> str:
    few = f"Label more: {_enough()}; " if 0 < h.held_out < FEW_HELD_OUT else ""
    rate = h.settings.get("learning_rate")
    return f"{few}{'or try' if few else 'Try'} a larger step size{f' (now {rate:g})' if rate else ''} or more epochs."


def _compare_or_label(h: History) -> str:
    """The way on from too few held-out rows: what needs no label first."""
    missing = OF_LABELS * (FEW_HELD_OUT - h.held_out)
    more = f"label about {missing:,} more: usually one in {OF_LABELS} is held out, and {_enough()}."
    if h.method == "reward":  # it scores answers and gives none, so there is nothing to compare
        return more.capitalize()
    return f"Compare it with the model before, on held-out prompts: that takes no more labels. Or {more}"


def _enough() -> str:
    return f"{FEW_HELD_OUT} held-out pairs tell it to ± {at_worst(FEW_HELD_OUT):.0f} points"


def _no_held_out(h: History) -> Verdict | None:
    if not h.ended:
        return None
    why = "No rows were held out, so nothing shows whether it learned more than these rows."
    return Verdict("no change", UNTOLD, why, _compare_or_label(h))


def _no_more_reward(h: History) -> Verdict | None:
    rewards = h.values("reward")
    n = len(rewards) // LAST_SHARE
    if n < 2:
        steps = f"After {count(len(rewards), 'step')} nothing can be told: the reward goes up and down from one step to the next."
        return Verdict("no change", UNTOLD, steps, "Resume it, or give it more steps.") if h.ended else None
    before, after = rewards[:n], rewards[-n:]
    gain = mean(after) - mean(before)
    half = 1.96 * math.sqrt(variance(before) / n + variance(after) / n)
    spread = h.now("reward_std")
    if spread is not None and spread < 1e-6:
        why = "All answers to a prompt earn the same reward, so none is better than another to learn from."
        return Verdict(
            "no change", "Nothing to learn from", why, "Sample hotter, take harder or easier prompts, or a finer reward."
        )
    if gain > half:
        return None
    why = (
        f"In training the reward went from {_reward(mean(before))} to {_reward(mean(after))} ({number(gain, '+.2f')} ± {half:.2f})."
    )
    return Verdict("no change", "No detectable change", why, "Give it more steps or a larger step size, or more answers a prompt.")


def _healthy(h: History) -> Verdict:
    accuracy = h.now("eval_accuracy" if h.method == "reward" else "eval_rewards/accuracies")
    looks = h.values("eval_loss") if h.method not in SAMPLING else []  # of a model's own answers the loss says nothing
    said = []
    if accuracy is not None and h.held_out:
        said.append(_of_pairs(h, accuracy))
    if len(looks) > 1:
        said.append(
            f"the loss on held-out rows {'fell' if looks[-1] < looks[0] else 'went'} from {looks[0]:.3f} to {looks[-1]:.3f}"
        )
    held_out = h.values("eval_reward")
    if len(held_out) > 1:
        said.append(f"the reward on held-out prompts went from {_reward(held_out[0])} to {_reward(held_out[-1])}")
    elif h.values("reward"):
        said.append(f"the reward in training went from {_reward(h.start('reward'))} to {_reward(h.now('reward'))}")
    text = "; ".join(said)
    why = f"{text[:1].upper()}{text[1:]}." if text else "Nothing looks wrong."
    do = "Let it grade a training (RLOO)." if h.method == "reward" else "Compare it with the model before: that is what counts."
    return Verdict("healthy", "Healthy", why, do if h.ended else "")


def _nats(value: float) -> str:
    return number(value, ".1f")


def _reward(value: float | None) -> str:
    return "–" if value is None else number(value, ".2f")


def interval(share: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of n rows."""
    low, high = wilson(round(share * n), n)
    return float(low), float(high)
