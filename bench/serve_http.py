#!/usr/bin/env python3
"""What HTTP costs beside the engine: processor time of `dspark serve`'s threads at full load, per token.

    bench/serve_http.py [--dspark build/release/dspark] [--streams 64] [--tokens 128] [--rounds 5] [serve's flags ...]

Reads each thread's run time from the kernel, so that other load on the machine does not enter into the shares; it does
enter into tok/s. The client runs in a process of its own.
"""
import argparse
import asyncio
import json
import os
import pathlib
import signal
import statistics
import subprocess
import time

PROMPTS = ["Explain why the sky is blue.", "Write a short story about a fox.", "What is the capital of France?",
           "List ten uses of a brick.", "How does a bicycle stay upright?", "Summarise the plot of Hamlet."]


def thread_seconds(pid):
    """{thread: seconds it has run}"""
    seconds = {}
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        try:
            seconds[task.name] = int(task.joinpath("schedstat").read_text().split()[0]) / 1e9
        except FileNotFoundError:
            pass
    return seconds


async def stream(port, i, tokens):
    """Reads one streamed reply; returns the tokens it had."""
    body = json.dumps({"messages": [{"role": "user", "content": PROMPTS[i % len(PROMPTS)]}], "max_tokens": tokens,
                       "ignore_eos": True, "seed": i, "stream": True, "stream_options": {"include_usage": True}})
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                 f"Content-Length: {len(body)}\r\n\r\n{body}".encode())
    tail = b""
    while b"[DONE]" not in tail:
        data = await reader.read(1 << 16)
        assert data, f"the stream broke off: {tail[-300:]}"
        tail = (tail + data)[-2000:]
    writer.close()
    return int(tail.split(b'"completion_tokens":')[-1].split(b",")[0])


async def load(port, streams, tokens):
    return sum(await asyncio.gather(*(stream(port, i, tokens) for i in range(streams))))


def measure(pid, port, args):
    before, start = thread_seconds(pid), time.time()
    tokens = asyncio.run(load(port, args.streams, args.tokens))
    wall, after = time.time() - start, thread_seconds(pid)
    # The engine's own threads run all the time; no other comes near.
    used = sorted((after[t] - before.get(t, 0) for t in after), reverse=True)
    engine, http = sum(used[:args.threads]), sum(used[args.threads:])
    return {"tok_per_s": tokens / wall, "http_us_per_token": 1e6 * http / tokens, "http_share": http / (engine + http)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--dspark", default="build/release/dspark")
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    args, flags = parser.parse_known_args()
    server = subprocess.Popen([args.dspark, "serve", "--port", "0", "-t", str(args.threads), "--parallel",
                               str(args.streams), "-c", "1024", *flags],
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    port = int(server.stdout.readline().rsplit(":", 1)[1])
    try:
        rounds = [measure(server.pid, port, args) for _ in range(args.rounds + 1)][1:]  # the first warms up
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()
    print(f"{args.streams} streams of {args.tokens} tokens, median of {args.rounds}; load average {os.getloadavg()[0]:.1f}")
    for key in rounds[0]:
        values = [r[key] for r in rounds]
        print(f"{key:18} {statistics.median(values):10.4f}   {min(values):.4f} ... {max(values):.4f}")


if __name__ == "__main__":
    main()
