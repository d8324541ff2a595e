"""Figures that also go to TensorBoard and its like: only where it is installed, only when asked, and nothing secret among them."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from data.errors import BadInput
from data.rundir import RunDir
from studio import processes
from training import reporting
from training.config import REPORTERS, SftConfig

TENSORBOARD = any(find_spec(name) for name in ("tensorboard", "tensorboardX"))


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`only("trackio")`: of all reporters just this one is installed."""

    def installed(*names: str) -> None:
        monkeypatch.setattr(reporting, "find_spec", lambda name: object() if name in names else None)

    return installed


def test_only_what_is_installed_is_offered(only: Any) -> None:
    only()
    assert reporting.installed() == ("none",)
    only("trackio", "tensorboardX")
    assert reporting.installed() == ("none", "tensorboard", "trackio")


@pytest.mark.parametrize("name", [name for name in REPORTERS if name != "none"])
def test_what_is_not_installed_is_refused_with_the_command(only: Any, name: str) -> None:
    only()
    with pytest.raises(BadInput, match=f"pip install {name}"):
        reporting.check(name)


def test_a_visitor_sends_nothing_anywhere(only: Any) -> None:
    only("wandb")
    reporting.check("wandb")
    reporting.check("none", visitor=True)
    with pytest.raises(BadInput, match="visitor"):
        reporting.check("wandb", visitor=True)


def test_by_default_nothing_is_reported(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "r", {})
    reporting.prepare(run, SftConfig().report_to)
    assert reporting.arguments(run, SftConfig().report_to)["report_to"] == "none"
    assert run.tail().events == []


def test_weights_and_biases_is_sent_figures_alone(tmp_path: Path, only: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"WANDB_LOG_MODEL": "end", "WANDB_CONSOLE": "wrap", "WANDB_PROJECT": "mine"})
    only("wandb")
    reporting.prepare(RunDir.create(tmp_path / "r", {}), "wandb")
    assert os.environ["WANDB_LOG_MODEL"] == os.environ["WANDB_WATCH"] == "false"
    assert os.environ["WANDB_CONSOLE"] == "off"
    assert os.environ["WANDB_PROJECT"] == "mine", "where they go is the account's owner's to say"


def test_trackio_writes_into_the_workspace_and_tells_no_server(tmp_path: Path, only: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"TRACKIO_SPACE_ID": "me/figures", "TRACKIO_SERVER_URL": "https://x", "PATH": "/bin"})
    only("trackio")
    run = RunDir.create(tmp_path / "home" / "runs" / "r", {})
    reporting.prepare(run, "trackio")
    assert os.environ == {"PATH": "/bin", "TRACKIO_DIR": str(tmp_path / "home" / "trackio")}


def test_a_reporters_account_reaches_its_own_runs_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    for train, reaches in (({"report_to": "wandb"}, True), ({"report_to": "none"}, False), ({}, False), (None, False), ([], False)):
        env = processes.environment({}, reporting.variables(train))
        assert ("WANDB_API_KEY" in env) is reaches


class _Wandb(SimpleNamespace):
    """As much of the library as a run is begun with: it takes no variable of the machine that is wrong, in words of its own."""

    class errors:
        class Error(Exception):
            pass

    def __init__(self, wrong: str, error: Exception, folder: Path) -> None:
        super().__init__(run=None, begun=[], told={})
        self.wrong, self.error, self.folder = wrong, error, folder

    def init(self, **given: Any) -> Any:
        if os.environ.get(self.wrong) and given.get("mode") != "disabled":
            raise self.error
        self.begun.append(given)
        config = SimpleNamespace(update=lambda told, **_: self.told.update(told))
        mode = given.get("mode")
        return SimpleNamespace(config=config, disabled=mode == "disabled", offline=mode == "offline", url="u", dir=str(self.folder))

    def teardown(self) -> None:
        pass


