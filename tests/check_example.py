#!/usr/bin/env python3
"""Runs an example on a tiny model and compares its text with that of `dspark run`.

    tests/check_example.py DSPARK COMMAND...

COMMAND takes MODEL PROMPT MAX_TOKENS, or, where it is one for many prompts (example_cc, consumer_cc), MODEL MAX_TOKENS
PROMPT....
"""
import os
import pathlib
import subprocess
import sys
import tempfile

try:
    from tiny_gguf import write_model
except ImportError:
    print("*** SKIPPED: no numpy; install python3-numpy ***")
    sys.exit(77)

PROMPTS = ["hello there", "the cat sat on the mat and the cat", "a b c a b c a b c"]
MAX_TOKENS = 40


def output(command, folder):
    """What `command` writes, with a cache of its own."""
    done = subprocess.run(command, capture_output=True, env={**os.environ, "XDG_CACHE_HOME": folder}, timeout=600)
    if done.returncode:
        sys.exit(f"{command} ended with {done.returncode}: {done.stderr.decode()}")
    return done.stdout


def check(dspark, command):
    """Exits with a message where texts differ; returns the bytes compared."""
    with tempfile.TemporaryDirectory() as folder:
        model = str(pathlib.Path(folder, "tiny.gguf"))
        write_model(model)
        wanted = [output([dspark, "run", "-m", model, "-n", str(MAX_TOKENS), "-p", p], folder) for p in PROMPTS]
        if command[0].endswith("_cc"):
            pairs = [(output([*command, model, str(MAX_TOKENS), *PROMPTS], folder), b"".join(wanted))]
        else:
            pairs = [(output([*command, model, p, str(MAX_TOKENS)], folder), text) for p, text in zip(PROMPTS, wanted)]
    for got, text in pairs:
        if got != text:
            sys.exit(f"{command}: {got!r} is not {text!r}")
    compared = sum(len(text) for text in wanted)
    if compared < len(PROMPTS) * MAX_TOKENS // 2:
        sys.exit(f"replies of {compared} bytes prove nothing")
    return compared


def main():
    dspark, *command = sys.argv[1:]
    print(f"{check(dspark, command)} bytes, the same as `dspark run`")


if __name__ == "__main__":
    main()
