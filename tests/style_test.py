#!/usr/bin/env python3
"""Checks what clang-format and clang-tidy do not: length of files, promises left in them, paths of one machine.

    tests/style_test.py [ignored...]

A file may be longer than 600 lines if one of its first 20 lines says why after "Long because:".
"""
import pathlib
import re
import sys
import tempfile

FOLDERS = ["include", "src", "tests", "fuzz", "bench", "tools", "cmake", "docs", "examples", ".ci"]
ROOT_FILES = ["README.md", "CMakeLists.txt", "quickstart", "check"]
TEXT = {".h", ".c", ".cc", ".cu", ".cuh", ".py", ".sh", ".md", ".cmake", ".txt", ""}
CODE = {".h", ".c", ".cc", ".cu", ".cuh", ".py"}
MAX_LINES = 600
# Written in pieces, so that this file passes its own test.
FORBIDDEN = [
    (re.compile(r"\b(" + "|".join(["TO" "DO", "FIX" "ME", "XX" "X"]) + r")\b"), "a promise left in the tree"),
    (re.compile(r"(^|[^\w.~$}/-])/(" + "|".join(["work", "root", "home", "farm", "Users"]) + r")/"),
     "a path of one machine"),
]


def text_files(root):
    for folder in FOLDERS:
        for path in sorted(root.joinpath(folder).rglob("*")):
            hidden = "__pycache__" in path.parts or "testdata" in path.parts
            if path.is_file() and path.suffix in TEXT and not hidden:
                yield path
    yield from (root / name for name in ROOT_FILES if (root / name).is_file())


def errors_of(root):
    for path in text_files(root):
        name = path.relative_to(root).as_posix()
        lines = path.read_text().splitlines()
        excused = any("Long because:" in line for line in lines[:20])
        if path.suffix in CODE and len(lines) > MAX_LINES and not excused:
            yield f"{name}: {len(lines)} lines; split it along a seam (at most {MAX_LINES})"
        for number, line in enumerate(lines, 1):
            for pattern, what in FORBIDDEN:
                if pattern.search(line):
                    yield f"{name}:{number}: {what}: {line.strip()[:80]}"


def self_test():
    long = "int x;\n" * (MAX_LINES + 1)
    cases = {
        "nothing wrong": ("src/a.cc", "int x;  // reads /proc/meminfo, ~/.cache and $HOME/work/x\n", 0),
        "a long file": ("src/a.cc", long, 1),
        "an excused long file": ("src/a.cc", "// Long because: one table.\n" + long, 0),
        "a promise": ("tools/a.py", "x = 1  # TO" "DO: later\n", 1),
        "a machine's path": ("bench/a.sh", "cat /ro" "ot/model\n", 1),
    }
    for what, (name, text, expected) in cases.items():
        with tempfile.TemporaryDirectory() as scratch:
            path = pathlib.Path(scratch, name)
            path.parent.mkdir(parents=True)
            path.write_text(text)
            errors = list(errors_of(pathlib.Path(scratch)))
        if len(errors) != expected:
            sys.exit(f"self-test: planted {what}, reported {errors or 'nothing'}")


def main():
    self_test()
    root = pathlib.Path(__file__).resolve().parent.parent
    errors = list(errors_of(root))
    for error in errors:
        print(error)
    print(f"style: {len(list(text_files(root)))} files, {len(errors)} errors")
    sys.exit(1 if errors else 0)


if __name__ == "__main__":
    main()
