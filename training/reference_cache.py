"""Log-probabilities under a reference model, kept from run to run: a second run over the same labels computes none of them.

One file per reference below `<home>/cache/reference/`: records of 32 bytes, appended and never rewritten.

    16 bytes  blake2b of the row's token ids          8 bytes  float64 value          8 bytes  blake2b of these 24

A reference is what can move a log-probability: the base's weights, the parent adapter's, the chat template, the arithmetic. A
row's key is its tokens, so new labels cost only themselves. A torn, overwritten or foreign record fails its check and is computed
again; a file that cannot be read or written costs time, never a run. Nothing is unpickled.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import struct
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from data.rundir import RunDir, sha256_of

_RECORD = 32
_LOCK_S = 10.0  # another run holds the file for milliseconds; one that was suspended while it did so is not waited for


class ReferenceCache:
    """The values of one reference; `hits` and `misses` count what was asked for."""

    def __init__(self, folder: Path, reference: Mapping[str, Any]) -> None:
        name = hashlib.sha256(json.dumps(reference, sort_keys=True).encode()).hexdigest()[:32]
        self.path = folder / f"{name}.logps"
        self.hits = self.misses = 0
        self._known = _read(self.path)

    def get(self, prompt: Sequence[int], completion: Sequence[int]) -> float | None:
        value = self._known.get(_key(prompt, completion))
        if value is None:
            self.misses += 1
        else:
            self.hits += 1
        return value

    def put(self, rows: Sequence[tuple[Sequence[int], Sequence[int], float]]) -> None:
        """Prompt, completion, value; what is not finite is not kept. A disk that is full or read-only keeps nothing."""
        new = {_key(prompt, completion): value for prompt, completion, value in rows if math.isfinite(value)}
        self._known |= new
        with suppress(OSError):
            _append(self.path, b"".join(_record(key, value) for key, value in new.items()))


def cache_folder(run: RunDir) -> Path:
    return run.home / "cache" / "reference"


def weights_id(folder: str | Path) -> str:
    """What tells one set of weights from another: the sha256 of a folder's safetensors and configurations; OSError without any."""
    root = Path(folder).expanduser()
    files = sorted([*root.glob("*.safetensors"), *root.glob("*config.json")])
    if not any(file.suffix == ".safetensors" for file in files):
        raise OSError(f"{folder} holds no weights")
    return hashlib.sha256(" ".join(f"{file.name} {sha256_of(file)}" for file in files).encode()).hexdigest()


def _key(prompt: Sequence[int], completion: Sequence[int]) -> bytes:
    parts = struct.pack(f"<q{len(prompt)}q{len(completion)}q", len(prompt), *prompt, *completion)
    return hashlib.blake2b(parts, digest_size=16).digest()


def _record(key: bytes, value: float) -> bytes:
    body = key + struct.pack("<d", value)
    return body + _check(body)


def _check(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=8, person=b"logps-1").digest()


def _read(path: Path) -> dict[bytes, float]:
    try:
        raw = path.read_bytes()
    except OSError:
        return {}
    known: dict[bytes, float] = {}
    for at in range(0, len(raw) - _RECORD + 1, _RECORD):
        body, check = raw[at : at + 24], raw[at + 24 : at + _RECORD]
        value = struct.unpack("<d", body[16:])[0]
        if _check(body) == check and math.isfinite(value):
            known[body[:16]] = value
    return known


def _append(path: Path, records: bytes) -> None:
    """At a whole number of records: a tail that was cut off by a crash is written over."""
    if not records:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    with open(handle, "r+b", buffering=0) as file:
        _lock(file.fileno())
        end = os.fstat(file.fileno()).st_size // _RECORD * _RECORD
        file.seek(end)
        file.write(records)
        file.truncate(end + len(records))


def _lock(handle: int) -> None:
    """For one writer at a time, until the file is closed; OSError where another keeps it."""
    until = time.monotonic() + _LOCK_S
    while True:
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                raise
            time.sleep(0.01)
