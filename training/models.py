"""Weights into memory: a base (NF4 or not), its tokenizer, adapters on top.

    tokenizer = load_tokenizer(base)                      # refuses a folder without a chat template
    model = load_base(spec, for_training=False)           # eval mode, on `device()`
    model = attach_adapter(model, folder, trainable=...)  # a PeftModel; trainable=True to go on training it (SFT -> DPO)

How a prompt becomes token ids is in `training/chat.py`, for sampling and training alike. Only safetensors are read (pickled
weights run code when opened) and no code from a model's folder is ever run. Whatever is wrong with a folder, a hub id or an
adapter is an EngineError in one sentence. An adapter is checked against the base before peft touches the model, so a broken
one leaves a resident base as it was.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError, StrictDataclassError
from peft import PeftModel
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
)

from data.engine import ModelSpec
from data.errors import EngineError
from data.model_folder import names_kind, read_object
from training.chat import Tokenizer
from training.ranks import sharding

# Below this a base is held in fp32 for sampling on a CPU: as fast as bf16 there, and batch neighbours move a logit by 1e-6 instead
# of 1e-2, so the same request gives the same text whatever it is batched with.
SMALL_PARAMETERS: Final = 50_000_000
SCORING_KIND: Final = "ForSequenceClassification"  # how the architecture of a whole reward model ends, in its config.json


class Shape(NamedTuple):
    """One tensor of an adapter file as its header tells it."""

    name: str
    dims: tuple[int, ...]


def device() -> torch.device:
    """This process's; of several processes on a machine each has a GPU of its own."""
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if torch.cuda.is_available() else torch.device("cpu")


def has_bf16() -> bool:
    """Whether bf16 arithmetic is fast here; on a CPU without AVX512-BF16 or AMX it is emulated and slower than fp32."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def compute_dtype() -> torch.dtype:
    return torch.bfloat16 if has_bf16() else torch.float32


def quantization(kept: Sequence[str] = ()) -> BitsAndBytesConfig:
    """NF4 with double quantisation: the only such configuration in the studio. `kept`: parts left as they are, none = the head.

    FSDP cuts up tensors of one number format only, so for it the packed weights are stored as if they were of the compute type.
    """
    return BitsAndBytesConfig(
        load_in_4bit=True,
        llm_int8_skip_modules=list(kept) or None,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype(),
        bnb_4bit_quant_storage=compute_dtype() if sharding() == "fsdp" else torch.uint8,
    )


# --- base and tokenizer -------------------------------------------------------------------------------------------------------


def load_base(
    spec: ModelSpec, for_training: bool = False, dtype: torch.dtype | None = None, scoring: bool = False
) -> PreTrainedModel:
    """The bare base of a local spec on `device()`, in eval mode; `spec.quantize` holds it in NF4. The adapter is not attached.

    dtype None = bf16 where that is fast, else fp32; for sampling on a CPU a small base is fp32 in any case (see SMALL_PARAMETERS).
    for_training leaves the cache off. scoring puts a head with one output (`score`, not yet trained unless the base is a reward
    model) in place of the language head. EngineError when there is nothing that can be loaded.
    """
    name = _known(spec)
    config = _read(name, lambda: AutoConfig.from_pretrained(name, trust_remote_code=False))
    if dtype is None:
        small = not for_training and device().type == "cpu" and _read(name, lambda: _parameters(config)) < SMALL_PARAMETERS
        dtype = torch.float32 if small else compute_dtype()
    if scoring:
        config.num_labels = 1
    elif names_kind(config.architectures, SCORING_KIND):
        raise EngineError(f"{name} is a reward model: it scores answers and writes none; choose another model.")
    model = _read(
        name,
        lambda: (AutoModelForSequenceClassification if scoring else AutoModelForCausalLM).from_pretrained(
            name,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            quantization_config=quantization(kept=("score",) if scoring else ()) if spec.quantize else None,
            device_map={"": device()},
        ),
    )
    _spare_repacking(model, for_training)
    model.config.use_cache = not for_training
    model.eval()
    return model


def _spare_repacking(model: torch.nn.Module, for_training: bool) -> None:
    """Keep bitsandbytes from repacking NF4 weights for a CPU kernel where that fails or harms.

    At the first forward in eval mode it does so for good: it raises for widths that are no multiples of its blocks, and the
    kernel has no backward, so one evaluation during training would cut the gradients of every layer below, without a word.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu") and (for_training or module.in_features % 64 or module.out_features % 32):
            module.support_avx512bf16_for_cpu = False


