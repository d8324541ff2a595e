"""What grades the answers of a run that learns from its own, as the run is told it.

A form and a run's settings hold one word, `reward`: a checker's name or a reward model's id. `with_reward_model` turns an id into
what the run needs (args.reward_model), at the one place where every run starts, so that a run started again, with another reward
or the same, never grades with a model that was removed or is not this person's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from data.checkers import CHECKERS
from data.errors import BadInput
from data.records import Model
from labeling import snapshots
from training.config import MOST_HELD_OUT, from_json, sampled_tokens
from training.methods import is_training

if TYPE_CHECKING:
    from studio.context import Studio, Viewer


def with_reward_model(
    studio: Studio, viewer: Viewer, config: dict[str, Any], chosen: Sequence[Model]
) -> tuple[dict[str, Any], Sequence[Model]]:
    """The run's config with its reward model in it, and that among the models chosen; both as they are where there is none."""
    args = dict(config.get("args") or {})
    train = args.get("train")
    word = train.get("reward") if isinstance(train, dict) else None
    args.pop("reward_model", None)
    args.pop("reward_name", None)
    if word is None or word in CHECKERS:
        return ({**config, "args": args} if "args" in config else config), chosen
    model = studio.model(viewer, str(word))
    if model.kind != "reward":
        raise BadInput(f"{model.name} is no reward model; choose what grades the answers.")
    args["reward_model"] = studio.keys.spec(model).to_json()
    args["reward_name"] = model.name  # for people; the run itself does not look at it
    return {**config, "args": args}, [*chosen, model]


def own_tokens(studio: Studio, kind: str, config: dict[str, Any], steps: int, snapshot_id: str) -> int:
    """How many tokens a run of so many steps may write itself; 0 where it learns from what others wrote."""
    args = config.get("args") or {}
    method = str(args.get("method") or kind)
    if not is_training(method) or not isinstance(args.get("train"), dict):
        return 0
    held_out = int(snapshots.get(studio.db, snapshot_id).manifest["rows"]["held_out"]) if snapshot_id else MOST_HELD_OUT
    return sampled_tokens(from_json(method, args["train"]), steps, held_out)
