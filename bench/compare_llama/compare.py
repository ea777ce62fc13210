#!/usr/bin/env python3
"""dspark against llama.cpp on the same GGUF files, run by run in turn; medians, ratios, JSON and a Markdown table.

    bench/compare_llama/compare.py [--dspark build/release/dspark] [--models default q8_0 ...] [--threads 1 2]

Both sides do the same work (see llama_bench.py) and print the same JSON. Builds llama-cpp-python with prepare.sh and
writes the model files that are missing into the cache directory (2.9 GB for all). Other work on the machine spoils
the figures: a run starts only once the cores are idle, and says so after --patience seconds without that.
Writes bench/results/compare_llama.{json,md}.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache", "dspark")
# name: (file, what makes it: a tool and its arguments before the output's name)
MODELS = {
    "default": (CACHE / "SmolLM2-135M-Instruct.Q4_1.gguf", None),
    "default_q8_0": (CACHE / "bench" / "default.Q8_0.gguf", ["requantize_gguf.py", "q8_0"]),
    "default_q4_0": (CACHE / "bench" / "default.Q4_0.gguf", ["requantize_gguf.py", "q4_0"]),
    "1.7b_q8_0": (CACHE / "bench" / "random_1.7b.Q8_0.gguf", ["make_random_gguf.py", "1.7b", "q8_0"]),
    "1.7b_q4_0": (CACHE / "bench" / "random_1.7b.Q4_0.gguf", ["make_random_gguf.py", "1.7b", "q4_0"]),
}
VARIANTS_OF_DEFAULT = ["default", "default_q8_0", "default_q4_0"]


def output_of(command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"failed: {' '.join(map(str, command))}\n{done.stderr.strip()}")
    return done.stdout


def model_file(name, python):
    path, maker = MODELS[name]
    if not path.exists():
        if maker is None:
            sys.exit(f"{path} is missing: run `dspark pull`")
        path.parent.mkdir(parents=True, exist_ok=True)
        tool, *arguments = maker
        output_of([python, ROOT / "tools" / tool, *arguments, path])
    return path


def busy_share(seconds=1.0):
    """The share of all cores' time that others use now."""
    def ticks():
        fields = [int(x) for x in pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
        return fields[3] + fields[4], sum(fields[:8])

    idle, total = ticks()
    time.sleep(seconds)
    idle_after, total_after = ticks()
    return 1 - (idle_after - idle) / max(1, total_after - total)


def wait_for_quiet(patience):
    """Returns the share others use: small, or whatever it is after `patience` seconds."""
    give_up = time.monotonic() + patience
    while (busy := busy_share()) > 0.05 and time.monotonic() < give_up:
        time.sleep(1)
    if busy > 0.05:
        print(f"warning: others use {busy:.0%} of the cores", file=sys.stderr)
    return busy


def milliseconds(report):
    """{rows: ms} of a report of either side."""
    return {result["rows"]: result["ms"] for result in report["results"]}


def medians(runs):
    return {rows: statistics.median(run[rows] for run in runs) for rows in runs[0]}


def measure(name, threads, args, python):
    """One row of the comparison: both sides in turn, `runs` times."""
    path, sides, busy = model_file(name, python), {"llama": [], "dspark": []}, []
    for run in range(args.runs):
        print(f"{name}, {threads} threads, run {run + 1} of {args.runs}", file=sys.stderr)
        busy.append(wait_for_quiet(args.patience))
        llama = json.loads(output_of([python, HERE / "llama_bench.py", path, "--threads", threads, "--repeat",
                                      args.repeat]))
        busy.append(wait_for_quiet(args.patience))
        dspark = json.loads(output_of([args.dspark, "bench", "--json", "-m", path, "-t", threads, "--repeat",
                                       args.repeat]))
        sides["llama"].append(milliseconds(llama))
        sides["dspark"].append(milliseconds(dspark))
    rows = sorted(sides["llama"][0].keys() & sides["dspark"][0].keys())
    return {"model": name, "threads": threads, "bytes": path.stat().st_size, "rows": rows, "runs": sides,
            "machine": dspark["machine"], "llama_version": llama["version"], "llama_system": llama["system"],
            "busy_before": busy, "ms": {side: medians(runs) for side, runs in sides.items()}}


def table(entry):
    """ms per pass and tokens per second of both sides, and how many times faster dspark is."""
    llama, dspark = entry["ms"]["llama"], entry["ms"]["dspark"]
    lines = [f"### {entry['model']}, {entry['threads']} threads", "",
             "| rows | llama.cpp ms | tok/s | dspark ms | tok/s | dspark is faster by |", "|---|---|---|---|---|---|"]
    for rows in entry["rows"]:
        lines.append(f"| {rows} | {llama[rows]:.2f} | {rows / llama[rows] * 1e3:.0f} | {dspark[rows]:.2f} | "
                     f"{rows / dspark[rows] * 1e3:.0f} | {llama[rows] / dspark[rows]:.2f}× |")
    growth = [f"{rows} rows cost {dspark[rows] / dspark[1]:.2f} single ones (llama.cpp: {llama[rows] / llama[1]:.2f})"
              for rows in (4, 8) if rows in entry["rows"]]
    return lines + ["", "; ".join(growth) + "."] if growth else lines


def best_variant_table(entries, threads):
    """dspark on the default file against llama.cpp on whichever variant of it is the fastest there."""
    variants = [e for e in entries if e["model"] in VARIANTS_OF_DEFAULT and e["threads"] == threads]
    ours = next((e for e in variants if e["model"] == "default"), None)
    if ours is None or len(variants) < 2:
        return []
    lines = [f"### default against llama.cpp's best variant, {threads} threads", "",
             "| rows | best variant | llama.cpp ms | dspark ms | dspark is faster by |", "|---|---|---|---|---|"]
    for rows in ours["rows"]:
        best = min(variants, key=lambda e: e["ms"]["llama"][rows])
        theirs, mine = best["ms"]["llama"][rows], ours["ms"]["dspark"][rows]
        lines.append(f"| {rows} | {best['model']} | {theirs:.2f} | {mine:.2f} | {theirs / mine:.2f}× |")
    return lines


def markdown(report):
    first = report["entries"][0]
    machine = first["machine"]
    parts = [["# dspark and llama.cpp on the same files", "",
              f"{machine['cpu']}, {machine['isa']}, DRAM {machine['dram_gb_per_s']:.1f} GB/s. "
              f"llama-cpp-python {first['llama_version']} built with native flags. "
              f"At most {max(max(e['busy_before']) for e in report['entries']):.0%} of the cores were in use before a run. "
              f"Medians of {report['runs']} alternating runs. 1 row: decode; 2 to 16: verify after 64 tokens, logits "
              "of every row; 512: prefill, logits of the last row.", "",
              "Made by `bench/compare_llama/compare.py`."]]
    parts += [table(entry) for entry in report["entries"]]
    parts += [best_variant_table(report["entries"], threads) for threads in report["threads"]]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dspark", default=ROOT / "build" / "release" / "dspark")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--repeat", type=int, default=7, help="repetitions within a run, whose median is the run's")
    parser.add_argument("--patience", type=float, default=60, help="seconds to wait for idle cores before a run")
    parser.add_argument("--output", type=pathlib.Path, default=ROOT / "bench" / "results" / "compare_llama")
    args = parser.parse_args()

    python = output_of([HERE / "prepare.sh"]).split()[-1]
    report = {"runs": args.runs, "threads": args.threads, "entries": []}
    for name in args.models:
        for threads in args.threads:
            report["entries"].append(measure(name, threads, args, python))
            args.output.parent.mkdir(parents=True, exist_ok=True)
            pathlib.Path(f"{args.output}.json").write_text(json.dumps(report, indent=1) + "\n")
            pathlib.Path(f"{args.output}.md").write_text(markdown(report))
    print(pathlib.Path(f"{args.output}.md"))


if __name__ == "__main__":
    main()
