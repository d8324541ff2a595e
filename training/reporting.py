"""Where a run's figures go beside its own folder: TensorBoard, trackio or Weights & Biases, each only where it is installed.

Nothing goes anywhere by default. TensorBoard and trackio write files into the workspace; Weights & Biases sends to the account that
this machine is signed in to, so it is never a visitor's choice, and where it cannot the figures wait in the run's folder: a run
never fails or waits long for it. What is told are metrics, settings, the model's shape and how busy the machine is: transformers
masks every token among its arguments, rows, answers, what a run prints and in which folders things lie are not told, and no adapter
is uploaded. Free of torch.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from data.errors import BadInput
from data.rundir import RunDir, rank
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
_TRACKIO_ELSEWHERE: Final = (  # each would have it send figures away from this machine
    "TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL", "TRACKIO_BUCKET_ID", "TRACKIO_DATASET_ID", "TRACKIO_WEBHOOK_URL",
)  # fmt: skip
_WANDB: Final = {
    "WANDB_LOG_MODEL": "false",
    "WANDB_WATCH": "false",
    "WANDB_CONSOLE": "off",  # what a run prints names its rows
    "WANDB_DISABLE_CODE": "true",
    "WANDB_DISABLE_GIT": "true",
    "WANDB_DISABLE_JOB_CREATION": "true",
    "WANDB__DISABLE_META": "true",  # host, paths, command line
    "WANDB__SAVE_REQUIREMENTS": "false",
}
_WANDB_UNLESS_SET: Final = {
    "WANDB_PROJECT": PROJECT,
    "WANDB_INIT_TIMEOUT": "20",  # seconds to begin; 90 unless told otherwise
    "WANDB_FINISH_TIMEOUT": "60",  # seconds to send the rest at the end; for ever unless told otherwise
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


def prepare(run: RunDir, reporter: str) -> None:
    """Before the libraries are loaded, some of which load the reporter, which reads at once where it may write."""
    check(reporter)
    if reporter == "trackio":
        os.environ.setdefault("TRACKIO_DIR", str(run.home / "trackio"))
        for name in _TRACKIO_ELSEWHERE:
            os.environ.pop(name, None)
    elif reporter == "wandb":
        os.environ |= _WANDB | {"WANDB_DIR": str(run.path), "WANDB_CACHE_DIR": str(run.path / "wandb" / "cache")}
        for name, value in _WANDB_UNLESS_SET.items():
            os.environ.setdefault(name, value)


def arguments(run: RunDir, reporter: str) -> dict[str, Any]:
    """For transformers' TrainingArguments; files go into the workspace, and the run says where."""
    if reporter == "tensorboard":
        folder = run.path / "tensorboard"
        _leave_out_what_finds_no_room()
        os.environ["TENSORBOARD_LOGGING_DIR"] = str(folder)
        run.event("log", text=f"Also for TensorBoard: {shlex.join(['tensorboard', '--logdir', str(folder)])}")
    elif reporter == "trackio":
        _ask_no_name()
        there = shlex.quote(os.environ["TRACKIO_DIR"])
        run.event("log", text=f"Also for trackio: TRACKIO_DIR={there} trackio show --project {PROJECT}")
    elif reporter == "wandb" and rank() == 0:
        run.event("log", text=_begin_wandb(run))
    return {"report_to": reporter, "run_name": run.path.name, "project": PROJECT}


def _leave_out_what_finds_no_room() -> None:
    """What writes its files is a thread, which would end at a full disk: the run would then wait for it for ever. What finds no
    room is left out instead."""
    for module in ("tensorboardX.event_file_writer", "tensorboard.summary.writer.event_file_writer"):
        with suppress(ImportError):
            files: Any = import_module(module)
            files.RecordWriter = _sparing(files.RecordWriter)


def _sparing(writer: type) -> type:
    def spared(name: str) -> Callable[..., None]:
        def call(self: Any, *given: Any) -> None:
            with suppress(OSError):
                getattr(writer, name)(self, *given)

        return call

    return type(writer.__name__, (writer,), {name: spared(name) for name in ("write", "flush", "close")})


def _ask_no_name() -> None:
    """trackio would ask the hub for the name of this machine's account, with its token, to write it beside the figures."""
    trackio_run: Any = import_module("trackio.run")
    trackio_run._get_default_namespace = lambda: None


def _begin_wandb(run: RunDir) -> str:
    """Begin the run that transformers then finds begun; in words where its figures go."""
    import wandb

    if wandb.run is not None:  # this run's second try, after memory ran out
        return "Its figures go on in the same run of Weights & Biases."
    there, why = _wandb_run(run.path.name)
    tell = there.config.update  # where transformers says all settings, among them where things lie on this machine
    object.__setattr__(there.config, "update", lambda told, **more: tell(_without_paths(told), **more))
    if there.disabled:
        return f"Weights & Biases is told nothing ({why})." if why else "Weights & Biases is told nothing, as WANDB_MODE says."
    if not there.offline:
        return f"Also for Weights & Biases, with this machine's account: {there.url}"
    reason = f"Weights & Biases cannot be told now ({why})" if why else "Weights & Biases is told nothing now, as WANDB_MODE says"
    later = shlex.join(["wandb", "sync", str(Path(there.dir).parent)])
    return f"{reason}; the figures are kept in the run's folder, and this sends them later: {later}"


def _wandb_run(name: str) -> tuple[Any, str]:
    """The run there, and why it is not told at once: then it is kept in files, if need be without the variables of this machine,
    one of which may be wrong; where not even that can be, it keeps nothing."""
    import wandb

    try:
        return wandb.init(project=os.environ["WANDB_PROJECT"], name=name), ""
    except Exception as error:
        why = _why(error, isinstance(error, wandb.errors.Error))
    for project in (os.environ["WANDB_PROJECT"], PROJECT):
        with suppress(Exception):
            wandb.teardown()  # it has read its variables up to the wrong one, and would go on without the others
            return wandb.init(project=project, name=name, mode="offline"), why
        for variable in _VARIABLES["wandb"]:
            os.environ.pop(variable, None)
    return wandb.init(mode="disabled"), why


def _why(error: Exception, is_its_own: bool) -> str:
    """Without the key, which another library's words may hold in part."""
    if not is_its_own:
        return f"{type(error).__name__}; is one of this machine's WANDB_ variables not right?"
    return str(error).partition("\n")[0].rstrip(".").replace(os.environ.get("WANDB_API_KEY") or "\0", "…")


def _without_paths(told: Any) -> Any:
    """Settings to send: of what lies on this machine the last name, since folders tell who uses it."""
    if isinstance(told, str):
        return Path(told).name if told.startswith(("/", "~")) else told
    if isinstance(told, Mapping):
        return {name: _without_paths(value) for name, value in told.items()}
    if isinstance(told, list | tuple | set):
        return [_without_paths(value) for value in told]
    return _without_paths(told.to_dict()) if hasattr(told, "to_dict") else told  # peft's description of an adapter


def _is_here(reporter: str) -> bool:
    return reporter == "none" or any(find_spec(module) is not None for module in _MODULES[reporter])
