#!/usr/bin/env python3
"""Schemathesis against `loopserve serve` and its own /openapi.json: no 5xx, no answer that the document does not have.

usage: server_schemathesis_test.py LOOPSERVE MODEL [--examples N]
MODEL: a GGUF file, a small one. The requests are the same every time. `timeout` is taken out of the document for this:
what it asks for is 504.
"""
import argparse
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import urllib.request

from server_clients_test import start

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("model")
    parser.add_argument("--examples", type=int, default=30, help="requests of each kind for each route")
    options = parser.parse_args()
    server, base = start(options.program, options.model, "--context", "512", "--max-tokens", "8")
    try:
        with tempfile.TemporaryDirectory() as folder, urllib.request.urlopen(base + "/openapi.json") as reply:
            document = json.load(reply)
            del document["components"]["schemas"]["Generation"]["properties"]["timeout"]
            path = pathlib.Path(folder, "openapi.json")
            path.write_text(json.dumps(document))
            program = pathlib.Path(sys.executable).with_name("schemathesis")
            done = subprocess.run(
                [program, "run", path, "--url", base, "--checks", CHECKS, "--phases", "examples,coverage,fuzzing", "--mode", "all",
                 "--generation-deterministic", "--max-examples", str(options.examples),
                 "--no-color", "--continue-on-failure", "--suppress-health-check", "all", "--request-timeout", "60"],
                cwd=folder, env=os.environ | {"SCHEMATHESIS_HOOKS": ""}, timeout=540)
        with urllib.request.urlopen(base + "/health") as reply:
            healthy = reply.status == 200
    finally:
        server.send_signal(signal.SIGTERM)
        code = server.wait(timeout=60)
    if done.returncode != 0 or code != 0 or not healthy:
        raise SystemExit(f"schemathesis: {done.returncode}, the server: {code}, healthy: {healthy}")
    print("schemathesis: all is well")


if __name__ == "__main__":
    main()
