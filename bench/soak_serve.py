#!/usr/bin/env python3
"""Many clients of every temper against `dspark serve`, for a while, with a KV pool far too small for them.

    bench/soak_serve.py build/release/dspark [--model FILE] [--draft SPEC] [--clients 256] [--minutes 30]

Clients ask for a few dozen known requests (greedy and seeded sampling), and read to the end, read slowly, hang up
at any moment, or send what is no request. Every reply that is read to its end must be the one that the same request
gets alone, without speculation. Reports replies by kind, what went wrong, resident memory and the acceptance rate
over time. Exit 1: a reply was lost, doubled or altered, a bad request was not refused, the server failed, or memory
grew by more than a tenth after the first fifth of the time.
"""
import argparse
import asyncio
import json
import random
import re
import subprocess
import sys
import time

WORDS = "river stone cloud green seven music paper winter garden engine letter silver".split()
SYSTEM = "You are a careful assistant who answers in plain words and keeps to the question that was asked. "
BAD_BODIES = [b"", b"{", b"[]", b'{"messages": 3}', b'{"messages": []}', b'{"messages": [{"role": "user"}]}',
              b'{"messages": [{"role": "user", "content": "x"}], "temperature": "hot"}', b"\xff\xfe{}"]


def known_requests(count):
    """Requests whose replies are known beforehand. Some share a beginning longer than a KV block."""
    made = random.Random(3)
    for i in range(count):
        words = " ".join(made.choices(WORDS, k=made.randint(3, 60)))
        messages = [{"role": "user", "content": f"Write about: {words}."}]
        if i % 2:
            messages.insert(0, {"role": "system", "content": SYSTEM * 2})
        body = {"messages": messages, "max_tokens": made.randint(8, 120), "temperature": 0}
        if i % 3 == 0:
            body.update(temperature=0.9, top_p=0.95, seed=i)
        yield body


