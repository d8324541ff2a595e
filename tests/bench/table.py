"""The one table a benchmark ends with, and its JSON: `$STUDIO_HOME/bench/<name>.json`, rows {what, ours, peer, ratio,
unit, bar, met}.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One figure. `bar` None = only reported, and then it is met."""

    what: str
    ours: float | str
    unit: str = ""
    peer: float | str | None = None
    ratio: float | None = None
    bar: str | None = None
    met: bool = True


def at_least(what: str, ours: float, bar: float, unit: str = "", note: str = "") -> Row:
    """A figure that must not be lower than the bar."""
    return Row(what, round(ours, 3), unit, bar=f">= {bar:g}{note}", met=ours >= bar)


def below(what: str, ours: float, bar: float, unit: str = "") -> Row:
    """A figure that must be lower than the bar."""
    return Row(what, round(ours, 3), unit, bar=f"< {bar:g}", met=ours < bar)


def publish(name: str, rows: Sequence[Row], packages: Sequence[str] = ()) -> bool:
    """Print the table with the machine and versions, write the JSON; whether every bar is met."""
    file = Path(os.environ.get("STUDIO_HOME", "workspace")) / "bench" / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps([asdict(row) for row in rows], ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print("\n".join([heading(name, packages), "", *lines(rows)]), flush=True)
    return all(row.met for row in rows)


def heading(name: str, packages: Sequence[str]) -> str:
    found = ", ".join(f"{package} {version(package)}" for package in packages)
    load = ", ".join(f"{x:.1f}" for x in os.getloadavg())
    machine = f"{os.cpu_count()} cores, {platform.machine()}, load {load}"
    return f"{name}: {datetime.now(UTC):%Y-%m-%d}, {machine}{', ' + found if found else ''}"


def lines(rows: Sequence[Row]) -> list[str]:
    """A Markdown table."""
    out = ["| what | ours | peer | ratio | unit | bar | met |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        cells: Mapping[str, object] = asdict(row)
        shown = ["" if cells[key] is None else str(cells[key]) for key in ("what", "ours", "peer", "ratio", "unit", "bar")]
        out.append("| " + " | ".join([*shown, "yes" if row.met else "NO"]) + " |")
    return out