def load_tokenizer(base: str) -> Tokenizer:
    """The base's tokenizer with padding on the left and a pad token; EngineError where it has no chat template."""
    name = _known(ModelSpec("local", base))
    tokenizer = _read(name, lambda: AutoTokenizer.from_pretrained(name, trust_remote_code=False))
    if not tokenizer.chat_template:
        raise EngineError(
            f"{name} has no chat template, so it cannot be asked in turns; choose its instruct variant, or put a "
            "chat_template.jinja into its folder."
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if tokenizer.pad_token_id is None:
        raise EngineError(f"{name} has no end-of-text token; add eos_token to its tokenizer_config.json.")
    tokenizer.padding_side = "left"
    return tokenizer


def context_length(model: PreTrainedModel) -> int:
    """Longest prompt and reply together, in tokens."""
    config = model.config.get_text_config(decoder=True)
    length = getattr(config, "max_position_embeddings", None)
    return int(length) if length else 1 << 20  # recurrent models state none


def _known(spec: ModelSpec) -> str:
    """The folder or hub id, or a sentence: a path that is not there must not be taken for a hub id."""
    base = spec.base.strip()
    if spec.kind != "local" or not base:
        raise EngineError("No local model is named; choose a model folder or a hub id on the Models page.")
    folder = Path(base).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise EngineError(f"{base} is no model folder: it has no config.json; choose the folder with the model's weights.")
        try:
            read_object(folder / "config.json")
        except (OSError, ValueError) as error:
            raise EngineError(f"{base} has a damaged file: {_first_line(error)}; copy or download the model again.") from error
        return str(folder)
    if folder.exists() or base[0] in "/.~" or base.count("/") > 1 or "\\" in base:
        raise EngineError(f"There is no model folder {base}; check the path on the Models page.")
    return base


def _read(name: str, load: Any) -> Any:
    """`load()`, with transformers' many ways to fail turned into sentences."""
    try:
        return load()
    except (GatedRepoError, RepositoryNotFoundError, HFValidationError, OSError) as error:
        raise EngineError(_unreadable(name, error)) from error
    except SafetensorError as error:
        raise EngineError(f"The weights of {name} are damaged ({_first_line(error)}); copy or download the model again.") from error
    except torch.OutOfMemoryError as error:
        raise EngineError(f"{name} does not fit into memory; choose a smaller model or turn 4-bit on.") from error
    except Exception as error:  # what a folder may say has no end, nor have the ways in which a library stumbles over it
        if "allocate memory" in str(error) or isinstance(error, MemoryError):
            raise EngineError(f"{name} does not fit into memory; choose a smaller model or turn 4-bit on.") from error
        if "custom code" in str(error):
            raise EngineError(f"{name} brings code of its own, which is never run here; choose another model.") from error
        raise EngineError(f"{name} cannot be loaded as a causal language model: {_first_line(error)}") from error


def _unreadable(name: str, error: Exception) -> str:
    chain = [error, error.__cause__, error.__context__]
    if any(isinstance(e, GatedRepoError) for e in chain):
        return f"{name} is gated on the hub; accept its terms there and set HF_TOKEN."
    if Path(name).is_dir():
        folder = Path(name)
        if "json" in str(error).lower() and "weights" not in str(error).lower() and "safetensors" not in str(error):
            return f"{name} has a damaged file: {_first_line(error)}"
        if any(folder.glob("*.bin")) and not any(folder.glob("*.safetensors")):
            return f"{name} holds only pickled weights (.bin), which can run code when opened; convert them to safetensors first."
        if not any(folder.glob("*.safetensors")):
            return f"{name} holds no weights (*.safetensors); copy the whole model folder."
        return f"{name} cannot be read: {_first_line(error)}"
    if "safetensors" in str(error):
        return f"{name} has no safetensors weights on the hub; choose a model that has them."
    if any(isinstance(e, RepositoryNotFoundError | HFValidationError) for e in chain):
        return f"There is no model {name} on the hub; check its name, or give the path of a folder."
    return (
        f"{name} is neither a folder here nor in the hub's cache, and the hub cannot be reached; connect, or choose a local folder."
    )


def _first_line(error: BaseException) -> str:
    if isinstance(error, StrictDataclassError):  # its first line says only that something is wrong
        return " ".join(str(error).split())[:300]
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _parameters(config: Any) -> int:
    """Parameters of the architecture, counted without allocating any."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    return sum(p.numel() for p in model.parameters())


# --- adapters -----------------------------------------------------------------------------------------------------------------


def attach_adapter(model: Any, folder: str | Path, name: str = "default", trainable: bool = False) -> PeftModel:
    """`folder`'s LoRA adapter on a base or, under another name, beside those a PeftModel has.

    EngineError leaves the model unchanged. To train on top of an adapter pass trainable=True and hand the PeftModel to TRL,
    which keeps a frozen copy as its reference.
    """
    check_adapter(model, folder)
    try:
        if isinstance(model, PeftModel):
            model.load_adapter(str(folder), name, is_trainable=trainable, torch_device=str(device()))
            return model
        return PeftModel.from_pretrained(model, str(folder), name, is_trainable=trainable, torch_device=str(device()))
    except Exception as error:  # see `_read`
        raise EngineError(f"The adapter {Path(folder).name} cannot be attached: {_first_line(error)}") from error


def check_adapter(model: Any, folder: str | Path) -> dict[str, Any]:
    """The adapter's config, once it is sure that its tensors are whole and fit `model`; EngineError in words otherwise."""
    folder = Path(folder)
    if not folder.is_dir():
        raise EngineError(f"There is no adapter folder {folder}; the run that made it may have been removed.")
    try:
        config = read_object(folder / "adapter_config.json")
    except (OSError, ValueError) as error:
        raise EngineError(f"{folder} is no adapter folder: its adapter_config.json is missing or damaged.") from error
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    if config.get("task_type") == "SEQ_CLS" and not hasattr(base, "score"):
        raise EngineError(f"The adapter {folder.name} is a reward model: it scores answers and writes none; choose another model.")
    if config.get("peft_type") != "LORA":
        raise EngineError(f"The adapter {folder.name} is of type {config.get('peft_type')}; only LoRA adapters can be used.")
    if config.get("megatron_config"):  # peft would import whatever module its file names
        raise EngineError(f"The adapter {folder.name} is for Megatron; only LoRA adapters over transformers' layers can be used.")
    shapes = _adapter_shapes(folder)
    modules = dict(base.named_modules())
    for name, dims in shapes:
        _check_shape(folder.name, modules, name, dims)
    return config


def _adapter_shapes(folder: Path) -> list[Shape]:
    file = folder / "adapter_model.safetensors"
    if not file.is_file():
        if (folder / "adapter_model.bin").exists():
            raise EngineError(
                f"The adapter {folder.name} is pickled (adapter_model.bin), which can run code when opened; save it as safetensors."
            )
        raise EngineError(f"The adapter {folder.name} has no weights (adapter_model.safetensors is missing).")
    try:
        with safe_open(str(file), framework="pt") as tensors:
            shapes = [Shape(name, tuple(tensors.get_slice(name).get_shape())) for name in tensors.keys()]  # noqa: SIM118
    except (SafetensorError, OSError, struct.error) as error:
        raise EngineError(f"The adapter {folder.name} is damaged ({_first_line(error)}); train it again.") from error
    if not shapes:
        raise EngineError(f"The adapter {folder.name} holds no weights.")
    return shapes


def _check_shape(adapter: str, modules: dict[str, Any], name: str, dims: tuple[int, ...]) -> None:
    """Whether one tensor fits the module it names; tensors that are no lora_A or lora_B are left to peft."""
    path, dot, rest = name.removeprefix("base_model.model.").partition(".lora_")
    side = rest[:1]
    if not dot or side not in "AB":
        return
    module = modules.get(path)
    if module is None:
        raise EngineError(f"The adapter {adapter} was made for another base: this one has no part {path}.")
    module = getattr(module, "base_layer", module)
    wide = getattr(module, "in_features" if side == "A" else "out_features", None)
    made_for = dims[1 if side == "A" else 0] if len(dims) == 2 else wide
    if wide is not None and made_for != wide:
        raise EngineError(f"The adapter {adapter} was made for another base: {path} is {wide} wide here, not {made_for}.")
