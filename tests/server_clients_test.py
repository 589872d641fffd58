#!/usr/bin/env python3
"""Public clients against `loopserve serve`: openai (chat, streams, tools, schemas, completions, responses), anthropic
(messages, streams, tools), the llm program, curl.

usage: server_clients_test.py LOOPSERVE MODEL
MODEL: a GGUF file, or a name that `loopserve pull` knows. Runs under the Python environment that `tools/setup client-tests` makes.
"""
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

import anthropic
import openai

PERSON = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "minimum": 0, "maximum": 150}},
          "required": ["name", "age"], "additionalProperties": False}
TEXT = "The quick brown fox jumps over the lazy dog. " * 20


def start(program, model, *options):
    server = subprocess.Popen([program, "serve", "-m", model, "--port", "0", "--alias", "tested", "--temperature", "0", "--threads", "1", *options],
                              stderr=subprocess.PIPE, text=True)
    for line in server.stderr:
        found = re.search(r"on (http://127\.0\.0\.1:\d+)", line)
        if found:
            return server, found.group(1)
    raise SystemExit(f"the server did not start: exit code {server.wait()}")


def connect(base):
    return openai.OpenAI(base_url=base + "/v1", api_key="none", max_retries=0)


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


def is_person(value):
    return isinstance(value, dict) and set(value) == {"name", "age"} and isinstance(value["age"], int)


def forms(client):
    """Answers of a schema, and calls of tools: the grammar gives them their form, whatever the model is."""
    messages = [{"role": "user", "content": "Who is it?"}]
    schema = {"type": "json_schema", "json_schema": {"name": "person", "strict": True, "schema": PERSON}}
    done = client.chat.completions.create(model="tested", messages=messages, response_format=schema, max_tokens=200)
    check(is_person(json.loads(done.choices[0].message.content)), done)
    tool = {"type": "function", "function": {"name": "find_person", "description": "finds", "parameters": PERSON}}
    arguments = dict(model="tested", messages=messages, tools=[tool], max_tokens=200, parallel_tool_calls=False,
                     tool_choice={"type": "function", "function": {"name": "find_person"}})
    done = client.chat.completions.create(**arguments)
    message = done.choices[0].message
    check(done.choices[0].finish_reason == "tool_calls", done)
    check(is_person(json.loads(message.tool_calls[0].function.arguments)), done)
    name, text = "", ""
    for chunk in client.chat.completions.create(**arguments, stream=True):
        for choice in chunk.choices:
            for call in choice.delta.tool_calls or []:
                name += call.function.name or ""
                text += call.function.arguments or ""
    check(name == "find_person" and text == message.tool_calls[0].function.arguments, (name, text))
    messages += [message, {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "found"}]
    for choice in ("auto", "none"):
        after = client.chat.completions.create(model="tested", messages=messages, tools=[tool], tool_choice=choice, max_tokens=5)
        check(after.usage.completion_tokens > 0, after)
    response = client.responses.create(model="tested", input="Who?", max_output_tokens=200,
                                       text={"format": {"type": "json_schema", "name": "p", "schema": PERSON, "strict": True}})
    check(is_person(json.loads(response.output_text)), response)
    response = client.responses.create(model="tested", input="Who?", max_output_tokens=200, tool_choice="required", parallel_tool_calls=False,
                                       tools=[{"type": "function", "name": "find_person", "parameters": PERSON, "strict": True}])
    check(is_person(json.loads(response.output[0].arguments)), response)


def refusals(client):
    for arguments, code in (({"messages": []}, "invalid_value"),
                            ({"messages": [{"role": "user", "content": TEXT * 100}]}, "context_length_exceeded"),
                            ({"messages": [{"role": "user", "content": "x"}], "logit_bias": {"5": 1}}, "unsupported"),
                            ({"messages": [{"role": "user", "content": "x"}], "response_format": {
                                "type": "json_schema", "json_schema": {"name": "x", "schema": {"not": {}}}}}, "unsupported")):
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


