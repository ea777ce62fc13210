#!/usr/bin/env python3
"""Runs clang-tidy (.clang-tidy) over the sources of a build, tests, benchmarks and src/train left out.

    tools/tidy.py BUILD_FOLDER [-j JOBS]

A file that passed is not looked at again before it, a header or .clang-tidy changes.
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def newest(paths):
    return max((path.stat().st_mtime for path in paths), default=0)


# g++'s precompiled headers and warnings, of which clang knows nothing.
OF_GCC = re.compile(r" -Winvalid-pch -include \S+| -Wno-(restrict|stringop-overflow)")


def tidy(source, database):
    """None when `source` passes, else what clang-tidy says."""
    done = subprocess.run(["clang-tidy", "-quiet", "-p", database, source], capture_output=True, text=True)
    return done.stdout + done.stderr if done.returncode else None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("-j", "--jobs", type=int, default=os.cpu_count())
    args = parser.parse_args()

    commands = json.loads((args.build / "compile_commands.json").read_text())
    sources = sorted({pathlib.Path(c["file"]) for c in commands})
    sources = [s for s in sources if s.is_relative_to(ROOT / "src") and not re.search("_(test|bench)$", s.stem)]
    # Torch's headers take half a minute a file, and are found fault with.
    sources = [s for s in sources if not s.is_relative_to(ROOT / "src" / "train")]
    shared = newest([ROOT / ".clang-tidy", *ROOT.glob("src/**/*.h")])
    stamps = args.build / "tidy"
    stamps.mkdir(exist_ok=True)
    for command in commands:
        command["command"] = OF_GCC.sub("", command["command"])
    (stamps / "compile_commands.json").write_text(json.dumps(commands))

    def stamp(source):
        return stamps / "_".join(source.relative_to(ROOT).parts)

    def fresh(source):
        return stamp(source).exists() and stamp(source).stat().st_mtime > max(shared, source.stat().st_mtime)

    stale = [s for s in sources if not fresh(s)]
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        for source, complaint in zip(stale, pool.map(lambda s: tidy(s, stamps), stale)):
            if complaint is None:
                stamp(source).touch()
            else:
                failed += 1
                print(complaint)
    print(f"clang-tidy: {len(sources)} files, {len(stale)} looked at, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
