#!/usr/bin/env python3
"""Requantises the matrices of a GGUF file to Q8_0 or Q4_0; needs numpy.

    tools/requantize_gguf.py q4_0 OUT.gguf [--model IN.gguf] [--head q8_0]

The input is the default model unless named; its other tensors and its metadata are kept.
"""
import argparse
import os
import pathlib

import gguf_file

DEFAULT_MODEL = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache",
                             "dspark", "SmolLM2-135M-Instruct.Q4_1.gguf")
FILE_TYPES = {"q8_0": 7, "q4_0": 2}  # general.file_type


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("type", choices=FILE_TYPES)
    parser.add_argument("output")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--head", choices=FILE_TYPES, help="type of the embedding and head (default: as the rest)")
    args = parser.parse_args()

    metadata, tensors = gguf_file.read(args.model)
    metadata["general.file_type"] = gguf_file.value(FILE_TYPES[args.type])
    by_name = {tensor.name: tensor for tensor in tensors}

    def new_type(tensor):
        if len(tensor.dims) < 2:
            return tensor.type
        is_head = tensor.name in ("token_embd.weight", "output.weight")
        return args.head if is_head and args.head else args.type

    def data(info):
        name, _, kind = info
        tensor = by_name[name]
        return tensor.data if kind == tensor.type else gguf_file.quantize(gguf_file.dequantize(tensor), kind)

    gguf_file.write(args.output, metadata, [(t.name, t.dims, new_type(t)) for t in tensors], data)


if __name__ == "__main__":
    main()
