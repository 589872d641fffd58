#!/usr/bin/env python3
"""Holds every #include and print statement against the layers of loopserve. Runs in ctest and in `make lint`.

usage: check_layers.py [--root DIR] [--self-test]
Prints one line for each violation; exit code 1 if there is any.
"""
import argparse
import pathlib
import re
import sys
import tempfile

# Folder -> the folders it may include from, besides itself. Public headers are "include".
LAYERS = {
    "include": set(),
    "src/base": {"include"},
    "src/kernels": {"include", "src/base"},
    "src/kvcache": {"include", "src/base", "src/kernels"},
    "src/selection": {"include", "src/base", "src/kernels", "src/kvcache"},
    "src/gguf": {"include", "src/base"},
    "src/tokenizer": {"include", "src/base", "src/gguf"},
}
LAYERS["src/model"] = set(LAYERS) | {"include"}
LAYERS["src/session"] = LAYERS["src/model"] | {"src/model"}
LAYERS["src/engine"] = LAYERS["src/session"] | {"src/session"}
LAYERS["src/fetch"] = {"include", "src/base"}
# The peers and yardsticks look below the public API: they measure the model file and the kernels themselves.
LAYERS["bench"] = LAYERS["src/engine"] | {"src/engine"}
# The benchmark's datasets, dialogues and scores: it sees the engine as any program does.
LAYERS["eval"] = {"include", "src/base"}
# The server too.
LAYERS["src/server"] = {"include", "src/base"}
LAYERS["src/cli"] = {"include", "src/base", "src/fetch", "src/server", "bench", "eval"}
LAYERS["examples"] = {"include"}

# The public API stands on top of the engine. Of the layers below, the tokenizer may know it for its value types (Token,
# ChatMessage), and the model for its options and the inspector.
PUBLIC_VALUES = {"loopserve/status.h", "loopserve/policy.h", "loopserve/sampling.h"}
KNOWS_THE_ENGINE = {"include", "src/tokenizer", "src/model", "src/session", "src/engine", "src/server", "src/cli", "bench", "eval", "examples"}

# Header pattern -> the folders that may include it.
LIBRARIES = [
    (r"ggml.*\.h|gguf\.h", {"src/gguf", "src/tokenizer", "src/model", "src/engine", "bench"}),
    (r"llama(-cpp)?\.h", {"src/tokenizer", "bench"}),
    (r"jinja/.*", {"src/tokenizer"}),
    (r"nlohmann/.*", {"src/server", "src/cli", "src/tokenizer", "bench", "eval"}),
    (r"httplib\.h", {"src/fetch", "src/server"}),
    (r"zip\.h", {"src/fetch"}),
    (r"prometheus/.*", {"src/server"}),
    (r"spdlog/.*|CLI/.*|png\.h", {"src/cli"}),
    (r"openssl/.*|xxhash\.h", {"src/base"}),
    (r"sqlite3\.h", {"eval"}),
    (r"hwy/.*", {"src/kernels", "src/model", "src/selection", "src/engine"}),
    (r"(oneapi/)?dnnl.*", {"src/model", "src/kernels", "bench"}),
    (r"gtest/.*|gmock/.*|benchmark/.*", set()),  # tests and benchmarks only
]

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
PRINT = re.compile(r"\b(?:std::)?(?:printf|fprintf|vprintf|vfprintf|puts|fputs|putchar|perror)\s*\(|\bstd::(?:cout|cerr|clog)\b")
PRINTS = {"src/cli", "bench", "examples"}
PRINT_EXCEPTIONS = {"src/base/check.h"}  # reports a bug and aborts
SUFFIXES = {".h", ".cc"}


def folder_of(path):
    """The layer that a path relative to the root belongs to, or None."""
    parts = pathlib.PurePosixPath(path).parts
    if parts[0] == "src" and len(parts) > 2:
        return "/".join(parts[:2])
    return parts[0] if parts[0] in ("include", "bench", "eval", "examples") else None


def is_test(path):
    name = pathlib.PurePosixPath(path).name
    return bool(re.search(r"(_test|_bench|_fuzz)\.cc$", name)) or name.startswith(("test_", "fake_"))


