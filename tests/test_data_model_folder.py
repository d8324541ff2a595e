"""A model's folder comes from anywhere: odd JSON in it is a sentence for whoever looks at it, never a traceback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data.errors import BadInput
from data.model_folder import MAX_BYTES, names_kind, read_object
from studio.local_models import check_folder
from training.export import _LINEAGE, root_of
from training.memory import shape_of

ODD = {
    "empty": b"",
    "half": b'{"model_type": ',
    "list": b"[1]",
    "null": b"null",
    "number": b"3",
    "string": b'"LlamaForCausalLM"',
    "no text": b"\xff\xfe\x00\xd8",
    "zeros": b"\0" * 100,
    "deep list": b"[" * 100_000 + b"]" * 100_000,
    "deep object": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "long number": b'{"hidden_size": ' + b"9" * 10_000 + b"}",
    "huge": b'{"a": "' + b"x" * MAX_BYTES + b'"}',
}


@pytest.mark.parametrize("content", ODD.values(), ids=ODD.keys())
def test_what_is_no_json_object_is_said_in_words(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"x")
    for name in ("config.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes(b'{"chat_template": "x"}')
    assert check_folder(str(tmp_path)) == tmp_path
    (tmp_path / "tokenizer_config.json").write_bytes(content)
    with pytest.raises(BadInput, match="has no chat template"):
        check_folder(str(tmp_path))
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"^config.json (is no JSON|holds no JSON object|is far too large)$"):
        read_object(tmp_path / "config.json")
    with pytest.raises(BadInput, match=r"config.json is damaged; copy the model again\.$"):
        check_folder(str(tmp_path))
    with pytest.raises(BadInput, match="of a decoder"):
        shape_of(str(tmp_path))
    (tmp_path / _LINEAGE).write_bytes(content)
    assert root_of(str(tmp_path)) == tmp_path.name, "no more is known of it"


@pytest.mark.parametrize("odd", ["x", None, -1, 0, 1e308, float("inf"), float("nan"), 10**40, [], {}, [1, None], {"a": {"b": []}}])
def test_no_size_of_a_layer_is_taken_for_granted(tmp_path: Path, odd: object) -> None:
    sizes = ("hidden_size", "num_attention_heads", "num_hidden_layers", "intermediate_size", "vocab_size")
    whole = dict.fromkeys(sizes, 64)
    for name in sizes:
        (tmp_path / "config.json").write_text(json.dumps(whole | {name: odd}))
        with pytest.raises(BadInput, match="of a decoder"):
            shape_of(str(tmp_path))


def test_an_architecture_is_known_in_a_list_and_alone() -> None:
    ending = "ForSequenceClassification"
    for said in (["LlamaForSequenceClassification"], "LlamaForSequenceClassification", [1, None, "XForSequenceClassification"]):
        assert names_kind(said, ending)
    for said in (None, 3, True, {}, [], [None], "LlamaForCausalLM", ["LlamaForCausalLM"], {"a": ending}, [[ending]]):
        assert not names_kind(said, ending)
