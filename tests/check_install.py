#!/usr/bin/env python3
"""Installs libdspark and builds on it as a stranger would: examples/consumer with find_package, and generate.c with
pkg-config. Looks at what the shared library shows, and at dspark.h through the eyes of a strict C compiler.

    tests/check_install.py DSPARK BUILD_FOLDER
"""
import pathlib
import re
import subprocess
import sys
import tempfile

from check_example import check

ROOT = pathlib.Path(__file__).resolve().parent.parent


def run(*command, **more):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=1200, **more)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def check_symbols(library):
    declared = set(re.findall(r"\b(dspark_\w+)\(", re.sub(r"/\*.*?\*/", "", (ROOT / "include/dspark/dspark.h").read_text(),
                                                          flags=re.DOTALL)))
    shown = {line.split()[-1] for line in run("nm", "-D", "--defined-only", library).splitlines()}
    if shown != declared:
        sys.exit(f"{library}: shows {sorted(shown - declared)} beside dspark.h, lacks {sorted(declared - shown)}")
    if not re.search(r"SONAME.*\[libdspark\.so\.\d+\]", run("readelf", "-d", library)):
        sys.exit(f"{library}: has no SONAME with a version")


def check_header(include):
    for language, standard in (("c", "c99"), ("c", "c11"), ("c++", "c++11")):
        run("cc", f"-std={standard}", "-pedantic", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-x", language,
            include / "dspark/dspark.h")
    for header in ("result.h", "engine.h"):
        run("c++", "-std=c++17", "-pedantic", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-I", include, "-include",
            include / "dspark" / header, "-x", "c++", "/dev/null")


def main():
    dspark, build = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        prefix, consumer = pathlib.Path(folder, "prefix"), pathlib.Path(folder, "consumer")
        run("cmake", "--install", build, "--component", "library", "--prefix", prefix)
        [config] = prefix.rglob("dsparkConfig.cmake")
        libraries = config.parent.parent.parent
        check_symbols(libraries / "libdspark.so")
        check_header(prefix / "include")

        run("cmake", "-S", ROOT / "examples/consumer", "-B", consumer, f"-DCMAKE_PREFIX_PATH={prefix}")
        run("cmake", "--build", consumer)
        for name in ("consumer_c", "consumer_cc", "consumer_static"):
            print(name, check(dspark, [str(consumer / name)]))

        pc = {"PATH": "/usr/bin:/bin", "PKG_CONFIG_PATH": str(libraries / "pkgconfig")}
        flags = run("pkg-config", "--cflags", "--libs", "dspark", env=pc).split()
        program = pathlib.Path(folder, "by_pkg_config")
        run("cc", ROOT / "examples/generate.c", "-o", program, *flags, f"-Wl,-rpath,{libraries}")
        print("pkg-config", check(dspark, [str(program)]))


if __name__ == "__main__":
    main()
