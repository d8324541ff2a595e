"""Which queued run begins next, and on which device. Pure but for the look at the machine's GPUs.

The queue is one line in an order that people can change. Every device takes one run at a time; a run that does not mind where it
runs gets the first device that is free. One that wants all of them waits for all, and nobody behind it slips in before.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, NamedTuple

from data.records import Run

ANY, ALL, CPU = "", "cuda:all", "cpu"
WITHOUT_DEVICE = ("hub_import", "hub_push", "hub_model")  # wait for the network
Move = Literal["first", "up", "down"]


class Due(NamedTuple):
    """A run that may begin now, and where."""

    run: Run
    device: str


def due(active: Sequence[Run], devices: Sequence[str], leaving: Collection[str] = ()) -> list[Due]:
    """Of the active runs, in the queue's order, those that may begin now. `leaving`: ids of runs whose process has gone."""
    taken = {run.device for run in active if run.status == "running" and run.run_id not in leaving}
    if ALL in taken:
        taken |= set(devices)
    found = []
    for run in active:
        device = _place(run, devices, taken) if run.status == "queued" else None
        if device is None:
            continue
        if device:
            found.append(Due(run, device))
        taken |= {device, *(devices if run.device == ALL else ())}
    return found


def _place(run: Run, devices: Sequence[str], taken: Collection[str]) -> str | None:
    """The device for a queued run, None when it has to wait, '' when nobody may pass it while it waits."""
    if run.device == ALL:
        return "" if any(device in taken for device in devices) else ALL
    if run.device == ANY:
        wanted = [CPU] if run.kind in WITHOUT_DEVICE else devices
        return next((device for device in wanted if device not in taken), None)
    return None if run.device in taken else run.device


def moved(active: Sequence[Run], run_id: str, where: Move) -> dict[str, float]:
    """The places that change when a queued run is moved, by run; empty when it does not wait or is there already."""
    waiting = [run for run in active if run.status == "queued"]
    order = [run.run_id for run in waiting]
    if run_id not in order:
        return {}
    at = order.index(run_id)
    to = {"first": 0, "up": max(0, at - 1), "down": min(len(order) - 1, at + 1)}[where]
    order.insert(to, order.pop(at))
    now = {run.run_id: run.place for run in waiting}
    return {each: float(place) for place, each in enumerate(order, 1) if now[each] != place}


def wanted(config: Mapping[str, Any]) -> str:
    """The device that a run with this config waits for, when it is started and when it goes on."""
    return ALL if "launch" in (config.get("args") or {}) else ANY


def last_place(active: Sequence[Run]) -> float:
    """Behind everybody."""
    return max((run.place for run in active), default=0.0) + 1.0


def gpus() -> list[str]:
    """Names of the GPUs that this process may use, as CUDA_VISIBLE_DEVICES takes them; without loading anything that would."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name.strip() for name in chosen.split(",") if name.strip() not in ("", "-1")]
    with suppress(OSError, subprocess.SubprocessError):
        told = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True, check=True, timeout=20
        )
        return told.stdout.split()
    return []


def devices_of(gpu_names: Sequence[str]) -> list[str]:
    """The devices that runs are spread over."""
    return [f"cuda:{number}" for number in range(len(gpu_names))] or [CPU]


def visible(device: str, gpu_names: Sequence[str]) -> dict[str, str]:
    """What a run's environment says of the GPU it was given; nothing where there is no choice."""
    if len(gpu_names) < 2 or not device.startswith("cuda:") or device == ALL:
        return {}
    return {"CUDA_VISIBLE_DEVICES": gpu_names[int(device.removeprefix("cuda:"))]}
