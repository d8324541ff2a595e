"""Write what was trained as others expect it: an adapter as PEFT does (`adapter_model.safetensors`, `adapter_config.json`), a
whole model as transformers does (safetensors, configuration, tokenizer); a README with the lineage beside it.

No trainer state and no pickle goes into the folder. A base that lies below this application is recorded relative to
it, so that moving the whole does not break the record and no machine's path is published with an adapter.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from data.model_folder import read_object
from data.rundir import sha256_of
from data.words import number
from training.config import Method
from training.methods import METHOD_FACTS

ROOT = Path(__file__).resolve().parent.parent
_LINEAGE = "studio.json"  # in the folder of a wholly tuned model


class Lineage(NamedTuple):
    """Where an adapter or a model comes from; written into its README."""

    method: Method
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


def save_adapter(model: Any, folder: Path, lineage: Lineage, weights: dict[str, Any] | None = None) -> None:
    """Save the trained adapter of a `PeftModel` alone: TRL's frozen reference copy stays behind. `weights`: where `model` holds a
    part of them only."""
    model.save_pretrained(str(folder), selected_adapters=["default"], safe_serialization=True, state_dict=weights)
    config_file = folder / "adapter_config.json"
    config = json.loads(config_file.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = portable(lineage.base)
    config["inference_mode"] = True
    if isinstance(config.get("target_modules"), list):  # peft writes a set, in an order of its own each time
        config["target_modules"].sort()
    config_file.write_text(json.dumps(config, ensure_ascii=False, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(_readme(lineage), encoding="utf-8")


def save_model(model: Any, weights: Mapping[str, Any], tokenizer: Any, folder: Path, lineage: Lineage) -> None:
    """Save all `weights` of a trained model in the number format of its base, as a folder that can be trained and sampled again."""
    from transformers import AutoConfig

    kept = AutoConfig.from_pretrained(lineage.base, trust_remote_code=False).dtype or model.dtype
    tied: dict[int, Any] = {}  # what shares memory is converted once, so that it is saved once
    converted = {
        name: tied.setdefault(weight.data_ptr(), weight.to(kept)) if weight.is_floating_point() else weight
        for name, weight in weights.items()
    }
    _save_whole(model, tokenizer, folder, lineage.base, str(kept), state_dict=converted)
    (folder / "README.md").write_text(_readme(lineage), encoding="utf-8")


def save_plain(model: Any, tokenizer: Any, folder: Path, base: str) -> None:
    """Save a whole model as it is: one whose adapter was merged into it."""
    _save_whole(model, tokenizer, folder, base, str(model.dtype))


def _save_whole(model: Any, tokenizer: Any, folder: Path, base: str, dtype: str, **weights: Any) -> None:
    """Weights, configuration, tokenizer, and which base it goes back to."""
    model.config.use_cache = True
    model.save_pretrained(str(folder), safe_serialization=True, **weights)
    config_file = folder / "config.json"
    config = json.loads(config_file.read_text(encoding="utf-8")) | {"dtype": dtype.removeprefix("torch.")}
    config_file.write_text(json.dumps(config, ensure_ascii=False, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    tokenizer.save_pretrained(str(folder))
    mark_root(folder, base)


def mark_root(folder: Path, base: str) -> None:
    """Say in a whole model's folder which base it goes back to."""
    (folder / _LINEAGE).write_text(json.dumps({"root": root_of(base)}) + "\n", encoding="utf-8")


def root_of(base: str) -> str:
    """The base that a line of wholly tuned models began with: what such a model's folder says, else this one itself."""
    try:
        said = read_object(Path(base).expanduser() / _LINEAGE)["root"]
    except (OSError, ValueError, KeyError):
        return _shown(base)
    return str(said)


def _shown(base: str) -> str:
    """The base as it may be published: no path of this machine."""
    name = portable(base)
    return Path(name).name if Path(name).is_absolute() else name


_MODEL_CODE = """from transformers import {loader}

model = {loader}.from_pretrained("this folder")"""
_ADAPTER_CODE = """from peft import PeftModel
from transformers import {loader}

model = PeftModel.from_pretrained({loader}.from_pretrained({base!r}{head}), "this folder")"""


def weights_sha256(folder: Path) -> str:
    """What tells these weights from any other: its file's sha256, or one over those of several files."""
    files = sorted(folder.glob("*.safetensors"))
    if len(files) == 1:
        return sha256_of(files[0])
    return hashlib.sha256(" ".join(f"{file.name} {sha256_of(file)}" for file in files).encode()).hexdigest()


def _readme(lineage: Lineage) -> str:
    base, full = _shown(lineage.base), lineage.settings.get("tuning") == "full"
    parent = f"the adapter `{Path(lineage.parent).parent.name or lineage.parent}`" if lineage.parent else "the base itself"
    scores = METHOD_FACTS[lineage.method].makes == "reward"
    loader, head = ("AutoModelForSequenceClassification", ", num_labels=1") if scores else ("AutoModelForCausalLM", "")
    settings = "\n".join(f"| {name} | {value} |" for name, value in lineage.settings.items())
    metrics = "\n".join(f"| {name} | {'—' if value is None else number(value, '.4g')} |" for name, value in lineage.metrics.items())
    versions = ", ".join(f"{name} {version}" for name, version in lineage.versions.items()) or "not recorded"
    return f"""---
library_name: {"transformers" if full else "peft"}
base_model: {json.dumps(base)}
tags: [{"full" if full else "lora"}, {lineage.method}, alignment-studio]
---
# {lineage.method.upper()} {"of all weights of" if full else "adapter over"} `{base}`

Trained by Alignment Studio with {lineage.method.upper()}, going on from {parent}:
{lineage.steps} steps on {lineage.data.get("rows", "?")} frozen rows (sha256 `{lineage.data.get("sha256", "?")}`).
Versions: {versions}.

```python
{_MODEL_CODE.format(loader=loader) if full else _ADAPTER_CODE.format(loader=loader, base=base, head=head)}
```

| setting | value |
|---|---|
{settings}

| measured at the end of training | |
|---|---|
{metrics}
"""
