"""A tiny Llama with seeded random weights and a byte tokenizer (ChatML), as a GGUF file; needs numpy."""
import pathlib
import struct
import sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tools"))
import gguf_file  # noqa: E402

WIDTH, FFN, LAYERS = 64, 128, 6
TEMPLATE = ("{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' "
            "+ '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")


def array(items):
    """A list of str or int as GGUF metadata."""
    if isinstance(items[0], str):
        return struct.pack("<IIQ", gguf_file.ARRAY, gguf_file.STRING, len(items)) + b"".join(gguf_file.string(s) for s in items)
    return struct.pack(f"<IIQ{len(items)}i", gguf_file.ARRAY, 5, len(items), *items)


def byte_tokens():
    """One token per byte, spelled in GPT-2's alphabet, behind three control tokens."""
    printable = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or b >= 174]
    moved = iter(range(256, 512))
    return (["<|endoftext|>", "<|im_start|>", "<|im_end|>"] + [chr(b if b in printable else next(moved)) for b in range(256)]
            + ["he"])


def write_model(path):
    tokens = byte_tokens()
    llama = {"context_length": 512, "embedding_length": WIDTH, "block_count": LAYERS, "feed_forward_length": FFN,
             "attention.head_count": 4, "attention.head_count_kv": 2, "rope.dimension_count": 16,
             "rope.freq_base": 1e4, "attention.layer_norm_rms_epsilon": 1e-5, "vocab_size": len(tokens)}
    metadata = {"general.architecture": gguf_file.value("llama"), "general.name": gguf_file.value("tiny"),
                **{f"llama.{key}": gguf_file.value(item) for key, item in llama.items()},
                "tokenizer.ggml.model": gguf_file.value("gpt2"), "tokenizer.ggml.pre": gguf_file.value("smollm"),
                "tokenizer.ggml.tokens": array(tokens), "tokenizer.ggml.merges": array(["h e"]),
                "tokenizer.ggml.token_type": array([3] * 3 + [1] * (len(tokens) - 3)),
                "tokenizer.ggml.eos_token_id": gguf_file.value(2), "tokenizer.chat_template": gguf_file.value(TEMPLATE)}
    infos = [("token_embd.weight", [WIDTH, len(tokens)], "f32"), ("output_norm.weight", [WIDTH], "f32")]
    for i in range(LAYERS):
        shapes = {"attn_norm": [WIDTH], "attn_q": [WIDTH, WIDTH], "attn_k": [WIDTH, WIDTH // 2],
                  "attn_v": [WIDTH, WIDTH // 2], "attn_output": [WIDTH, WIDTH], "ffn_norm": [WIDTH],
                  "ffn_gate": [WIDTH, FFN], "ffn_up": [WIDTH, FFN], "ffn_down": [FFN, WIDTH]}
        infos += [(f"blk.{i}.{name}.weight", dims, "f32") for name, dims in shapes.items()]
    rng = np.random.default_rng(1)

    def data(info):
        name, dims, _ = info
        values = np.ones(dims[0]) if len(dims) == 1 else rng.normal(0, dims[0] ** -0.5, dims[0] * dims[1])
        return values.astype(np.float32).view(np.uint8)

    gguf_file.write(str(path), metadata, infos, data)
