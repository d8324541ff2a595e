"""Write a trained adapter as any PEFT user expects it: `adapter_model.safetensors`, `adapter_config.json` and a README
with its lineage.

No trainer state and no pickle goes into the folder. A base that lies below this application is recorded relative to
it, so that moving the whole does not break the record and no machine's path is published with an adapter.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent


class Lineage(NamedTuple):
    """Where an adapter comes from; written into its README."""

    method: str
    base: str
    parent: str
    settings: dict[str, Any]
    data: dict[str, Any]  # the run's `data`: file, sha256, rows
    versions: dict[str, str]
    metrics: dict[str, float | None]
    steps: int


def portable(path: str) -> str:
    """A hub id or a folder elsewhere as it is; a folder below the application relative to it; '' stays ''."""
    if not path:
        return ""
    full = Path(path).expanduser()
    if not full.exists():
        return path
    resolved = full.resolve()
    return resolved.relative_to(ROOT).as_posix() if resolved.is_relative_to(ROOT) else path


def save_adapter(model: Any, folder: Path, lineage: Lineage) -> None:
    """Save the trained adapter of a `PeftModel` alone: TRL's frozen reference copy stays behind."""
    model.save_pretrained(str(folder), selected_adapters=["default"], safe_serialization=True)
    config_file = folder / "adapter_config.json"
    config = json.loads(config_file.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = portable(lineage.base)
    config["inference_mode"] = True
    if isinstance(config.get("target_modules"), list):  # peft writes a set, in an order of its own each time
        config["target_modules"].sort()
    config_file.write_text(json.dumps(config, ensure_ascii=False, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(_readme(lineage), encoding="utf-8")


def _readme(lineage: Lineage) -> str:
    base = portable(lineage.base)
    base = Path(base).name if Path(base).is_absolute() else base  # a README is meant to be shown
    parent = f"the adapter `{Path(lineage.parent).parent.name or lineage.parent}`" if lineage.parent else "the base itself"
    settings = "\n".join(f"| {name} | {value} |" for name, value in lineage.settings.items())
    metrics = "\n".join(f"| {name} | {'—' if value is None else f'{value:.4g}'} |" for name, value in lineage.metrics.items())
    versions = ", ".join(f"{name} {version}" for name, version in lineage.versions.items()) or "not recorded"
    return f"""---
library_name: peft
base_model: {json.dumps(base)}
tags: [lora, {lineage.method}, alignment-studio]
---
# {lineage.method.upper()} adapter over `{base}`

Trained by Alignment Studio with {lineage.method.upper()}, going on from {parent}:
{lineage.steps} steps on {lineage.data.get("rows", "?")} frozen rows (sha256 `{lineage.data.get("sha256", "?")}`).
Versions: {versions}.

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained({base!r}), "this folder")
```

| setting | value |
|---|---|
{settings}

| measured at the end of training | |
|---|---|
{metrics}
"""
