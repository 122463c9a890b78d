"""A language model of a few kilobytes, generated here: it answers any prompt by counting to ten.

Its only layer adds nothing, so each token alone determines the next one. The token that ends a
prompt is followed by "one", "one" by "two", and "ten" by the end of the reply or, if a request
forbids that (`ignore_eos`), by "one" again.
"""

# Type checkers run with and without the packages of `nox -s real_server`.
# mypy: disable-error-code="import-not-found, import-untyped"
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from __future__ import annotations

from pathlib import Path

import numpy as np
from gguf import GGUFWriter, TokenType

WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
CONTEXT = 1 << 16
"""Maximum number of tokens of a prompt and its reply."""

TEMPLATE = "{% for message in messages %}{{ message.content }}\n{% endfor %}"
"""The chat template. Each message ends with the line feed token."""

_UNKNOWN, _BEGIN, _END = range(3)
_SPECIAL = ["<unk>", "<s>", "</s>"]
_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
_TOKENS = [*_SPECIAL, *_BYTES, *(f"\u2581{word}" for word in WORDS)]
_FIRST = len(_SPECIAL) + len(_BYTES)
_LINE_FEED = len(_SPECIAL) + ord("\n")
_SIZE = 288  # of a state: one number per token, rounded to a multiple of 32
_HEADS = 2


def write_counting_model(path: Path) -> None:
    """Write the model as a GGUF file."""
    writer = GGUFWriter(path, "llama")
    writer.add_name("counting")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(_SIZE)
    writer.add_block_count(1)
    writer.add_feed_forward_length(32)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(_TOKENS))
    _write_vocabulary(writer)
    _write_weights(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_vocabulary(writer: GGUFWriter) -> None:
    kinds = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL]
    kinds += [TokenType.BYTE] * len(_BYTES) + [TokenType.NORMAL] * len(WORDS)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(_TOKENS)
    writer.add_token_scores([0.0] * len(_TOKENS))
    writer.add_token_types(kinds)
    writer.add_unk_token_id(_UNKNOWN)
    writer.add_bos_token_id(_BEGIN)
    writer.add_eos_token_id(_END)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(TEMPLATE)


def _write_weights(writer: GGUFWriter) -> None:
    ones = np.ones(_SIZE, dtype=np.float32)
    size_of_head = _SIZE // _HEADS
    embedding = np.zeros((len(_TOKENS), _SIZE), dtype=np.float32)
    following = np.zeros((len(_TOKENS), _SIZE), dtype=np.float32)
    for token in range(len(_TOKENS)):
        embedding[token, token] = 1
    following[_FIRST, _LINE_FEED] = 2
    for token in range(_FIRST, _FIRST + len(WORDS) - 1):
        following[token + 1, token] = 2
    last = _FIRST + len(WORDS) - 1
    following[_END, last] = 2
    following[_FIRST, last] = 1
    nothing = {
        "attn_q": (_SIZE, _SIZE),
        "attn_k": (size_of_head, _SIZE),
        "attn_v": (size_of_head, _SIZE),
        "attn_output": (_SIZE, _SIZE),
        "ffn_gate": (32, _SIZE),
        "ffn_up": (32, _SIZE),
        "ffn_down": (_SIZE, 32),
    }
    writer.add_tensor("token_embd.weight", embedding)
    writer.add_tensor("output.weight", following)
    writer.add_tensor("output_norm.weight", ones)
    writer.add_tensor("blk.0.attn_norm.weight", ones)
    writer.add_tensor("blk.0.ffn_norm.weight", ones)
    for name, shape in nothing.items():
        writer.add_tensor(f"blk.0.{name}.weight", np.zeros(shape, dtype=np.float32))
