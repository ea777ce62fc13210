#!/usr/bin/env python3
"""dspark's server beside llama.cpp's batching, the same model file and chats, in turn; medians and a Markdown table.

    bench/compare_serve.py --suites PROMPTS_DIR [--dspark build/release/dspark] [--prefix "chrt -r 10"]

dspark is measured over HTTP (`dspark bench serve`, policies off and adaptive), llama.cpp by compare_llama/llama_streams.py,
without HTTP, because llama-cpp-python's server does not batch. Writes bench/results/compare_serve.{json,md}.
"""
import argparse
import json
import pathlib
import shlex
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "compare_llama"))
import compare  # noqa: E402

LONGEST_PROMPT = 1200  # characters


def write_prompts(suites, count, path):
    """First turns of the suites, one suite after the other, so that few prompts are a mixture too."""
    rows = [[json.loads(line)["turns"][0] for line in open(file) if line.strip()]
            for file in sorted(pathlib.Path(suites).glob("*.jsonl"))]
    mixed = [row[i] for i in range(max(map(len, rows))) for row in rows if i < len(row)]
    with open(path, "w") as out:
        for prompt in [prompt for prompt in mixed if len(prompt) <= LONGEST_PROMPT][:count]:
            out.write(json.dumps({"turns": [prompt]}) + "\n")


def timed(command, args):
    """The command's output; a pause lets others have the machine."""
    time.sleep(args.pause)
    return compare.output_of(shlex.split(args.prefix) + command)


def run_dspark(model, prompts, streams, requests, args, scratch):
    report = scratch / "report.json"
    timed([args.dspark, "bench", "serve", "-m", model, "-t", args.threads, "-c", 2048, "--suite", prompts, "--max-prompts",
           100000, "--ignore-eos", "-n", args.max_tokens, "--concurrency", streams, "--requests", requests,
           "--per-stream", 1, "--policies", "off,adaptive", "--json", report, *shlex.split(args.draft)], args)
    return {f"dspark, {point['policy']}": point for point in json.loads(report.read_text())["points"]}


def run_llama(model, prompts, streams, requests, args, python):
    return json.loads(timed([python, HERE / "compare_llama" / "llama_streams.py", model, prompts, "--streams", streams,
                             "--requests", requests, "--max-tokens", args.max_tokens, "--threads", args.threads], args))


def markdown(report):
    lines = ["# dspark's server beside llama.cpp's batching", "",
             f"{report['machine']}; {report['threads']} threads. Closed loads of chats, greedy, {report['max_tokens']} tokens "
             f"a reply, {report['requests_per_stream']} requests a stream (16 at least); medians of {report['runs']} alternating "
             "runs. dspark: over HTTP, streaming, in one process with the load generator. llama.cpp: its batched decode loop, "
             "without HTTP. tok/s of all streams (of one).", "", "Made by `bench/compare_serve.py`.", ""]
    sides = list(report["entries"][0]["sides"])
    lines += ["| streams | " + " | ".join(sides) + " | off against the same file | against the best variant |",
              "|---|" + "---|" * (len(sides) + 2)]
    for entry in report["entries"]:
        speed = {side: statistics.median(run["tok_per_s"] for run in runs) for side, runs in entry["sides"].items()}
        user = {side: statistics.median(run["user_tok_per_s"] for run in runs) for side, runs in entry["sides"].items()}
        theirs = [speed[side] for side in sides if side.startswith("llama")]
        ours = speed["dspark, off"]
        cells = [f"{speed[side]:.0f} ({user[side]:.1f})" for side in sides]
        lines.append(f"| {entry['streams']} | " + " | ".join(cells) +
                     f" | {ours / theirs[0]:.2f}× | {ours / max(theirs):.2f}× |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suites", required=True, help="a folder of prompt sets, *.jsonl")
    parser.add_argument("--dspark", default=HERE.parent / "build" / "release" / "dspark")
    parser.add_argument("--draft", default="", help="more flags for dspark, such as '-md drafter/'")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 4, 16, 32])
    parser.add_argument("--variants", nargs="*", default=["default_q4_0"], choices=compare.MODELS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--per-stream", type=int, default=3)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--pause", type=float, default=0, help="seconds before every run")
    parser.add_argument("--prefix", default="", help="what runs the measured programs")
    parser.add_argument("--output", type=pathlib.Path, default=HERE / "results" / "compare_serve")
    args = parser.parse_args()

    python = compare.output_of([HERE / "compare_llama" / "prepare.sh"]).split()[-1]
    machine = next(line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name"))
    report = {"machine": machine, "threads": args.threads, "max_tokens": args.max_tokens, "runs": args.runs,
              "requests_per_stream": args.per_stream, "entries": []}
    files = {name: compare.model_file(name, python) for name in ["default", *args.variants]}
    with tempfile.TemporaryDirectory() as folder:
        scratch = pathlib.Path(folder)
        prompts = scratch / "prompts.jsonl"
        write_prompts(args.suites, args.per_stream * max(args.streams), prompts)
        for streams in args.streams:
            requests = max(16, args.per_stream * streams)
            sides = {}
            for _ in range(args.runs):
                runs = run_dspark(files["default"], prompts, streams, requests, args, scratch)
                for name, path in files.items():
                    runs[f"llama.cpp, {path.stem.rsplit('.', 1)[-1]}"] = run_llama(path, prompts, streams, requests, args,
                                                                                   python)
                for side, result in runs.items():
                    sides.setdefault(side, []).append({k: result[k] for k in ("tok_per_s", "user_tok_per_s")})
            report["entries"].append({"streams": streams, "sides": sides})
            pathlib.Path(f"{args.output}.json").write_text(json.dumps(report, indent=1) + "\n")
            pathlib.Path(f"{args.output}.md").write_text(markdown(report))
            print(streams, {side: round(statistics.median(r["tok_per_s"] for r in runs), 1) for side, runs in sides.items()},
                  file=sys.stderr)
    print(f"{args.output}.md")


if __name__ == "__main__":
    main()
