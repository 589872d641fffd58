#!/usr/bin/env python3
"""Holds what the documents point at against what is there: relative links, their headings, and paths in backticks.
Runs in ctest and in `make lint`.

usage: check_docs.py [--root DIR] [--self-test]
Prints one line for each thing that is missing; exit code 1 if there is any.
"""
import argparse
import pathlib
import re
import subprocess
import sys
import tempfile

LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
# What is taken for a path in backticks: it begins with a folder of the source. Patterns and placeholders are not.
PATH = re.compile(r"(?:include|src|bench|eval|tests|tools|docs|fuzz|cmake)/[\w./-]+")
FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)


def documents(root):
    """Markdown files that git knows; all, where there is no git."""
    listed = subprocess.run(["git", "-C", root, "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
                            capture_output=True, text=True, check=False)
    if listed.returncode == 0:
        return [root / name for name in listed.stdout.split("\n") if name and (root / name).exists()]
    return sorted(path for path in root.rglob("*.md") if "build" not in path.relative_to(root).parts)


def anchors(text):
    """Names of a document's headings, as GitHub makes them."""
    names = set()
    for heading in re.findall(r"^#+ +(.+?) *$", FENCE.sub("", text), re.MULTILINE):
        base = re.sub(r"[^\w\- ]", "", re.sub(r"\]\([^)]*\)", "", heading).lower()).replace(" ", "-")
        name, number = base, 0
        while name in names:
            number += 1
            name = f"{base}-{number}"
        names.add(name)
    return names


def exists(root, path):
    """A path, or a module that is named without its ending: src/selection/tiles, src/model/evictor."""
    target = root / path
    return target.exists() or any(target.parent.glob(target.name + ".*"))


def missing_in(root, document):
    text = document.read_text(encoding="utf-8")
    prose = FENCE.sub("", text)
    for link in LINK.findall(CODE.sub("", prose)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        if not target.exists():
            yield f"no {link}"
        elif anchor and target.suffix == ".md" and anchor not in anchors(target.read_text(encoding="utf-8")):
            yield f"no heading {link}"
    for code in CODE.findall(prose):
        if PATH.fullmatch(code) and "NAME" not in code and not exists(root, code.rstrip("/")):
            yield f"no {code}"


def missing(root):
    return [f"{document.relative_to(root)}: {what}" for document in documents(root) for what in missing_in(root, document)]


def self_test():
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        (root / "src").mkdir()
        (root / "src" / "a.cc").touch()
        (root / "good.md").write_text("# One `thing`, two\n# Same\n# Same\n[a](good.md#one-thing-two) [b](#same-1) `src/a` "
                                      "[c](https://example.org/x) `src/NAME.cc`\n```\n[d](nowhere.md)\n```\n")
        if found := missing(root):
            return f"found {found} where nothing is missing"
        for text in ("[a](gone.md)", "[a](good.md#two)", "![a](gone.svg)", "[`a`](#nothing)", "see `src/gone.cc`"):
            (root / "bad.md").write_text(text)
            if len(missing(root)) != 1:
                return f"{text}: not found"
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parent.parent)
    parser.add_argument("--self-test", action="store_true", help="checks this program itself")
    options = parser.parse_args()
    if options.self_test:
        if failure := self_test():
            sys.exit(failure)
        return
    found = missing(options.root.resolve())
    print("\n".join(found), end="\n" if found else "")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
