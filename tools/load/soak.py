"""Hours of use in minutes: dialogues that go on at random, clients that go away, a server that is stopped and killed.
Every dialogue is told twice, apart from each other: greedy answers must be the same, restarts or not. A turn that was
asked again (its client went away, its server ended) may go on from another cut of the prompt, whose last bits differ:
dialogues with such a turn are counted apart, and where they part the two likeliest tokens must be nearly equal."""
import asyncio
import os
import random
import time

from . import client, trace


NEARLY_EQUAL = 0.2  # of log probability, between the two tokens where two tellings part


def _messages(told):
    """Of texts in turns, the user's first."""
    return [{"role": "user" if i % 2 == 0 else "assistant", "content": text} for i, text in enumerate(told)]


class Teller:
    """Tells dialogues until `end` and checks what comes back. A server that is down is waited for."""

    def __init__(self, url, end, seed):
        self.url, self.end, self.source = url, end, random.Random(seed)
        self.turns = self.same = self.closed = self.retries = self.apart_same = 0
        self.gaps, self.wrong = [], []

    async def _turn(self, api, messages, tokens, salt):
        """Asks until there is an answer: restarts lose requests that run, never dialogues. The answer, and whether it
        took more than one request."""
        again = False
        while True:
            if self.source.random() < 0.15:
                await client.ask(api, messages, tokens, stop_after=self.source.randint(0, 5), cache_salt=salt)
                self.closed += 1
                again = True
            answer = await client.ask(api, messages, tokens, cache_salt=salt)
            if not answer.error:
                self.turns += 1
                return answer.text, again
            self.retries += 1
            again = True
            if time.monotonic() > self.end + 120:
                raise RuntimeError(answer.error)
            await asyncio.sleep(0.5)

    async def _tell(self, api, number, times, telling):
        told, disturbed = [], False
        for turn in range(times):
            messages = _messages(told)
            messages.append({"role": "user", "content": trace.text_of(f"soak {number} {turn}", 30 + number * 37 % 400)})
            answer, again = await self._turn(api, messages, 8 + number % 24, f"soak {number} {telling}")
            told += [messages[-1]["content"], answer]
            disturbed |= again
            await asyncio.sleep(self.source.uniform(0, 0.5))
        return told, disturbed

    async def _gap(self, api, number, once, again):
        """How far apart in log probability the two likeliest tokens are where the tellings part."""
        turn = next(i for i, (a, b) in enumerate(zip(once, again)) if a != b)
        messages = _messages(once[:turn])
        while True:
            try:
                reply = await api.chat.completions.create(
                    model="any", messages=messages, max_tokens=8 + number % 24, temperature=0, logprobs=True, top_logprobs=2,
                    extra_body={"ignore_eos": True, "cache_salt": f"gap {number}"})
                break
            except client.openai.OpenAIError:
                if time.monotonic() > self.end + 120:
                    raise
                await asyncio.sleep(0.5)
        left = len(os.path.commonprefix([once[turn], again[turn]]))
        for token in reply.choices[0].logprobs.content:
            left -= len(token.token)
            if left < 0:
                return token.top_logprobs[0].logprob - token.top_logprobs[1].logprob
        return float("inf")

    async def run(self, first_number, step):
        api = client.connect(self.url)
        number = first_number
        while time.monotonic() < self.end:
            times = self.source.randint(2, 4)
            once, disturbed = await self._tell(api, number, times, 1)
            again, disturbed_again = await self._tell(api, number, times, 2)
            calm = not disturbed and not disturbed_again
            if once == again:
                self.same += calm
                self.apart_same += not calm
            else:
                gap = await self._gap(api, number, once, again)
                self.gaps.append(gap)
                if calm or gap > NEARLY_EQUAL:
                    self.wrong.append(f"dialogue {number} (gap {gap:.2f}): {again!r} where it was {once!r} before")
            number += step
        await api.close()


async def tell(url, minutes, n_tellers, on_sample, sample_s=5):
    """n_tellers at once for so long; on_sample() every few seconds (in a thread: it may restart the server)."""
    end = time.monotonic() + 60 * minutes
    tellers = [Teller(url, end, i) for i in range(n_tellers)]
    running = asyncio.gather(*(t.run(i, n_tellers) for i, t in enumerate(tellers)))
    while not running.done():
        await asyncio.wait([running], timeout=sample_s)
        if time.monotonic() < end:
            await asyncio.to_thread(on_sample)
    await running
    return tellers
