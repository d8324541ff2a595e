"""Endpoint keys, profiles, model folders and downloads: what is refused, and that a key goes nowhere but to its server."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from data import models
from data.engine import ModelSpec
from data.errors import BadInput
from data.records import Model
from studio.context import visitor_of
from studio.endpoint_keys import EndpointKeys
from studio.endpoint_profile import new_profile
from studio.local_models import check_folder, parameters_of
from studio.model_download import UNREACHABLE, Downloads

SECRET = "sk-secret"


def endpoint(key_env: str = "") -> Model:
    return models.new("server", "endpoint", ModelSpec("endpoint", "m", url="http://x/v1", key_env=key_env).to_json())


def test_a_typed_key_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    keys, model = EndpointKeys(), endpoint("MY_KEY")
    assert (keys.of(model), keys.where(model)) == ("", "$MY_KEY is not set")
    monkeypatch.setenv("MY_KEY", "from-env")
    assert (keys.of(model), keys.where(model)) == ("from-env", "from $MY_KEY")
    keys.hold(model.model_id, f" {SECRET} ")
    assert keys.of(model) == SECRET
    assert SECRET not in keys.where(model) + repr(keys)
    keys.forget(model.model_id)
    assert keys.of(model) == "from-env"


def test_a_run_gets_a_typed_key_by_a_variable_and_never_in_its_config(monkeypatch: pytest.MonkeyPatch) -> None:
    keys, model, other = EndpointKeys(), endpoint("MY_KEY"), endpoint()
    keys.hold(model.model_id, SECRET)
    spec = keys.spec(model)
    assert keys.env([model, other]) == {spec.key_env: SECRET}
    assert SECRET not in json.dumps(spec.to_json())
    assert keys.spec(other).key_env == ""
    keys.hold(model.model_id, "")
    assert keys.spec(model).key_env == "MY_KEY"
    assert keys.env([model]) == {}


def test_a_visitors_id_does_not_give_the_cookie_away() -> None:
    assert visitor_of("a" * 32) != visitor_of("b" * 32)
    assert "a" * 8 not in visitor_of("a" * 32)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (("x", "ftp://host/v1", "m", ""), "http"),
        (("x", "host:8000", "m", ""), "http"),
        (("x", "https://user:pass@host/v1", "m", ""), "keys and passwords"),
        (("x", "https://host/v1?key=1", "m", ""), "keys and passwords"),
        (("x", "https://host/v1", " ", ""), "name under which"),
        (("x", "https://host/v1", "m", "sk-1234"), "variable"),
        (("", "https://host/v1", "m", ""), "name"),
    ],
)
def test_a_profile_that_cannot_work_is_refused(fields: tuple[str, str, str, str], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        new_profile(*fields)


def test_a_profile_holds_no_key() -> None:
    profile = new_profile("My server", " https://host/v1/ ", "m", "MY_KEY")
    assert profile.spec == replace(ModelSpec("endpoint", "m"), url="https://host/v1", key_env="MY_KEY").to_json()


# --- folders and downloads ---


def folder(tmp_path: Path, *leave_out: str) -> Path:
    files = {
        "config.json": "{}",
        "model.safetensors": "x" * 4000,
        "tokenizer_config.json": json.dumps({"chat_template": "{{ messages }}"}),
    }
    for name, text in files.items():
        if name not in leave_out:
            (tmp_path / name).write_text(text)
    return tmp_path


def test_a_whole_model_folder_is_taken(tmp_path: Path) -> None:
    assert check_folder(str(folder(tmp_path))) == tmp_path.resolve()
    assert parameters_of(str(tmp_path)) == 2000


@pytest.mark.parametrize(
    ("missing", "says"),
    [("config.json", "no config.json"), ("model.safetensors", "no weights"), ("tokenizer_config.json", "no chat template")],
)
def test_a_folder_that_is_not_whole_is_refused(tmp_path: Path, missing: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        check_folder(str(folder(tmp_path, missing)))


def test_what_is_no_model_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no folder"):
        check_folder(str(tmp_path / "nowhere"))
    (folder(tmp_path) / "config.json").write_text("{broken")
    with pytest.raises(BadInput, match="damaged"):
        check_folder(str(tmp_path))
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(BadInput, match="adapter"):
        check_folder(str(tmp_path))


@pytest.mark.parametrize("name", ["", "model", "a/b/c", "../x/y", "/etc/passwd", "owner/model; rm -rf", "owner/..", "-x/y"])
def test_what_is_no_hub_name_is_not_asked_for(name: str) -> None:
    with pytest.raises(BadInput, match="neither a folder"):
        Downloads().start(name, lambda: None)


def test_without_the_hub_a_download_says_what_to_do_instead() -> None:
    arrived: list[bool] = []
    downloads = Downloads()
    downloads.start("someone/some-model", lambda: arrived.append(True))
    while (now := downloads.now) is not None and not (now.error or now.done):
        time.sleep(0.01)
    assert now is not None
    assert now.error == UNREACHABLE
    assert arrived == []
    downloads.start("someone/some-model", lambda: None)  # a failed one is in nobody's way


def test_a_download_that_there_is_no_thread_for_is_in_nobodys_way(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoMore(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    downloads = Downloads()
    with monkeypatch.context() as short:
        short.setattr("studio.model_download.threading.Thread", NoMore)
        with pytest.raises(BadInput, match="no memory"):
            downloads.start("someone/some-model", lambda: None)
    assert downloads.now is None
    downloads.start("someone/some-model", lambda: None)
