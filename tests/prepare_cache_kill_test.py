#!/usr/bin/env python3
"""Kills `dspark prepare cache` at random moments: what later calls make of it must equal an uninterrupted run.

    tests/prepare_cache_kill_test.py DSPARK [--kills N] [--seed 1]
"""
import argparse
import json
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

try:
    import numpy  # noqa: F401
except ImportError:
    print("*** SKIPPED: no numpy; install python3-numpy ***")
    sys.exit(77)

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from tiny_gguf import write_model  # noqa: E402


def write_rows(path, rows):
    words = "the red fox runs over nine small hills and sings of rain to the old moon".split()
    rng = random.Random(2)
    with open(path, "w", encoding="utf-8") as out:
        for i in range(rows):
            turn = {"user": rng.randint(3, 20), "assistant": rng.choice([0, 12, 40])}
            messages = [{"role": role, "content": " ".join(rng.choices(words, k=n)) or "no"} for role, n in turn.items()]
            out.write("no row\n" if i == 7 else json.dumps({"id": i, "messages": messages}) + "\n")


def files_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


class Runs:
    """Calls of dspark on the same rows: 800, or 100 where those alone take seconds, as under sanitizers."""

    def __init__(self, dspark, folder):
        self.dspark, self.folder = dspark, folder
        write_model(folder / "tiny.gguf")
        self.rows = 100
        write_rows(folder / "rows.jsonl", self.rows)
        started = time.monotonic()
        self.finish(folder / "pace", [])
        self.slow = time.monotonic() - started > 2
        if not self.slow:
            self.rows = 800
            write_rows(folder / "rows.jsonl", self.rows)

    def start(self, out, flags):
        return subprocess.Popen([self.dspark, "prepare", "cache", "-m", self.folder / "tiny.gguf",
                                 self.folder / "rows.jsonl", "--out", out, "--max-length", "200", "-t", "1", *flags],
                                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def finish(self, out, flags):
        """A run to its end; the files it made, but for the manifest's name of the run."""
        process = self.start(out, flags)
        _, errors = process.communicate()
        if process.returncode != 0:
            sys.exit(f"dspark failed with {process.returncode}: {errors}")
        files = files_of(out)
        files["manifest.json"] = files["manifest.json"].replace(f'"{out.name}"'.encode(), b'""')
        return files


def kill_some(runs, flags, kills, rng):
    """Kills runs until `kills` are done; every cache that comes to its end is compared. How many those were."""
    name = "compact" if "--compact" in flags else "deepspec"
    started = time.monotonic()
    expected = runs.finish(runs.folder / f"{name}_whole", flags)
    seconds = time.monotonic() - started
    caches, done = 0, 0
    while done < kills:
        out = runs.folder / f"{name}_{caches}"
        for _ in range(rng.randint(1, 5)):
            process = runs.start(out, flags)
            try:
                process.communicate(timeout=rng.uniform(0, seconds))
            except subprocess.TimeoutExpired:
                pass
            process.send_signal(signal.SIGKILL)
            process.communicate()
            done += process.returncode == -signal.SIGKILL
        if runs.finish(out, flags) != expected:
            sys.exit(f"{name}: a cache that was killed {done} times differs from the uninterrupted one")
        caches += 1
    print(f"{name}: {runs.rows} rows, {done} kills, {caches} caches, all equal to the uninterrupted one ({seconds:.2f} s)")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dspark")
    parser.add_argument("--kills", type=int, help="of each form [4; 2 where dspark is slow]")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as scratch:
        runs = Runs(args.dspark, pathlib.Path(scratch))
        kills = args.kills or (2 if runs.slow else 4)
        kill_some(runs, ["--max-shard-bytes", str(5000 * runs.rows)], kills, rng)
        kill_some(runs, ["--compact", "--max-shard-bytes", str(2500 * runs.rows)], kills, rng)


if __name__ == "__main__":
    main()