class Client:
    def __init__(self, port):
        self.port = port

    async def post(self, body, on_data=None):
        """(status, body). `on_data(text so far)` may wait, or raise to hang up."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20)
        try:
            writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                         b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            await writer.drain()
            data = b""
            while part := await reader.read(4096):
                data += part
                if on_data:
                    await on_data(data)
            head, _, rest = data.partition(b"\r\n\r\n")
            status = int(head.split()[1])
            if b"chunked" in head.lower():
                rest = unchunk(rest)
            return status, rest
        finally:
            writer.close()


def unchunk(data):
    out = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        size = int(size, 16)
        if size == 0:
            return out
        out, data = out + data[:size], data[size + 2:]
    raise ValueError("the last chunk is missing")


def text_of(status, body, stream):
    if status != 200:
        raise ValueError(f"status {status}: {body[:200]!r}")
    if not stream:
        return json.loads(body)["choices"][0]["message"]["content"]
    events = [line[6:] for line in body.decode().split("\n\n") if line.startswith("data: ")]
    if events[-1] != "[DONE]":
        raise ValueError("[DONE] is missing")
    return "".join(choice["delta"].get("content") or "" for e in events[:-1] for choice in json.loads(e)["choices"])


class HangUp(Exception):
    pass


class Soak:
    def __init__(self, port, requests, expected, seed):
        self.client, self.requests, self.expected = Client(port), requests, expected
        self.random = random.Random(seed)
        self.counts, self.wrong = {}, []

    def count(self, kind):
        self.counts[kind] = self.counts.get(kind, 0) + 1

    async def run_client(self, until):
        while time.time() < until:
            kind = self.random.choices(["whole", "stream", "slow", "hang up", "bad"], [3, 4, 1, 3, 1])[0]
            try:
                await getattr(self, kind.replace(" ", "_"))()
                self.count(kind)
            except HangUp:
                self.count("hang up")
            except (OSError, ValueError, KeyError, IndexError) as error:
                if "status 429" in str(error):
                    self.count("refused, queue full")
                    await asyncio.sleep(1)
                else:
                    self.wrong.append(f"{kind}: {type(error).__name__} {error}")

    async def ask(self, stream, on_data=None):
        i = self.random.randrange(len(self.requests))
        body = json.dumps({**self.requests[i], "stream": stream}).encode()
        text = text_of(*await self.client.post(body, on_data), stream)
        if text != self.expected[i]:
            raise ValueError(f"request {i} gave {text!r}, alone {self.expected[i]!r}")

    async def whole(self):
        await self.ask(stream=False)

    async def stream(self):
        await self.ask(stream=True)

    async def slow(self):
        async def wait(_):
            await asyncio.sleep(self.random.random())
        await self.ask(stream=True, on_data=wait)

    async def hang_up(self):
        limit = self.random.randint(0, 6000)

        async def leave(data):
            if len(data) >= limit:
                raise HangUp
        await self.ask(stream=True, on_data=leave)

    async def bad(self):
        status, body = await self.client.post(self.random.choice(BAD_BODIES))
        if status != 400 or "message" not in json.loads(body)["error"]:
            raise ValueError(f"a bad body got {status}: {body[:100]!r}")


def resident_mb(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return int(re.search(r"VmRSS:\s+(\d+)", status.read())[1]) / 1024


async def metric(port, name):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    text = (await reader.read(-1)).decode()
    writer.close()
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name + "{"))


async def watch(port, pid, until, period, rows):
    before = (0, 0)
    while time.time() < until:
        await asyncio.sleep(period)
        now = (await metric(port, "vllm:spec_decode_num_accepted_tokens_total"),
               await metric(port, "vllm:spec_decode_num_draft_tokens_total"))
        drafted = now[1] - before[1]
        rows.append((resident_mb(pid), (now[0] - before[0]) / drafted if drafted else 0,
                     await metric(port, "vllm:generation_tokens_total")))
        before = now
        print(f"rss {rows[-1][0]:.0f} MB, acceptance {rows[-1][1]:.3f}, {rows[-1][2]:.0f} tokens", flush=True)


async def soak(args, server, port):
    requests = list(known_requests(args.requests))
    expected = []
    for body in requests:
        status, reply = await Client(port).post(json.dumps({**body, "speculate": False}).encode())
        expected.append(text_of(status, reply, stream=False))
    test = Soak(port, requests, expected, args.seed)
    until, rows = time.time() + 60 * args.minutes, []
    await asyncio.gather(watch(port, server.pid, until, 60 * args.minutes / 15, rows),
                         *(test.run_client(until) for _ in range(args.clients)))
    return test, rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dspark")
    parser.add_argument("--model")
    parser.add_argument("--draft", default="auto")
    parser.add_argument("--clients", type=int, default=256)
    parser.add_argument("--requests", type=int, default=40)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--parallel", type=int, default=32)
    parser.add_argument("--kv-tokens", type=int, default=2048)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    command = [args.dspark, "serve", "--port", "0", "-md", args.draft, "--parallel", str(args.parallel), "-c", "1024",
               "--kv-tokens", str(args.kv_tokens), "--queue", "200", *(["-m", args.model] if args.model else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        port = int(server.stdout.readline().rsplit(":", 1)[1])
        test, rows = asyncio.run(soak(args, server, port))
        if server.poll() is not None:
            test.wrong.append(f"the server ended with {server.returncode}")
        preempted = asyncio.run(metric(port, "vllm:num_preemptions_total"))
        server.terminate()
        if server.wait(60) != 0:
            test.wrong.append(f"SIGTERM ended the server with {server.returncode}")
    early, late = max(r[0] for r in rows[: len(rows) // 5 + 1]), rows[-1][0]
    if late > 1.1 * early:
        test.wrong.append(f"resident memory grew from {early:.0f} to {late:.0f} MB")
    print(json.dumps({"replies": test.counts, "wrong": len(test.wrong), "preempted": preempted,
                      "rss_mb": [round(r[0]) for r in rows], "acceptance": [round(r[1], 3) for r in rows]}))
    for line in test.wrong[:20]:
        print(line)
    return 1 if test.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
