"""A language model of 220 KB that says known sentences, written as a GGUF file for llama.cpp.

It is a Llama of one layer whose attention and feed-forward weights are zero, so that the next token depends on the last
one alone: each `chain` is a list of tokens, of which each makes the next one nearly certain. The last token of the
prompt selects the chain. After a token of no chain the model ends its answer; if it may not end (a grammar, or
``ignore_eos``), all bytes are equally likely.

Source: the layout of the file is that of https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

import itertools
import random
import struct
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import field, frozen

__all__ = ["ASKED", "ASKED_FOR_EVER", "CHAINS", "END", "SONG", "TEMPLATE", "THOUGHT", "WIDTH", "rows", "write_model"]

WIDTH = 64
END = "</s>"
CONTEXT = 65_536

# The form of Hermes' and Qwen's templates. The last line of the prompt selects what the model says.
TEMPLATE = """
{%- if tools %}<|im_start|>system
<tools>{% for tool in tools %}{{ tool | tojson }}
{% endfor %}</tools>
For each call return <tool_call>{"name": .., "arguments": ..}</tool_call><|im_end|>
{% endif %}
{%- for message in messages %}<|im_start|>{{ message.role }}
{%- if message.reasoning_content %}
<think>
{{ message.reasoning_content }}
</think>
{%- endif %}
{{ message.content or '' }}
{%- for call in message.tool_calls or [] %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>
{%- endfor %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}
{%- if tools and messages[-1].role != 'tool' %}<|im_start|>assistant <|calls|>
{%- elif messages[-1].content == 'For ever!' %}<|im_start|>assistant <|ever|>
{%- else %}<|im_start|>assistant
{% endif %}
{%- endif %}"""

ASKED, ASKED_WITH_TOOLS = "<|im_start|>assistant\n", "<|im_start|>assistant <|calls|>"
ASKED_FOR_EVER = "<|im_start|>assistant <|ever|>"
THOUGHT = ["Water", " flows", "!"]
SONG = ["Sparkling", " water", " is", " wet", "."]
CALLS = [
    *("<tool_call>", '\n{"name": "weather", "arguments": {"city": "Pa', 'ris"}}', "\n</tool_call>"),
    *("\n<tool_call>\n", '{"name": "weather", "arguments": {"city": "Ro', 'me"}}', "\n</tool_call>\n"),
]
CHAINS = [
    [ASKED, "<think>", *THOUGHT, "</think>", *SONG, END],
    [ASKED_WITH_TOOLS, *CALLS, END],
    [ASKED_FOR_EVER, "la", "la"],
]

# GGUF's numbers for types.
_U32, _F32, _BOOL, _STRING, _ARRAY = 4, 6, 7, 8, 9
_I32 = 5
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 1, 2, 3, 4, 6
_ALIGNMENT = 32

# A token's embedding is 1 or -1 in each dimension, and 1 in the first. So the product with itself is WIDTH, and with
# another one it is small. The first dimension gives a token a likelihood that depends on nothing.
_END_SCORE = 32.0  # less than WIDTH, the score of the next token of a chain
_QUOTE_SCORE = 30.0  # so a string in JSON ends at once


@frozen
class _Tensor:
    name: str
    shape: Sequence[int]
    values: array[float] = field(repr=False)

    @classmethod
    def filled(cls, name: str, *shape: int, value: float = 0.0) -> _Tensor:
        """A tensor of equal values."""
        size = 1
        for length in shape:
            size *= length
        return cls(name, shape, array("f", [value]) * size)


def write_model(path: Path, chains: Sequence[Sequence[str]] = CHAINS, template: str = TEMPLATE) -> None:
    """Write the model.

    Args:
        path: the file.
        chains: the sentences, token by token. The first token of a chain is the one that the prompt ends with.
        template: the chat template, in Jinja.
    """
    words = list(dict.fromkeys(word for chain in chains for word in chain if word != END))
    tokens = ["<unk>", "<s>", END, *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    kinds = [_UNKNOWN, _CONTROL, _CONTROL, *[_BYTE] * 256, *[_USER_DEFINED] * len(words)]
    facts: dict[str, tuple[int, Any]] = {
        "general.architecture": (_STRING, "llama"),
        "general.name": (_STRING, "tiny"),
        "llama.context_length": (_U32, CONTEXT),
        "llama.embedding_length": (_U32, WIDTH),
        "llama.block_count": (_U32, 1),
        "llama.feed_forward_length": (_U32, 1),
        "llama.attention.head_count": (_U32, 2),
        "llama.attention.head_count_kv": (_U32, 2),
        "llama.attention.layer_norm_rms_epsilon": (_F32, 1e-5),
        "llama.rope.dimension_count": (_U32, WIDTH // 2),
        "llama.vocab_size": (_U32, len(tokens)),
        "tokenizer.ggml.model": (_STRING, "llama"),
        "tokenizer.ggml.tokens": (_STRING, tokens),
        "tokenizer.ggml.scores": (_F32, [0.0] * len(tokens)),
        "tokenizer.ggml.token_type": (_I32, kinds),
        "tokenizer.ggml.unknown_token_id": (_U32, 0),
        "tokenizer.ggml.bos_token_id": (_U32, 1),
        "tokenizer.ggml.eos_token_id": (_U32, 2),
        "tokenizer.ggml.add_bos_token": (_BOOL, True),
        "tokenizer.ggml.add_space_prefix": (_BOOL, False),
        "tokenizer.chat_template": (_STRING, template),
    }
    path.write_bytes(_file(facts, _weights(tokens, chains)))


def rows(
    tokens: Sequence[str], chains: Sequence[Sequence[str]], quote: str, seed: int
) -> tuple[list[array[float]], list[array[float]]]:
    """Return the embedding of each token, and its row of the output matrix.

    `quote` is the token of a quotation mark. With some seeds another token is likelier than the next one of a chain.
    """
    coin = random.Random(seed)
    embeddings = [array("f", [1.0, *coin.choices((-1.0, 1.0), k=WIDTH - 1)]) for _ in tokens]
    outputs = [array("f", [0.0]) * WIDTH for _ in tokens]
    place = {token: index for index, token in enumerate(tokens)}
    outputs[place[END]][0] = _END_SCORE
    outputs[place[quote]][0] = _QUOTE_SCORE
    for before, after in {pair for chain in chains for pair in itertools.pairwise(chain)}:
        row = outputs[place[after]]
        for index, value in enumerate(embeddings[place[before]]):
            row[index] += value
    return embeddings, outputs


def _weights(tokens: Sequence[str], chains: Sequence[Sequence[str]]) -> list[_Tensor]:
    embeddings, outputs = rows(tokens, chains, "<0x22>", 7)
    ones = {"value": 1.0}
    layer = "blk.0."
    return [
        _Tensor("token_embd.weight", (WIDTH, len(tokens)), _joined(embeddings)),
        _Tensor("output.weight", (WIDTH, len(tokens)), _joined(outputs)),
        _Tensor.filled("output_norm.weight", WIDTH, **ones),
        _Tensor.filled(layer + "attn_norm.weight", WIDTH, **ones),
        _Tensor.filled(layer + "ffn_norm.weight", WIDTH, **ones),
        *(_Tensor.filled(f"{layer}attn_{name}.weight", WIDTH, WIDTH) for name in ("q", "k", "v", "output")),
        _Tensor.filled(layer + "ffn_gate.weight", WIDTH, 1),
        _Tensor.filled(layer + "ffn_up.weight", WIDTH, 1),
        _Tensor.filled(layer + "ffn_down.weight", 1, WIDTH),
    ]


def _joined(rows: Sequence[array[float]]) -> array[float]:
    joined = array("f")
    for row in rows:
        joined.extend(row)
    return joined


def _file(facts: Mapping[str, tuple[int, Any]], tensors: Sequence[_Tensor]) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(facts))
    for name, (kind, value) in facts.items():
        if isinstance(value, list):
            head += _text(name) + struct.pack("<IIQ", _ARRAY, kind, len(value))
            head += b"".join(_value(kind, item) for item in value)
        else:
            head += _text(name) + struct.pack("<I", kind) + _value(kind, value)
    body = b""
    for tensor in tensors:
        head += _text(tensor.name) + struct.pack("<I", len(tensor.shape))
        head += struct.pack(f"<{len(tensor.shape)}Q", *tensor.shape) + struct.pack("<IQ", 0, len(body))
        body += _padded(tensor.values.tobytes())
    return _padded(head) + body


def _value(kind: int, value: Any) -> bytes:
    return (
        _text(value) if kind == _STRING else struct.pack({_U32: "<I", _I32: "<i", _F32: "<f", _BOOL: "<?"}[kind], value)
    )


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % _ALIGNMENT)
