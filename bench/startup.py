#!/usr/bin/env python3
"""From process start to the first token of a 20-token prompt, and resident memory at the end of a 256-token reply.

    bench/startup.py [--dspark build/release/dspark] [--model FILE] [--runs 9] [--markdown FILE]

The model file is in the page cache (one run warms it up). "First start" is with no cost table in the user's cache
directory, so that pass costs are measured once; "later starts" find it there.
"""
import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import tempfile
import time

PROMPT_IDS = "1,9690,198,2683,359,253,5356,5646,11173,3365,3511,308,34519,28,7018,411,407,19712,8182,2"  # 20 tokens


def first_token_seconds(command, environment):
    start = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    process.stdout.read(1)
    seconds = time.perf_counter() - start
    process.stdout.read()
    process.wait()
    return seconds


def peak_resident_kb(command, environment):
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    out = process.stdout.read()
    _, _, usage = os.wait4(process.pid, 0)
    return usage.ru_maxrss, json.loads(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache", "dspark")
    parser.add_argument("--dspark", default="build/release/dspark")
    parser.add_argument("--model", default=str(cache / "SmolLM2-135M-Instruct.Q4_1.gguf"))
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--markdown", type=pathlib.Path)
    options = parser.parse_args()

    base = [options.dspark, "run", "-m", options.model, "--prompt-ids", PROMPT_IDS, "--temp", "0"]
    with tempfile.TemporaryDirectory() as directory:
        environment = dict(os.environ, XDG_CACHE_HOME=directory)
        first, later = [], []
        for _ in range(options.runs):
            shutil.rmtree(pathlib.Path(directory, "dspark"), ignore_errors=True)
            first.append(first_token_seconds(base + ["-n", "1"], environment))
            later.append(first_token_seconds(base + ["-n", "1"], environment))
        resident, reply = peak_resident_kb(base + ["-n", "256", "--ignore-eos", "--json"], environment)
    file_mb = pathlib.Path(options.model).stat().st_size / 1e6
    info = json.loads(subprocess.run([options.dspark, "info", options.model, "--json"], capture_output=True, check=True).stdout)
    tokens = reply["usage"]["prompt_tokens"] + reply["usage"]["completion_tokens"]
    kv_mb = info["memory"]["kv_kb_per_token"] * tokens / 1e3
    resident_mb = resident * 1024 / 1e6
    lines = [
        "| what | figure |",
        "|---|---|",
        f"| first token, first start (costs are measured) | {statistics.median(first):.3f} s |",
        f"| first token, later starts | {statistics.median(later):.3f} s |",
        f"| peak resident memory, {tokens} tokens of context | {resident_mb:.0f} MB |",
        f"| … beyond file ({file_mb:.0f} MB) and K/V ({kv_mb:.0f} MB) | {resident_mb - file_mb - kv_mb:.0f} MB |",
    ]
    text = "\n".join(lines) + "\n"
    print(text, end="")
    if options.markdown:
        options.markdown.write_text(f"# Start and memory\n\n`bench/startup.py --runs {options.runs}`, medians.\n\n{text}")


if __name__ == "__main__":
    main()
