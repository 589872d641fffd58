"""OpenVINO GenAI as a peer to race: a helper process that speaks the worker protocol of bench/worker_protocol.h.

The policy of "load" is full | xattention | eviction[:TOKENS] (XAttention, and a KV cache cut to TOKENS while
generating); its kv is "" (the plugin's default, u8), "u8" or "f16".
"""

import sys

# The working folder is nobody's library: a types.py in it must not stand in for Python's own.
sys.path = [folder for folder in sys.path if folder]

import json  # noqa: E402
import os  # noqa: E402

# What libraries print must not get between the replies.
replies = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)

BATCHED_TOKENS = 2048  # measured: 256, 512 and 8192 are not faster at any length
CACHE_GB = 8  # the most that it may grow to; it takes what it uses
WARM_UP_TOKENS = 64
BLOCK_TOKENS = 32  # the KV block of OpenVINO's CPU plugin; cache sizes are multiples of it
EVICTION_START_TOKENS = 32
EVICTION_RECENT_TOKENS = 128
EVICTION_DEFAULT_TOKENS = 1184


class PeerError(Exception):
    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


def reset_peak():
    try:
        with open("/proc/self/clear_refs", "w") as f:
            f.write("5")
    except OSError:
        pass


def peak_rss_bytes():
    with open("/proc/self/status") as f:
        for line in f:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return None


class Peer:
    """One model in one mode. Whole prompts are timed without prefix caching, new tokens on top of a context with it:
    the pipeline is built anew where that changes."""

    def __init__(self, request):
        try:
            import numpy
            import openvino
            import openvino_genai
        except ImportError as e:
            raise PeerError("unsupported", f"OpenVINO GenAI is not installed: {e}") from e
        self.numpy, self.openvino, self.genai = numpy, openvino, openvino_genai
        self.request = request
        self.pipeline = None
        self.prefix_caching = None
        self.context = []
        self.version = openvino_genai.get_version() if hasattr(openvino_genai, "get_version") else openvino_genai.__version__

    def scheduler_config(self, prefix_caching):
        genai, request = self.genai, self.request
        config = genai.SchedulerConfig()
        config.enable_prefix_caching = prefix_caching
        config.max_num_batched_tokens = request.get("max_num_batched_tokens", BATCHED_TOKENS)
        config.cache_size = CACHE_GB
        mode, _, size = request["policy"].partition(":")
        if mode not in ("full", "xattention", "eviction") or (size and mode != "eviction"):
            raise PeerError("invalid_argument", f"policy '{request['policy']}': use full, xattention or eviction[:TOKENS]")
        if mode in ("xattention", "eviction"):
            config.use_sparse_attention = True
            config.sparse_attention_config = genai.SparseAttentionConfig(mode=genai.SparseAttentionMode.XATTENTION)
        if mode == "eviction":
            tokens = int(size) if size else EVICTION_DEFAULT_TOKENS
            if tokens % BLOCK_TOKENS or tokens <= EVICTION_START_TOKENS + EVICTION_RECENT_TOKENS:
                raise PeerError("invalid_argument", f"eviction:{tokens}: use a multiple of {BLOCK_TOKENS} above "
                                f"{EVICTION_START_TOKENS + EVICTION_RECENT_TOKENS}")
            config.use_cache_eviction = True
            config.cache_eviction_config = genai.CacheEvictionConfig(
                EVICTION_START_TOKENS, EVICTION_RECENT_TOKENS, tokens, genai.AggregationMode.NORM_SUM)
        return config

    def build(self, prefix_caching):
        if self.pipeline is not None and self.prefix_caching == prefix_caching:
            return
        self.pipeline = None
        properties = {"INFERENCE_NUM_THREADS": self.request["threads"]}
        if self.request.get("kv"):
            properties["KV_CACHE_PRECISION"] = self.request["kv"]
        try:
            self.pipeline = self.genai.LLMPipeline(
                self.request["model"], "CPU", scheduler_config=self.scheduler_config(prefix_caching), **properties)
        except (RuntimeError, ValueError) as e:
            raise PeerError("unsupported", f"OpenVINO GenAI {self.version} cannot load this model: {e}") from e
        self.prefix_caching = prefix_caching
        # The first run compiles kernels: half a second that no later run pays.
        self.generate([1] * WARM_UP_TOKENS, 4)

    def generate(self, ids, tokens):
        config = self.genai.GenerationConfig()
        config.max_new_tokens = tokens
        config.ignore_eos = True
        config.do_sample = False
        config.apply_chat_template = False
        tensor = self.openvino.Tensor
        array = self.numpy.array([ids], dtype=self.numpy.int64)
        return self.pipeline.generate(
            self.genai.TokenizedInputs(tensor(array), tensor(self.numpy.ones_like(array))), config)

    def prepare(self, context):
        self.build(prefix_caching=bool(context))
        self.context = context
        reset_peak()
        if context:
            self.generate(context, 1)

    def run(self, prompt, gen_tokens):
        if self.context and self.request["policy"].startswith("eviction"):
            # Evicting while it generated has torn holes into the cached context: fill it again, untimed.
            self.generate(self.context, 1)
        result = self.generate(prompt, gen_tokens)
        metrics = result.perf_metrics
        if metrics.get_num_generated_tokens() != gen_tokens:
            raise PeerError("internal", f"{metrics.get_num_generated_tokens()} tokens came instead of {gen_tokens}")
        return {
            "ttft_ms": metrics.get_ttft().mean,
            "tpot_ms": metrics.get_tpot().mean if gen_tokens > 1 else None,
            "output": [int(t) for t in result.tokens[0]],
            "peak_rss_bytes": peak_rss_bytes(),
        }


def answer(peer, request):
    op = request.get("op")
    if op == "load":
        peer = Peer(request)
        peer.build(prefix_caching=False)
        return peer, {"ok": True}
    if peer is None:
        raise PeerError("invalid_argument", f"'{op}' before 'load'")
    if op == "prepare":
        peer.prepare(request["context"])
        return peer, {"ok": True}
    if op == "run":
        return peer, {"ok": True, **peer.run(request["prompt"], request["gen_tokens"])}
    raise PeerError("invalid_argument", f"unknown operation '{op}'")


def main():
    peer = None
    for line in sys.stdin:
        try:
            peer, reply = answer(peer, json.loads(line))
        except PeerError as e:
            reply = {"ok": False, "code": e.code, "error": str(e)}
        except Exception as e:  # whatever the library throws: the parent reports it, and this process goes on
            reply = {"ok": False, "code": "internal", "error": f"{type(e).__name__}: {e}"}
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main()
