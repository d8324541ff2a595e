"""Where a run's figures go beside its own folder: TensorBoard, trackio or Weights & Biases, each only where it is installed.

Nothing goes anywhere by default. TensorBoard and trackio write files on this machine; Weights & Biases sends to the account that
this machine is signed in to, so it is never a visitor's choice. What is told are metrics, settings and the model's shape:
transformers masks every token among its arguments, rows and answers are not told, and no adapter is uploaded. Free of torch.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, Final

from data.errors import BadInput
from data.rundir import RunDir
from training.config import REPORTERS

PROJECT: Final = "alignment-studio"
_MODULES: Final[dict[str, tuple[str, ...]]] = {
    "tensorboard": ("tensorboard", "tensorboardX"),
    "trackio": ("trackio",),
    "wandb": ("wandb",),
}
_VARIABLES: Final = {
    "trackio": frozenset({"TRACKIO_DIR"}),
    "wandb": frozenset({"WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_ENTITY", "WANDB_MODE", "WANDB_PROJECT"}),
}


def installed() -> tuple[str, ...]:
    """The reporters that can be chosen here, "none" first."""
    return tuple(name for name in REPORTERS if _is_here(name))


def check(reporter: str, visitor: bool = False) -> None:
    """BadInput where it cannot be chosen, with what to do."""
    if reporter != "none" and visitor:
        raise BadInput("A visitor's figures stay on the Runs page; set “Also report to” to none.")
    if not _is_here(reporter):
        raise BadInput(f"{reporter} is not installed here: run `pip install {reporter}`, or set “Also report to” to none.")


def variables(train: Any) -> frozenset[str]:
    """What a run with these settings needs of the server's environment, where its reporter's account and address may stand."""
    reporter = train.get("report_to") if isinstance(train, Mapping) else None
    return _VARIABLES.get(str(reporter), frozenset())


def arguments(run: RunDir, reporter: str) -> dict[str, Any]:
    """For transformers' TrainingArguments; files go into the run's folder, and the run says where."""
    check(reporter)
    if reporter == "tensorboard":
        folder = run.path / "tensorboard"
        os.environ["TENSORBOARD_LOGGING_DIR"] = str(folder)
        run.event("log", text=f"Also for TensorBoard: tensorboard --logdir {folder}")
    elif reporter == "trackio":
        run.event("log", text=f"Also for trackio: trackio show --project {PROJECT}")
    elif reporter == "wandb":
        os.environ.setdefault("WANDB_PROJECT", PROJECT)
        os.environ |= {"WANDB_DIR": str(run.path), "WANDB_LOG_MODEL": "false", "WANDB_WATCH": "false", "WANDB_DISABLE_CODE": "true"}
        run.event("log", text="Also for Weights & Biases, with this machine's account.")
    return {"report_to": reporter, "run_name": run.path.name, "project": PROJECT}


def _is_here(reporter: str) -> bool:
    return reporter == "none" or any(find_spec(module) is not None for module in _MODULES[reporter])
