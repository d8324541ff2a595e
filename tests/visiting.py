"""Visitors as the tests of them need them: a studio in visitor mode, two visitors, and their requests as the browser sends them."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import gradio as gr

from data import models, runs
from data.engine import ModelSpec
from data.records import Model, Project, Run, now
from data.settings import Settings
from studio.context import VISITOR_COOKIE, Studio, Viewer, open_studio
from studio.side_by_side import Asked, ask

ANNA, BERT = "a" * 32, "b" * 32


class Client(NamedTuple):
    host: str


class Request(NamedTuple):
    """As much of a request as handlers use."""

    cookies: dict[str, str]
    query_params: dict[str, str] = {}
    client: Client | None = None


def request(token: str, **query: str) -> Any:
    return Request({VISITOR_COOKIE: token}, query)


@contextmanager
def visited(folder: Path) -> Iterator[Studio]:
    """A studio in visitor mode."""
    with open_studio(Settings(home=folder / "workspace", visitor=True)) as opened:
        yield opened


def viewer(studio: Studio, token: str) -> Viewer:
    return studio.viewer(request(token))


def adapter(studio: Studio, token: str, name: str = "adapter") -> Model:
    who = viewer(studio, token)
    spec = ModelSpec("local", base="nowhere", adapter="nowhere").to_json()
    made = models.new(name, "adapter", spec, studio.project(who).project_id, who.owner)
    return models.add(studio.db, made)


def run_of(studio: Studio, token: str, kind: Any = "dpo", **fields: Any) -> Run:
    """A row and a folder of a run that has ended."""
    who = viewer(studio, token)
    row: dict[str, Any] = {
        "run_id": f"run{token[:4]}{kind}",
        "project_id": studio.project(who).project_id,
        "owner": who.owner,
        "kind": kind,
        "name": f"secret run of {token[:4]}",
        "module": "training.dpo",
        "status": "finished",
        "device": "cpu",
        "config": {},
        "snapshot_id": "",
        "pid": 0,
        "pid_created": 0.0,
        "event_offset": 0,
        "progress": {},
        "result": {"rows": 3},
        "error": "",
        "queued_at": now(),
    }
    made = runs.add(studio.db, Run(**{**row, **fields}))
    folder = studio.settings.runs_dir / made.run_id
    folder.mkdir()
    (folder / "stdout.log").write_text(f"secret log of {token[:4]}")
    return made


def answered(who: Viewer, project: Project, model: Model, **fields: Any) -> Asked:
    """A question on the Compare page whose two answers are there."""
    request = ask("hi", "", 0.8, 16, 1)
    return Asked(who.owner, project.project_id, "hi", request, (model, model), ("one", "two"), **{"whole": True, **fields})


def shown(value: Any) -> str:
    """Everything a handler sends to the browser, as one text."""
    if isinstance(value, gr.components.Component | gr.blocks.Block):
        return json.dumps(value.get_config(), default=str)
    if isinstance(value, list | tuple):
        return "".join(shown(v) for v in value)
    return json.dumps(value, default=str)


P = TypeVar("P")


def build(page: P) -> P:
    """The page with its components."""
    with gr.Blocks() as demo:
        page.build(demo)  # type: ignore[attr-defined]
    return page


def call(handler: Callable[..., Any], *args: Any) -> Any:
    """What the handler sends, or the error that its guard would tell in words."""
    said = handler(*args)
    return list(said) if inspect.isgenerator(said) else said
