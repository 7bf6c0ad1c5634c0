"""The model of `tiny_gguf` in the format of Hugging Face's transformers, a folder of 200 KB."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tiny_gguf import CHAINS, END, TEMPLATE, WIDTH, rows

__all__ = ["write_folder"]

CONTEXT = 65_536


def write_folder(
    folder: Path, chains: Sequence[Sequence[str]] = CHAINS, template: str | None = TEMPLATE, **generation: Any
) -> None:
    """Write the model.

    Args:
        folder: an existing folder.
        chains: the sentences, token by token, as for `tiny_gguf.write_model`.
        template: the chat template, in Jinja; None for a model that only continues text.
        generation: further fields of the generation config.
    """
    import torch
    from tqdm import tqdm
    from transformers import LlamaConfig, LlamaForCausalLM

    tqdm.monitor_interval = 0  # else the first progress bar starts a thread that outlives its test
    tokens = _write_tokenizer(folder, chains, template)
    config = LlamaConfig(
        vocab_size=len(tokens),
        hidden_size=WIDTH,
        intermediate_size=1,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=CONTEXT,
        bos_token_id=0,
        eos_token_id=1,
    )
    model = LlamaForCausalLM(config)
    embeddings, outputs = rows(tokens, chains, '"', 8)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            weights.fill_(float("norm" in name))
        model.model.embed_tokens.weight.copy_(torch.tensor(embeddings))
        model.lm_head.weight.copy_(torch.tensor(outputs))
    for name, value in generation.items():
        setattr(model.generation_config, name, value)
    model.save_pretrained(folder)


def _write_tokenizer(folder: Path, chains: Sequence[Sequence[str]], template: str | None) -> list[str]:
    """Write the tokenizer: a token for each byte and for each word of the chains. Return all tokens."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = ["<s>", END, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    bare = Tokenizer(models.BPE({token: index for index, token in enumerate(vocabulary)}, []))
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.decoder = decoders.ByteLevel()
    words = [word for word in dict.fromkeys(word for chain in chains for word in chain) if word not in vocabulary]
    bare.add_tokens([AddedToken(word, normalized=False) for word in words])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bare, bos_token="<s>", eos_token=END)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return [*vocabulary, *words]
