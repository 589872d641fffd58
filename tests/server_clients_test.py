#!/usr/bin/env python3
"""Public client libraries against `loopserve serve`: openai (chat, streams, completions, responses) and anthropic.

usage: server_clients_test.py LOOPSERVE MODEL
MODEL: a GGUF file. Runs under the Python environment that `tools/setup client-tests` makes.
"""
import json
import re
import signal
import subprocess
import sys
import time
import urllib.request

import anthropic
import openai

TEXT = "The quick brown fox jumps over the lazy dog. " * 20


def start(program, model):
    server = subprocess.Popen([program, "serve", "-m", model, "--port", "0", "--alias", "tested", "--temperature", "0"],
                              stderr=subprocess.PIPE, text=True)
    for line in server.stderr:
        found = re.search(r"on (http://127\.0\.0\.1:\d+)", line)
        if found:
            return server, found.group(1)
    raise SystemExit(f"the server did not start: exit code {server.wait()}")


def check(condition, what):
    if not condition:
        raise AssertionError(what)


def chat(client):
    messages = [{"role": "user", "content": TEXT}]
    first = client.chat.completions.create(model="tested", messages=messages, max_tokens=12)
    answer = first.choices[0].message.content
    check(first.usage.completion_tokens > 0, first)
    messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": "Go on."}]
    second = client.chat.completions.create(model="tested", messages=messages, max_tokens=4, logprobs=True,
                                            top_logprobs=2)
    check(second.usage.prompt_tokens_details.cached_tokens > 100, second.usage)
    check(len(second.choices[0].logprobs.content[0].top_logprobs) == 2, second)
    stream = client.chat.completions.create(model="tested", messages=messages[:1], max_tokens=12, stream=True,
                                            stream_options={"include_usage": True}, n=1)
    text, usage = "", None
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
    check(text == answer, (text, answer))
    check(usage.completion_tokens == first.usage.completion_tokens, usage)


def refusals(client):
    for arguments, code in (({"messages": []}, "invalid_value"),
                            ({"messages": [{"role": "user", "content": TEXT * 100}]}, "context_length_exceeded"),
                            ({"messages": [{"role": "user", "content": "x"}], "logit_bias": {"5": 1}}, "unsupported")):
        try:
            client.chat.completions.create(model="tested", **arguments)
        except openai.BadRequestError as error:
            check(error.code == code, error)
        else:
            raise AssertionError(f"{code} was expected")


def others(client, base):
    models = client.models.list()
    check(models.data[0].id == "tested", models)
    done = client.completions.create(model="tested", prompt=TEXT, max_tokens=5, logprobs=1)
    check(len(done.choices[0].logprobs.tokens) == done.usage.completion_tokens, done)
    response = client.responses.create(model="tested", input="Say something.", max_output_tokens=6)
    check(response.usage.output_tokens > 0 and response.output_text is not None, response)
    text, last = "", None
    for event in client.responses.create(model="tested", input="Say something.", max_output_tokens=6, stream=True):
        text += event.delta if event.type == "response.output_text.delta" else ""
        last = event.type
    check(text == response.output_text, (text, response.output_text))
    check(last in ("response.completed", "response.incomplete"), last)
    with urllib.request.urlopen(base + "/v1/sessions") as reply:
        check(len(json.load(reply)["data"]) >= 2, "sessions are held")


def messages(base):
    client = anthropic.Anthropic(base_url=base, api_key="none")
    arguments = dict(model="tested", max_tokens=8, messages=[{"role": "user", "content": "Say something."}])
    message = client.messages.create(**arguments)
    check(message.usage.output_tokens > 0, message)
    with client.messages.stream(**arguments) as stream:
        text = "".join(stream.text_stream)
    check(text == message.content[0].text, (text, message))


def main():
    server, base = start(*sys.argv[1:3])
    try:
        client = openai.OpenAI(base_url=base + "/v1", api_key="none", max_retries=0)
        chat(client)
        refusals(client)
        others(client, base)
        messages(base)
    finally:
        server.send_signal(signal.SIGTERM)
        began = time.monotonic()
        code = server.wait(timeout=60)
    check(code == 0, f"exit code {code} after SIGTERM")
    check(time.monotonic() - began < 30, "ending took long")
    print("clients: all is well")


if __name__ == "__main__":
    main()
