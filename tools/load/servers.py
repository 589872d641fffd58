"""Servers as children on loopback, at a port that is free."""
import os
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """One that runs. log: file that gets what it prints; port: None for one that is free."""

    def __init__(self, command, log, port=None, timeout_s=120):
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = open(log, "ab")
        self.process = subprocess.Popen([*command, "--host", "127.0.0.1", "--port", str(self.port)],
                                        stdout=self.log, stderr=self.log)
        end = time.monotonic() + timeout_s
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > end:
                self.kill()
                raise SystemExit(f"{command[0]} did not start: see {log}")
            time.sleep(0.1)

    def _answers(self):
        try:
            with urllib.request.urlopen(self.url + "/health", timeout=2) as reply:
                return reply.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def resident_bytes(self):
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as status:
            found = re.search(r"VmRSS:\s+(\d+) kB", status.read())
        return int(found.group(1)) * 1024 if found else 0

    def metrics(self):
        """Prometheus samples, without labels: name -> value, summed over labels."""
        values = {}
        with urllib.request.urlopen(self.url + "/metrics", timeout=30) as reply:
            for line in reply.read().decode().splitlines():
                found = re.match(r"([a-zA-Z_:][\w:]*)(?:\{.*\})? (\S+)$", line)
                if found:
                    values[found.group(1)] = values.get(found.group(1), 0.0) + float(found.group(2))
        return values

    def stop(self, timeout_s=60):
        """SIGTERM; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.kill()
        self.log.close()
        return self.process.returncode

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def loopserve_command(program, model, policy, options=()):
    return [program, "serve", "-m", model, "--policy", policy, "--temperature", "0", *options]


def llama_server_command(program, model, threads, slots, context, options=()):
    """Its best settings for many dialogues: a slot for each request that runs, one KV cache for all of them, prompts
    that left a slot kept in host memory."""
    return [program, "-m", model, "-t", str(threads), "-tb", str(threads), "-np", str(slots), "-c",
            str(slots * context), "-fa", "on", "--temp", "0", "--cache-ram", "16384", *options]


def model_path(program, model):
    """A file, or what `loopserve pull` makes of a name."""
    if os.path.exists(model):
        return model
    return subprocess.run([program, "pull", model], check=True, capture_output=True, text=True).stdout.strip()