def tool_messages(base):
    client = anthropic.Anthropic(base_url=base, api_key="none")
    arguments = dict(model="tested", max_tokens=200, messages=[{"role": "user", "content": "Who is it?"}],
                     tools=[{"name": "find_person", "description": "finds", "input_schema": PERSON}],
                     tool_choice={"type": "tool", "name": "find_person"})
    message = client.messages.create(**arguments)
    check(message.stop_reason == "tool_use" and is_person(message.content[0].input), message)
    with client.messages.stream(**arguments) as stream:
        streamed = stream.get_final_message()
    check(streamed.content[0].input == message.content[0].input, (streamed, message))
    arguments["messages"] += [{"role": "assistant", "content": message.content},
                              {"role": "user", "content": [{"type": "tool_result", "tool_use_id": message.content[0].id, "content": "found"}]}]
    after = client.messages.create(**(arguments | {"tool_choice": {"type": "auto"}, "max_tokens": 5}))
    check(after.usage.output_tokens > 0, after)


def llm_program(base):
    """The llm command line, told of the server by its file of models."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "extra-openai-models.yaml")
        path.write_text(f'- model_id: local\n  model_name: tested\n  api_base: "{base}/v1"\n  supports_schema: true\n')
        program = pathlib.Path(sys.executable).with_name("llm")
        environment = os.environ | {"LLM_USER_PATH": folder, "OPENAI_API_KEY": "none"}

        def run(*arguments):
            done = subprocess.run([program, "-m", "local", "-o", "max_tokens", "200", *arguments], env=environment,
                                  capture_output=True, text=True, timeout=60)
            check(done.returncode == 0, done)
            return done.stdout
        run("--no-stream", "Say something.")
        check(is_person(json.loads(run("--schema", json.dumps(PERSON), "Who?"))), "llm --schema")


def curl(base):
    body = json.dumps({"messages": [{"role": "user", "content": "x"}], "max_tokens": 3, "stream": True})
    done = subprocess.run(["curl", "-sSN", "--fail", base + "/v1/chat/completions", "-d", body], capture_output=True, text=True, timeout=60)
    check(done.returncode == 0 and done.stdout.rstrip().endswith("data: [DONE]"), done)


def turns_away(base, seconds):
    """Whether the server takes no more requests, within so many seconds."""
    client = connect(base)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            client.models.list()
        except (openai.APIConnectionError, openai.InternalServerError):
            return True
        time.sleep(0.01)
    return False


def end_in_a_stream(program, model):
    """SIGTERM while an answer is written: it comes whole, then the server ends; who asks now is turned away."""
    server, base = start(program, model)
    client = connect(base)
    chunks, finish = 0, None
    for chunk in client.chat.completions.create(model="tested", messages=[{"role": "user", "content": TEXT}], max_tokens=200,
                                                stream=True, extra_body={"ignore_eos": True}):
        chunks += 1
        finish = chunk.choices[0].finish_reason or finish
        if chunks == 5:
            server.send_signal(signal.SIGTERM)
            check(turns_away(base, 30), "a server that ends takes requests")
    check(chunks > 10 and finish == "length", (chunks, finish))
    code = server.wait(timeout=60)
    check(code == 0, f"exit code {code} after SIGTERM in a stream")


def main():
    end_in_a_stream(*sys.argv[1:3])
    server, base = start(*sys.argv[1:3])
    try:
        client = connect(base)
        chat(client)
        forms(client)
        refusals(client)
        others(client, base)
        messages(base)
        tool_messages(base)
        llm_program(base)
        curl(base)
    finally:
        server.send_signal(signal.SIGTERM)
        began = time.monotonic()
        code = server.wait(timeout=60)
    check(code == 0, f"exit code {code} after SIGTERM")
    check(time.monotonic() - began < 30, "ending took long")
    print("clients: all is well")


if __name__ == "__main__":
    main()
