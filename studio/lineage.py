"""How a project's models came from each other: base, SFT, DPO on top of it, as a tree with what each step was and what it gained.

A run over a trained model takes that model as its reference, so the parent in the tree is the reference of the run. `tree` gathers
what is known, `draw` is pure: nodes in, nested lists out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from data import models, runs
from data.database import Database
from data.errors import NotFound
from data.records import Model, Run, Snapshot
from data.words import number
from evals.compare_result import CompareResult
from evals.winrate import Estimate
from labeling import snapshots
from studio.context import Studio, Viewer
from studio.render import Html, ago, count, esc, figures, percent, percents, run_link, tag
from studio.run_groups import name_said, value_said
from studio.run_report import graded_by, held_out_right
from training.config import as_said_now, method_named
from training.methods import METHOD_FACTS, is_training, short_name

SHOWN = ("beta", "loss", "learning_rate", "epochs", "lora_rank", "tuning")  # settings that tell two runs of a method apart


@dataclass(frozen=True)
class Node:
    """A model with its step: `run` made it from its parent (None for what was brought along), `compared` say how it did."""

    model: Model
    run: Run | None
    snapshot: Snapshot | None
    compared: tuple[Run, ...]  # finished comparisons with it as the later one, newest first
    children: tuple[Node, ...]


def tree(studio: Studio, viewer: Viewer) -> list[Node]:
    """The project's trained models under what they were trained from; a base that nothing was trained from is left out."""
    project = studio.project(viewer)
    trained = [m for m in studio.models(viewer) if models.is_trained(m)]
    done = runs.of_project(studio.db, project.project_id)
    by_id = {m.model_id: m for m in trained}
    for model in trained:
        _add_parents(studio.db, model, by_id)
    under: dict[str, list[Model]] = {}
    for model in sorted(by_id.values(), key=lambda m: m.created_at):
        under.setdefault(model.parent_model_id if model.parent_model_id in by_id else "", []).append(model)
    return [_node(studio.db, model, under, {run.run_id: run for run in done}) for model in under.get("", [])]


def _add_parents(db: Database, model: Model, by_id: dict[str, Model]) -> None:
    """What it came from, also where that was removed from the list since."""
    while (parent_id := model.parent_model_id) and parent_id not in by_id:
        try:
            model = by_id[parent_id] = models.get(db, parent_id)
        except NotFound:
            return


def _node(db: Database, model: Model, under: Mapping[str, Sequence[Model]], known: Mapping[str, Run]) -> Node:
    run = known.get(model.run_id)
    return Node(
        model,
        run if run is not None and is_training(run.kind) else None,
        _snapshot(db, run),
        tuple(each for each in known.values() if _is_about(each, model)),
        tuple(_node(db, child, under, known) for child in under.get(model.model_id, ())),
    )


def _snapshot(db: Database, run: Run | None) -> Snapshot | None:
    try:
        return snapshots.get(db, run.snapshot_id) if run is not None and run.snapshot_id else None
    except NotFound:
        return None


def _is_about(run: Run, model: Model) -> bool:
    args = run.config.get("args") or {}
    return run.kind == "compare" and run.status == "finished" and args.get("model_id_b") == model.model_id


# --- drawn ---


def draw(roots: Sequence[Node]) -> Html:
    """Nested lists; '' where nothing was trained."""
    if not any(root.children for root in roots):
        return Html("")
    return Html(f'<ul class="st-tree" aria-label="What was trained from what">{"".join(_item(root, None) for root in roots)}</ul>')


def _item(node: Node, parent: Node | None) -> str:
    inner = "".join(_item(child, node) for child in node.children)
    below = f"<ul>{inner}</ul>" if inner else ""
    lines = "".join(f"<p>{line}</p>" for line in (_data(node), _settings(node), _evaluation(node, parent)) if line)
    name = esc(node.model.name)
    title = f'<a href="./{run_link(node.run)}">{name}</a>' if node.run else f"<span>{name}</span>"
    marks = "".join(tag(word) for word in _marks(node))
    head = f'<div class="head">{title}{marks}<time>{esc(ago(node.model.created_at))}</time></div>'
    return f'<li><div class="st-node">{head}{lines}</div>{below}</li>'


