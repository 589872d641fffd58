"""One turn of a dialogue over OpenAI's API, streamed and timed."""
import dataclasses
import time

import openai


@dataclasses.dataclass
class Answer:
    text: str = ""
    error: str = ""
    ttft_s: float = 0.0
    tpot_s: float = 0.0
    total_s: float = 0.0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0


def connect(url):
    return openai.AsyncOpenAI(base_url=url + "/v1", api_key="none", max_retries=0, timeout=3600)


async def ask(client, messages, max_tokens, stop_after=None, **fields):
    """The answer to messages, exactly max_tokens long (no end of text). stop_after: closes the stream after so many
    pieces, as a client does that goes away. fields: of the request's body, beside OpenAI's."""
    answer = Answer()
    begin = time.monotonic()
    first = last = None
    pieces = 0
    try:
        stream = await client.chat.completions.create(
            model="any", messages=messages, max_tokens=max_tokens, temperature=0, stream=True,
            stream_options={"include_usage": True}, extra_body={"ignore_eos": True, **fields})
        async for chunk in stream:
            for choice in chunk.choices:
                if choice.delta.content:
                    last = time.monotonic()
                    first = first or last
                    answer.text += choice.delta.content
                    pieces += 1
            if chunk.usage:
                answer.prompt_tokens = chunk.usage.prompt_tokens
                answer.output_tokens = chunk.usage.completion_tokens
            timings = (chunk.model_extra or {}).get("timings")
            if timings:
                answer.cached_tokens = timings.get("cache_n", 0)
            if stop_after is not None and pieces >= stop_after:
                await stream.close()
                answer.error = "closed by the client"
                break
    except openai.OpenAIError as error:
        answer.error = f"{type(error).__name__}: {error}"
    end = time.monotonic()
    answer.total_s = end - begin
    if first is not None:
        answer.ttft_s = first - begin
        answer.tpot_s = (last - first) / max(1, answer.output_tokens - 1)
    elif not answer.error:
        answer.error = "no text"
    return answer
