"""Profiles of OpenAI-compatible servers: checked when they are made, and a test that asks one short question."""

from __future__ import annotations

import re
import time
from urllib.parse import urlsplit

from data import models
from data.engine import GenRequest, Message, ModelSpec
from data.errors import BadInput, EngineError
from data.records import Model
from studio.inference import Inference
from studio.render import shorten

VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")


def new_profile(name: str, url: str, model: str, key_env: str) -> Model:
    """The row of a profile, not stored yet; BadInput says which field is wrong. The key itself is never part of it."""
    url, model, key_env = url.strip().rstrip("/"), model.strip(), key_env.strip()
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadInput("The address must begin with http:// or https://, for instance http://127.0.0.1:8000/v1.")
    if parts.username or parts.password or parts.query:
        raise BadInput("Leave keys and passwords out of the address; there is a field for the key.")
    if not model:
        raise BadInput("Give the name under which the server knows the model.")
    if key_env and not VARIABLE.fullmatch(key_env):
        raise BadInput(
            "The environment variable's name holds letters, digits and _ only; the key itself goes into the other field."
        )
    return models.new(name, "endpoint", ModelSpec("endpoint", base=model, url=url, key_env=key_env).to_json())


def check_connection(inference: Inference, profile: Model, key: str) -> str:
    """Ask for a few words and say what came; EngineError in words when nothing does."""
    began = time.monotonic()
    request = GenRequest((Message("user", "Say hello."),), max_new_tokens=16, temperature=0.0)
    result = next(inference.generate(ModelSpec.from_json(profile.spec), [request], key.strip()))
    if result.finish_reason in ("error", "cancelled"):
        raise EngineError(result.error or "The endpoint gave no answer; try again.")
    return f"It answered in {time.monotonic() - began:.1f} s: “{shorten(result.text, 120) or 'nothing'}”"
