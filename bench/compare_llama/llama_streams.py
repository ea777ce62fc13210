#!/usr/bin/env python3
"""Many chats at once through llama.cpp's own batching: a closed load, as `dspark bench serve` makes it.

    llama_streams.py MODEL.gguf PROMPTS.jsonl --streams 16 --requests 48 --max-tokens 96 --threads 2

llama-cpp-python's server answers one request after the other, so its low-level API is driven as llama.cpp's own server
drives it: one llama_decode a step, with the newest token of every stream and, as far as the batch has room, prompts of
those that begin. Greedy, and no reply ends before --max-tokens. The window lasts from when every stream has a first token
to when a stream finds nothing left to ask. There is no HTTP in it. Prints one JSON object.
"""
import argparse
import json
import time

import llama_cpp
import numpy

from llama_bench import quiet

SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
CHAT = "<|im_start|>system\n{}<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"


class Stream:
    """One place in the batch: what it still has to run, and how far its reply is."""

    def __init__(self, index):
        self.index = index
        self.pending, self.position, self.said = [], 0, 0
        self.first = self.last = 0.0
        self.logit = -1


class Server:
    def __init__(self, path, streams, threads, context, batch):
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
        if not self.model:
            raise SystemExit(f"llama.cpp cannot load {path}")
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = streams * context, batch, batch
        params.n_seq_max = streams
        params.n_threads = params.n_threads_batch = threads
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        self.memory = llama_cpp.llama_get_memory(self.context)
        self.vocab = llama_cpp.llama_model_get_vocab(self.model)
        self.vocab_size = llama_cpp.llama_vocab_n_tokens(self.vocab)
        self.batch = llama_cpp.llama_batch_init(batch, 0, 1)
        self.batch_size = batch
        self.streams = [Stream(i) for i in range(streams)]

    def encode(self, prompt):
        text = CHAT.format(SYSTEM, prompt).encode()
        tokens = (llama_cpp.llama_token * (len(text) + 8))()
        count = llama_cpp.llama_tokenize(self.vocab, text, len(text), tokens, len(tokens), False, True)
        return list(tokens[:count])

    def begin(self, stream, tokens):
        llama_cpp.llama_memory_seq_rm(self.memory, stream.index, -1, -1)
        stream.pending, stream.position, stream.said = tokens, 0, 0

    def add(self, stream, count):
        for token in stream.pending[:count]:
            i = self.batch.n_tokens
            self.batch.token[i], self.batch.pos[i] = token, stream.position
            self.batch.n_seq_id[i], self.batch.seq_id[i][0] = 1, stream.index
            self.batch.logits[i] = 0
            self.batch.n_tokens += 1
            stream.position += 1
        del stream.pending[:count]
        if not stream.pending:
            stream.logit = self.batch.n_tokens - 1
            self.batch.logits[stream.logit] = 1

    def step(self, live):
        """Streams that got a token."""
        self.batch.n_tokens = 0
        for stream in live:
            stream.logit = -1
        for decoding in (True, False):
            for stream in live:
                if stream.pending and stream.logit < 0 and (len(stream.pending) == 1) == decoding:
                    self.add(stream, min(len(stream.pending), self.batch_size - self.batch.n_tokens))
        if llama_cpp.llama_decode(self.context, self.batch) != 0:
            raise SystemExit("llama_decode failed")
        done = [stream for stream in live if stream.logit >= 0]
        for stream in done:
            logits = llama_cpp.llama_get_logits_ith(self.context, stream.logit)
            stream.pending = [int(numpy.ctypeslib.as_array(logits, shape=(self.vocab_size,)).argmax())]
        return done


def run(server, prompts, requests, max_tokens):
    next_request, per_token, window_tokens, begin = 0, [], 0, None
    for stream in server.streams:
        server.begin(stream, list(prompts[next_request % len(prompts)]))
        next_request += 1
    waiting = len(server.streams)
    while True:
        done = server.step(server.streams)
        now = time.perf_counter()
        window_tokens += len(done) if begin is not None else 0
        for stream in done:
            stream.said += 1
            stream.last = now
            if stream.said == 1:
                stream.first = now
                waiting -= 1
                if waiting == 0:
                    begin = now
            if stream.said < max_tokens:
                continue
            per_token.append((stream.last - stream.first) / (stream.said - 1))
            if next_request == requests:
                return window_tokens / (now - begin), len(per_token) / sum(per_token)
            server.begin(stream, list(prompts[next_request % len(prompts)]))
            next_request += 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("prompts")
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--requests", type=int, default=16)
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--context", type=int, default=768, help="tokens of one stream")
    parser.add_argument("--batch", type=int, default=512)
    args = parser.parse_args()

    with quiet():
        server = Server(args.model, args.streams, args.threads, args.context, args.batch)
    with open(args.prompts) as lines:
        prompts = [server.encode(json.loads(line)["turns"][0]) for line in lines]
    tok_per_s, user = run(server, prompts, args.requests, args.max_tokens)
    print(json.dumps({"tok_per_s": tok_per_s, "user_tok_per_s": user, "streams": args.streams}))


if __name__ == "__main__":
    main()
