#!/usr/bin/env python3
"""Checks the include arrows of docs/architecture.md: which layer may include which, and no cycles.

    tests/include_arrows_test.py [ignored...]

First plants violations in a scratch tree and demands that each is reported, then checks src/.
"""
import pathlib
import re
import sys
import tempfile

# layer: the layers it may include directly; what those may include it may include too.
ARROWS = {
    "core": [],
    "load": ["core"],
    "kernels": ["core"],
    "kv": ["load", "kernels"],
    "model": ["kv"],
    "draft": ["model"],
    "verify": ["core", "kernels"],
    "grammar": ["load", "verify"],
    "engine": ["load", "kv", "model", "draft", "verify"],
    "serve": ["engine", "grammar"],
    "data": ["load", "model"],
    "train": ["draft", "data"],
    "eval": ["engine", "data"],
    "api": ["engine", "grammar"],
    "apps": ["serve", "train", "eval", "api"],
}
SOURCES = {".h", ".cc", ".cu", ".cuh"}
INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.MULTILINE)


def reachable(layer):
    """`layer` and all layers it may include."""
    return {layer}.union(*(reachable(below) for below in ARROWS[layer]))


def includes_of(src):
    """{file: [included names]} for every source under `src`, files as paths relative to it."""
    files = sorted(path for path in src.rglob("*") if path.suffix in SOURCES)
    return {path.relative_to(src).as_posix(): INCLUDE.findall(path.read_text()) for path in files}


def arrow_errors(includes, helpers):
    """`helpers`: the headers of tests/, which tests beside the sources include by their bare names."""
    for file, names in includes.items():
        layer = file.split("/")[0]
        if "/" not in file or layer not in ARROWS:
            yield f"{file}: not in a known layer ({', '.join(ARROWS)})"
            continue
        for name in names:
            target = name.split("/")[0]
            if name in helpers and file.endswith("_test.cc"):
                continue
            if name not in includes:
                yield f'{file}: "{name}" is no file relative to src/'
            elif target not in reachable(layer):
                yield f'{file}: {layer} may not include {target} ("{name}")'


def cycle_errors(includes):
    done = set()

    def visit(file, trail):
        if file in trail:
            yield "cycle: " + " > ".join(trail[trail.index(file):] + [file])
        elif file not in done:
            for name in includes.get(file, []):
                yield from visit(name, trail + [file])
            done.add(file)

    for file in includes:
        yield from visit(file, [])


def errors_of(root):
    includes = includes_of(root / "src")
    helpers = {path.name for path in root.glob("tests/*.h")}
    return [*arrow_errors(includes, helpers), *cycle_errors(includes)]


def self_test():
    good = {"../tests/test_data.h": "", "core/a.h": "", "kernels/b.h": '#include "core/a.h"\n', "engine/c.cc": '#include "kernels/b.h"\n',
            "core/a_test.cc": '#include "core/a.h"\n#include "test_data.h"\n'}
    planted = {
        "an upward arrow": ({"core/d.cc": '#include "kernels/b.h"\n'}, "core may not include kernels"),
        "a sideways arrow": ({"load/d.cc": '#include "kernels/b.h"\n'}, "load may not include kernels"),
        "verify knows no model": ({"model/m.h": "", "verify/d.cc": '#include "model/m.h"\n'}, "verify may not"),
        "a bare name": ({"core/d.cc": '#include "a.h"\n'}, "no file relative to src/"),
        "a relative path": ({"kernels/d.cc": '  # include "../core/a.h"\n'}, "no file relative to src/"),
        "a cycle": ({"core/d.h": '#include "core/e.h"\n', "core/e.h": '#include "core/d.h"\n'}, "cycle:"),
        "an unknown layer": ({"misc/d.h": ""}, "not in a known layer"),
        "a test helper outside tests": ({"core/d.cc": '#include "test_data.h"\n'}, "no file relative"),
    }
    for what, (files, expected) in {"nothing wrong": ({}, None), **planted}.items():
        with tempfile.TemporaryDirectory() as scratch:
            for name, text in {**good, **files}.items():
                path = pathlib.Path(scratch, "src", name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            errors = errors_of(pathlib.Path(scratch))
        seen = len(errors) == 1 and expected in errors[0] if expected else not errors
        if not seen:
            sys.exit(f"self-test: planted {what}, reported {errors or 'nothing'}")


def main():
    self_test()
    root = pathlib.Path(__file__).resolve().parent.parent
    errors = errors_of(root)
    for error in errors:
        print(error)
    print(f"include arrows: {len(includes_of(root / 'src'))} files, {len(errors)} errors")
    sys.exit(1 if errors else 0)


if __name__ == "__main__":
    main()