@pytest.mark.parametrize(
    ("wrong", "error", "why"),
    [
        ("WANDB_MODE", ValueError("1 validation error\ninput_value='5ec2e7...e7'"), "is one of this machine's WANDB_ variables"),
        ("WANDB_API_KEY", _Wandb.errors.Error("The key 5ec2e7 has a space."), "The key … has a space"),
        ("HOME", OSError("cannot begin"), "is told nothing"),
    ],
    ids=["setting", "key", "all"],
)
def test_a_wrong_variable_of_the_machine_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str, error: Exception, why: str
) -> None:
    monkeypatch.setattr(os, "environ", {"WANDB_API_KEY": "5ec2e7", "WANDB_PROJECT": "mine", wrong: "5ec2e7"})
    monkeypatch.setitem(sys.modules, "wandb", _Wandb(wrong, error, tmp_path / "wandb" / "run" / "files"))  # type: ignore[arg-type]
    said = reporting._begin_wandb(RunDir.create(tmp_path / "r", {}))
    assert why in said
    assert "5ec2e7" not in said


def test_of_what_lies_on_this_machine_weights_and_biases_is_sent_the_name_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"output_dir": str(tmp_path / "out"), "_name_or_path": "org/base", "lr": 0.5, "peft": {"default": {"base": "~/me/tiny"}}}
    fake = _Wandb("", OSError(), tmp_path)
    monkeypatch.setattr(os, "environ", {"WANDB_PROJECT": "mine"})
    monkeypatch.setitem(sys.modules, "wandb", fake)  # type: ignore[arg-type]
    begun: list[Any] = []
    init = fake.init
    monkeypatch.setattr(fake, "init", lambda **given: begun.append(init(**given)) or begun[0])
    reporting._begin_wandb(RunDir.create(tmp_path / "r", {}))
    begun[0].config.update(told, allow_val_change=True)
    assert fake.told == {"output_dir": "out", "_name_or_path": "org/base", "lr": 0.5, "peft": {"default": {"base": "tiny"}}}


# --- with the real ones -------------------------------------------------------------------------------------------------------

FEW = SftConfig(max_steps=2, batch_size=4, lora_rank=4, tuning="lora", sample_prompts=0)
SECRETS = {"HF_TOKEN": "hf_SecretOfThisMachine", "WANDB_API_KEY": "5ec2e7" * 7}


