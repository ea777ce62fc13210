#!/usr/bin/env python3
"""Writes a Llama-shaped GGUF with random weights, for measuring speed at sizes that need no download; needs numpy.

    tools/make_random_gguf.py 1.7b q8_0 OUT.gguf [--tokenizer-from MODEL.gguf] [--seed 1]

The tokenizer is copied from the default model. Text that comes out is noise; shapes, bytes and the range of the
activations are those of a real model.
"""
import argparse
import dataclasses

import gguf_file
import numpy as np
from gguf_file import value
from requantize_gguf import DEFAULT_MODEL, FILE_TYPES


@dataclasses.dataclass
class Shape:
    d: int
    ffn: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    theta: float


VOCAB = 49152  # the tokenizer's
SHAPES = {  # of the SmolLM2 family
    "135m": Shape(576, 1536, 30, 9, 3, 64, 100000.0),
    "360m": Shape(960, 2560, 32, 15, 5, 64, 100000.0),
    "1.7b": Shape(2048, 8192, 24, 32, 32, 64, 130000.0),
}


def tensor_infos(s, kind):
    infos = [("token_embd.weight", [s.d, VOCAB], kind)]
    for i in range(s.layers):
        q_rows, kv_rows = s.heads * s.head_dim, s.kv_heads * s.head_dim
        layer = [("attn_norm", [s.d], "f32"), ("attn_q", [s.d, q_rows], kind), ("attn_k", [s.d, kv_rows], kind),
                 ("attn_v", [s.d, kv_rows], kind), ("attn_output", [q_rows, s.d], kind), ("ffn_norm", [s.d], "f32"),
                 ("ffn_gate", [s.d, s.ffn], kind), ("ffn_up", [s.d, s.ffn], kind), ("ffn_down", [s.ffn, s.d], kind)]
        infos += [(f"blk.{i}.{name}.weight", dims, type_name) for name, dims, type_name in layer]
    return infos + [("output_norm.weight", [s.d], "f32")]


def metadata_of(name, s, kind, tokenizer):
    llama = {"context_length": 8192, "embedding_length": s.d, "block_count": s.layers, "feed_forward_length": s.ffn,
             "attention.head_count": s.heads, "attention.head_count_kv": s.kv_heads, "rope.freq_base": s.theta,
             "rope.dimension_count": s.head_dim, "attention.layer_norm_rms_epsilon": 1e-5, "vocab_size": VOCAB}
    general = {"architecture": "llama", "name": f"random {name}", "file_type": FILE_TYPES[kind],
               "quantization_version": 2}
    return {**{f"general.{key}": value(item) for key, item in general.items()},
            **{f"llama.{key}": value(item) for key, item in llama.items()}, **tokenizer}


def random_blocks(rng, dims, kind):
    """Uniform levels under one scale that gives the weights variance 1 / inputs, so activations keep their size."""
    if kind == "f32":
        return np.ones(dims[0], np.float32).view(np.uint8)
    _, block_values, block_bytes = gguf_file.TYPES[kind]
    blocks = rng.integers(0, 256, (dims[0] * dims[1] // block_values, block_bytes), np.uint8)
    levels = 16
    if kind == "q8_0":
        levels = 255
        np.maximum(blocks[:, 2:].view(np.int8), -127, out=blocks[:, 2:].view(np.int8))  # no quantiser writes -128
    deviation_of_levels = levels / np.sqrt(12)
    blocks[:, :2] = np.array([dims[0] ** -0.5 / deviation_of_levels], np.float16).view(np.uint8)
    return blocks.ravel()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("type", choices=FILE_TYPES)
    parser.add_argument("output")
    parser.add_argument("--tokenizer-from", default=DEFAULT_MODEL)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()

    original, _ = gguf_file.read(args.tokenizer_from)
    tokenizer = {key: raw for key, raw in original.items() if key.startswith("tokenizer.")}
    shape, rng = SHAPES[args.shape], np.random.default_rng(args.seed)
    gguf_file.write(args.output, metadata_of(args.shape, shape, args.type, tokenizer),
                    tensor_infos(shape, args.type), lambda info: random_blocks(rng, info[1], info[2]))


if __name__ == "__main__":
    main()