def check_include(path, folder, header):
    """What is wrong with this include, or None."""
    if header.startswith("loopserve/"):
        if "include" not in LAYERS[folder] and folder != "include":
            return f"{folder} must not include public headers"
        if header not in PUBLIC_VALUES and folder not in KNOWS_THE_ENGINE:
            return f"{folder} lies below the engine and must not include {header}"
        return None
    if header.startswith(("tests/", "fuzz/")):
        return f"{header} is for tests only"
    target = folder_of(header)
    if target is not None:
        if target not in LAYERS:
            return f"{target} is not a known layer: add it to LAYERS"
        if target != folder and target not in LAYERS[folder]:
            return f"{folder} must not include from {target}"
        return None
    for pattern, allowed in LIBRARIES:
        if re.fullmatch(pattern, header) and folder not in allowed:
            return f"{header} belongs into {', '.join(sorted(allowed)) or 'tests'} only"
    return None


def code_of(line):
    """The line without its // comment and its string literals."""
    line = re.sub(r'"(?:\\.|[^"\\])*"', '""', line)
    return line.split("//")[0]


def check_file(root, path):
    folder = folder_of(path)
    if folder not in LAYERS:
        yield f"{path}:1: {folder} is not a known layer: add it to LAYERS in tools/check_layers.py"
        return
    for number, line in enumerate((root / path).read_text(encoding="utf-8").splitlines(), 1):
        include = INCLUDE.match(line)
        problem = None
        if include and not is_test(path):
            problem = check_include(path, folder, include.group(2))
        elif folder not in PRINTS and not is_test(path) and path not in PRINT_EXCEPTIONS and PRINT.search(code_of(line)):
            problem = f"{folder} must not print: return a Status, or use src/base/log.h"
        if problem:
            yield f"{path}:{number}: {problem}"


def check(root):
    files = []
    for top in ("include", "src", "bench", "eval", "examples"):
        for path in sorted((root / top).rglob("*")):
            relative = path.relative_to(root).as_posix()
            if path.suffix in SUFFIXES and path.is_file() and folder_of(relative):
                files.append(relative)
    violations = [problem for path in files for problem in check_file(root, path)]
    return files, violations


def self_test():
    """Files that break each rule must be found, and a clean one must not."""
    cases = {
        "src/base/up.cc": ('#include "src/kernels/attention.h"', True),
        "src/kernels/api.cc": ('#include "loopserve/engine.h"', True),
        "src/kernels/ggml.cc": ("#include <ggml.h>", True),
        "src/fetch/json.cc": ("#include <nlohmann/json.hpp>", True),
        "src/engine/http.cc": ("#include <httplib.h>", True),
        "src/model/print.cc": ('void F() { std::printf("x"); }', True),
        "src/session/cout.cc": ("void F() { std::cout << 1; }", True),
        "src/cli/internals.cc": ('#include "src/session/prefix.h"', True),
        "eval/internals.cc": ('#include "src/tokenizer/tokenizer.h"', True),
        "src/server/internals.cc": ('#include "src/engine/session_impl.h"', True),
        "src/engine/metrics.cc": ("#include <prometheus/gauge.h>", True),
        "src/cli/sql.cc": ("#include <sqlite3.h>", True),
        "eval/print.cc": ("void F() { std::cout << 1; }", True),
        "src/newcomer/file.cc": ("", True),
        "include/loopserve/inner.h": ('#include "src/base/check.h"', True),
        "src/model/support.cc": ('#include "tests/support/tiny_gguf.h"', True),
        "src/kernels/fine.cc": ('#include <vector>\n#include "src/base/check.h"\nint snprintf_like; // std::cout', False),
        "src/kernels/fine_test.cc": ('#include <gtest/gtest.h>\n#include "tests/support/tiny_gguf.h"', False),
        "eval/fine.cc": ('#include <nlohmann/json.hpp>\n#include "loopserve/engine.h"', False),
        "src/cli/fine.cc": ('#include <iostream>\n#include "loopserve/engine.h"\nvoid F() { std::cout << 1; }', False),
    }
    failed = False
    for path, (text, bad) in cases.items():
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            (root / path).parent.mkdir(parents=True)
            (root / path).write_text(text + "\n", encoding="utf-8")
            _, violations = check(root)
            if bool(violations) != bad:
                print(f"self-test: {path}: expected {'a violation' if bad else 'none'}, got {violations}")
                failed = True
    return 1 if failed else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parent.parent)
    parser.add_argument("--self-test", action="store_true", help="check this script instead")
    arguments = parser.parse_args()
    if arguments.self_test:
        return self_test()
    files, violations = check(arguments.root)
    for violation in violations:
        print(violation)
    print(f"check_layers: {len(files)} files, {len(violations)} violations")
    return 1 if violations or not files else 0


if __name__ == "__main__":
    sys.exit(main())