def report(folder: Path, reporter: str, env: dict[str, str]) -> RunDir:
    """A short run in `folder`/home/runs by `python -m`, as one who stands in a home of his own would start it."""
    from tests import tiny_model
    from tests.training_runs import ROOT, make_run, sft_rows

    base = tiny_model.save_model(folder / "tiny", hidden_size=64)
    run = make_run(folder / "home" / "runs" / "r1", base, replace(FEW, report_to=reporter), sft_rows())
    mine = {"PATH": os.environ["PATH"], "HOME": str(folder / "me"), "OMP_NUM_THREADS": "1"}
    (folder / "me").mkdir()
    with (run.path / "stdout.log").open("wb") as out:
        command = [sys.executable, "-m", "training.sft", str(run.path)]
        subprocess.run(command, cwd=ROOT, env=mine | env, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
    assert run.tail().events[-1]["status"] == "finished", run.log_tail()
    for file in folder.rglob("*"):
        if file.is_file():
            assert not [name for name, value in SECRETS.items() if value.encode() in file.read_bytes()], file
    return run


def losses(run: RunDir) -> list[float]:
    return [event["loss"] for event in run.tail().events if event["type"] == "metrics"]


def said(run: RunDir) -> str:
    return next(str(event["text"]) for event in run.tail().events if event["type"] == "log")


@pytest.fixture
def hub() -> Iterator[tuple[str, list[str]]]:
    """The hub's address, and what it was asked: nothing it answers."""
    asked: list[str] = []

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        do_HEAD = do_POST = do_GET

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


@pytest.mark.model
@pytest.mark.slow  # a process with its imports
@pytest.mark.skipif(not find_spec("trackio"), reason="trackio is not installed here: pip install trackio")
def test_trackio_keeps_every_figure_in_the_workspace_and_asks_the_hub_for_nothing(
    tmp_path: Path, hub: tuple[str, list[str]]
) -> None:
    address, asked = hub
    run = report(tmp_path, "trackio", {**SECRETS, "HF_ENDPOINT": address, "TRACKIO_SPACE_ID": "me/figures"})
    assert asked == []
    assert not [file for file in (tmp_path / "me").rglob("*") if "trackio" in file.name]
    file = tmp_path / "home" / "trackio" / "alignment-studio.db"
    with closing(sqlite3.connect(file)) as database:
        told = [json.loads(row) for (row,) in database.execute("select metrics from metrics where run_name = 'r1' order by step")]
    assert [figures["train/loss"] for figures in told if "train/loss" in figures] == losses(run)
    assert said(run) == f"Also for trackio: TRACKIO_DIR={file.parent} trackio show --project alignment-studio"


@pytest.mark.model
@pytest.mark.slow  # a process with its imports
@pytest.mark.skipif(not find_spec("wandb"), reason="wandb is not installed here: pip install wandb")
@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({**SECRETS, "WANDB_MODE": "offline"}, r"told nothing now, as WANDB_MODE says; the figures are kept"),
        ({}, r"cannot be told now \(No API key configured.*; the figures are kept"),
        (
            {**SECRETS, "WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_INIT_TIMEOUT": "2"},
            r"cannot be told now \(.*; the figures are kept",
        ),
        ({"WANDB_BASE_URL": "nonsense"}, r"cannot be told now \(.* WANDB_ variables not right\?\); the figures are kept"),
        ({"WANDB_API_KEY": f" {SECRETS['WANDB_API_KEY']}"}, r"cannot be told now \(API key .*; the figures are kept"),
    ],
    ids=["offline", "no account", "no network", "no address", "a space before the key"],
)
def test_weights_and_biases_is_told_later_where_it_cannot_be_told_now(tmp_path: Path, env: dict[str, str], words: str) -> None:
    run = report(tmp_path, "wandb", env)
    assert re.search(words, said(run))
    folder = Path(shlex.split(said(run).partition("later: ")[2])[-1])
    assert folder.parent == run.path / "wandb", "what the sentence says to send"
    (file,) = folder.glob("run-*.wandb")
    written = file.read_bytes()
    assert [loss for loss in losses(run) if str(loss).encode() not in written] == []
    assert socket.gethostname().encode() not in written or len(socket.gethostname()) < 5  # a short name is found in anything
    assert b"training.sft" not in written, "neither command line nor console"
    assert str(tmp_path).encode() not in written, "folders tell who uses this machine"
    assert not (folder / "files" / "output.log").exists()
    assert not [each for each in (tmp_path / "me").rglob("*wandb*") if each.is_file()]


@pytest.mark.model
@pytest.mark.skipif(not TENSORBOARD, reason="neither tensorboard nor tensorboardX is installed here")
def test_a_run_writes_tensorboard_files_with_its_figures_and_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests import tiny_model
    from tests.training_runs import events, make_run, sft_rows
    from training import sft

    monkeypatch.setenv("HF_TOKEN", "hf_SecretOfThisMachine")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", "")  # put back afterwards
    base = tiny_model.save_model(tmp_path / "tiny", hidden_size=64)
    config = replace(FEW, report_to="tensorboard")
    run = make_run(tmp_path / "run", base, config, sft_rows())
    sft.main(run)
    files = list((run.path / "tensorboard").glob("events.out.tfevents.*"))
    assert files
    written = b"".join(file.read_bytes() for file in files)
    assert b"train/loss" in written
    assert b"hf_SecretOfThisMachine" not in written
    assert any(f"--logdir {run.path / 'tensorboard'}" in event["text"] for event in events(run, "log"))


def test_a_full_disk_costs_figures_and_keeps_no_run_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = pytest.importorskip("tensorboardX.event_file_writer", reason="tensorboardX is not installed here")
    room = [True]

    class Disk(files.RecordWriter):  # type: ignore[misc, name-defined]
        def write(self, data: bytes) -> None:
            if not room[0]:
                raise OSError(28, "No space left on device")
            super().write(data)

    monkeypatch.setattr(files, "RecordWriter", Disk)
    reporting._leave_out_what_finds_no_room()
    writer = files.EventFileWriter(str(tmp_path))
    room[0] = False
    for _ in range(40):  # more than its queue holds
        writer.add_event(files.event_pb2.Event())
    room[0] = True
    writer.add_event(files.event_pb2.Event(file_version="the last one"))
    writer.close()
    (file,) = tmp_path.iterdir()
    assert b"the last one" in file.read_bytes()
