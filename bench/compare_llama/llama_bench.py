#!/usr/bin/env python3
"""`dspark bench --json` for llama.cpp: the same work through llama-cpp-python's low-level API, the same JSON.

    llama_bench.py MODEL.gguf --threads 2

decode/verify: M rows at consecutive positions after --depth tokens of context, logits of every row; the KV cache is
rolled back between repetitions. prefill: --prefill rows in one batch on an empty cache, logits of the last row.
All kinds of pass take turns, --repeat times after a turn that does not count; a figure is the median.
"""
import argparse
import contextlib
import ctypes
import importlib.metadata
import json
import os
import statistics
import time

import llama_cpp


class Model:
    """One model, one context, one sequence."""

    def __init__(self, path, threads, context, batch):
        params = llama_cpp.llama_model_default_params()
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), params)
        if not self.model:
            raise SystemExit(f"llama.cpp cannot load {path}")
        context_params = llama_cpp.llama_context_default_params()
        context_params.n_ctx = context
        context_params.n_batch = context_params.n_ubatch = batch
        context_params.n_threads = context_params.n_threads_batch = threads
        self.context = llama_cpp.llama_init_from_model(self.model, context_params)
        self.memory = llama_cpp.llama_get_memory(self.context)
        self.vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.batch = llama_cpp.llama_batch_init(batch, 0, 1)

    def forward(self, rows, position, all_logits):
        """Seconds that `rows` tokens at `position`, ... take. The tokens are arbitrary, the same at every call."""
        self.batch.n_tokens = rows
        for i in range(rows):
            self.batch.token[i] = (1000 + 7919 * (position + i)) % self.vocab
            self.batch.pos[i] = position + i
            self.batch.n_seq_id[i] = 1
            self.batch.seq_id[i][0] = 0
            self.batch.logits[i] = all_logits or i == rows - 1
        start = time.perf_counter()
        status = llama_cpp.llama_decode(self.context, self.batch)
        llama_cpp.llama_synchronize(self.context)
        seconds = time.perf_counter() - start
        if status != 0:
            raise SystemExit(f"llama_decode of {rows} rows at {position} failed: {status}")
        return seconds

    def truncate(self, position):
        if not llama_cpp.llama_memory_seq_rm(self.memory, 0, position, -1):
            raise SystemExit(f"cannot roll the cache back to {position}")


@contextlib.contextmanager
def quiet():
    """llama.cpp talks on stderr while it loads."""
    saved = os.dup(2)
    with open(os.devnull, "w") as null:
        os.dup2(null.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rows", type=int, nargs="*", default=[1, 2, 4, 8, 16])
    parser.add_argument("--prefill", type=int, default=512)
    parser.add_argument("--depth", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=7)
    args = parser.parse_args()

    with quiet():
        model = Model(args.model, args.threads, args.depth + args.prefill + 64, max(args.prefill, args.depth))
    times = {rows: [] for rows in [*args.rows, args.prefill]}
    model.forward(args.depth, 0, False)
    for _ in range(args.repeat + 1):
        for rows in args.rows:
            times[rows].append(model.forward(rows, args.depth, True))
            model.truncate(args.depth)
        model.truncate(0)
        times[args.prefill].append(model.forward(args.prefill, 0, False))
        model.truncate(args.depth)

    results = []
    for rows, seconds in times.items():
        what = "prefill" if rows == args.prefill else "decode" if rows == 1 else "verify"
        median = statistics.median(seconds[1:])
        results.append({"what": what, "rows": rows, "ms": median * 1e3, "tok_per_s": rows / median})
    info = ctypes.cast(llama_cpp.llama_print_system_info(), ctypes.c_char_p).value.decode()
    print(json.dumps({"version": importlib.metadata.version("llama-cpp-python"), "system": info,
                      "threads": args.threads, "results": results}))


if __name__ == "__main__":
    main()
