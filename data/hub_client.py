"""The hub's client library with an end to its patience: by itself it waits for ever for a hub that has fallen silent, as when a
network goes away without a word, and with it a copy of the labels and the app's end behind that.

Whoever asks the hub takes `api()`; whoever lets another library ask it calls `limit_silence()` before.
"""

from __future__ import annotations

import threading

import httpx2
from huggingface_hub import HfApi, set_client_factory
from huggingface_hub.utils._http import default_client_factory

CONNECT_S, SILENT_S = 10.0, 120.0  # until it is reached; the longest silence of one that is
_lock = threading.Lock()
_is_set = False


def api() -> HfApi:
    limit_silence()
    return HfApi()


def limit_silence() -> None:
    """From now on one of httpx2's timeouts is raised after waiting in vain, whoever asks."""
    global _is_set
    with _lock:
        if not _is_set:
            set_client_factory(_client)  # closes what is open, so once
            _is_set = True


def _client() -> httpx2.Client:
    client = default_client_factory()
    client.timeout = httpx2.Timeout(SILENT_S, connect=CONNECT_S)
    return client