def _marks(node: Node) -> list[str]:
    merged = node.run is None and node.model.kind == "base" and models.is_trained(node.model)
    kind = short_name(node.run.kind) if node.run else "merged" if merged else node.model.kind
    return [kind, *(["removed"] if node.model.removed_at else [])]


def _data(node: Node) -> str:
    """Rows, where they are frozen, and where what is good comes from: people, how far they agree, or what graded the answers."""
    if node.run is None:
        return ""
    held = int(node.run.result.get("rows") or (node.run.config.get("data") or {}).get("rows") or 0)
    rows = count(held, *METHOD_FACTS[method_named(node.run.kind)].row)
    sha = str((node.run.config.get("data") or {}).get("sha256", ""))[:8]
    said = f"Learned from {rows}" + (f" (snapshot {sha})" if sha else "")
    if METHOD_FACTS[method_named(node.run.kind)].samples:
        grader = graded_by(node.run)
        inside = f"the {grader[4:]}" if grader.startswith("The ") else grader  # a title, within a sentence
        return f"{figures(said)}, its own answers to them graded by {esc(inside)}."
    return f"{figures(said)}{_agreement(node.snapshot)}."


def _agreement(snapshot: Snapshot | None) -> str:
    """How far the people agree whose labels these are; nothing of that where no label is a person's."""
    labels = (snapshot.manifest.get("labels") or {}) if snapshot else {}
    if labels.get("simulated") and not labels.get("people") and not labels.get("imported"):
        return "; every label is simulated, none is a person's"
    found = (snapshot.manifest.get("agreement") or {}) if snapshot else {}
    alpha = found.get("alpha") or {}
    if alpha.get("value") is None:
        return "; by one person, so agreement is not known" if found.get("annotators") == 1 else ""
    span = f" (95 %: {number(alpha['low'], '.2f')}–{number(alpha['high'], '.2f')})" if alpha.get("low") is not None else ""
    people = count(int(found.get("annotators") or 0), "person", "people")
    return str(figures(f"; {people} agree to alpha {number(alpha['value'], '.2f')}{span}"))


def _settings(node: Node) -> str:
    if node.run is None:
        return ""
    train = as_said_now((node.run.config.get("args") or {}).get("train") or {})
    return str(figures(", ".join(f"{name_said(name)} {value_said(train[name])}" for name in SHOWN if name in train)))


def _evaluation(node: Node, parent: Node | None) -> str:
    """The newest comparison with the parent, else with whatever it was compared."""
    if node.run is None:
        return ""
    if node.run.kind == "reward":  # it scores answers and gives none, so there is nothing to compare
        told = held_out_right(node.run.result)
        return str(figures(f"Scores the good answer higher: {told}.")) if told else "No pairs were held out to try it on."
    before = parent.model.model_id if parent else ""
    compared = sorted(node.compared, key=lambda run: run.config["args"].get("model_id_a") != before)
    for run in compared:
        said = _win_rate(run, run.config["args"].get("model_id_a") == before)
        if said:
            return f'{figures(said)} <a href="./{run_link(run)}">See it</a>'
    held_out = (node.run.result.get("metrics") or {}).get("eval_rewards/accuracies")
    if isinstance(held_out, int | float):
        return str(figures(f"Not compared yet; prefers the good answer on {percent(float(held_out))} of the held-out pairs."))
    return "Not compared yet."


def _win_rate(run: Run, with_parent: bool) -> str:
    try:
        result = CompareResult.from_json(run.result)
    except TypeError:
        return ""
    rate: Estimate | None = result.win_rate if result.win_rate and result.win_rate.value is not None else result.rule_win_rate
    if rate is None or rate.value is None:
        return ""
    span = f" (95 %: {percents(rate.low, rate.high)})" if rate.low is not None and rate.high is not None else ""
    by = f"by {result.judge_name}" if rate is result.win_rate and result.judge_name else "by the rules"
    against = "its parent" if with_parent else result.name_a
    return f"Win rate {percent(rate.value)}{span} against {against}, {by} on {count(result.n_prompts, 'prompt')}."
