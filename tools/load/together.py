"""Dialogues alone and all at once: each answer must be the same, and no secret of one may show in another."""
import asyncio
import dataclasses
import random
import time

from . import client, trace

QUESTIONS = ("What is the secret word of this dialogue? Repeat it.", "Tell the story again in other words.",
             "Say the secret word once more, and then go on with the story.")


@dataclasses.dataclass
class StoryTurn:
    text: str
    answer_tokens: int
    at_s: float  # when it is asked where all dialogues go on at once; later if the answer before it is not there yet


class Story:
    """A dialogue with a secret word. turns: (words, answer_tokens, at_s) of each."""

    def __init__(self, number, turns):
        source = random.Random(f"story {number}")
        self.number = number
        self.secret = "".join(source.choice("BCDFGHJKLMNPQRSTVWXZ") for _ in range(6)) + str(source.randint(100, 999))
        told = f"The secret word of this dialogue is {self.secret}. " * 2
        self.turns = [StoryTurn(told + trace.text_of(f"{number} {turn}", words) + " " + QUESTIONS[turn % len(QUESTIONS)],
                                answer_tokens, at_s) for turn, (words, answer_tokens, at_s) in enumerate(turns)]


def stories(count, words, answer_tokens):
    """Of three turns, each at most two seconds after the one before."""
    result = []
    for number in range(count):
        pause, at_s, turns = random.Random(1000 + number), 0.0, []
        for _ in QUESTIONS:
            at_s += pause.uniform(0, 2)
            turns.append((words, answer_tokens, at_s))
        result.append(Story(number, turns))
    return result


def stories_of(dialogues):
    """With a trace's lengths and times."""
    begin = min(d.turns[0].at_s for d in dialogues)
    return [Story(d.number, [(t.new_tokens, t.output_tokens, t.at_s - begin) for t in d.turns]) for d in dialogues]


async def _play_story(api, story, answers, begin):
    messages = []
    for number, turn in enumerate(story.turns):
        if begin is not None:
            await asyncio.sleep(max(0.0, begin + turn.at_s - time.monotonic()))
        messages.append({"role": "user", "content": turn.text})
        answer = await client.ask(api, messages, turn.answer_tokens)
        answers[story.number, number] = answer
        if answer.error:
            return
        messages.append({"role": "assistant", "content": answer.text})


async def alone(url, stories, note):
    api, answers = client.connect(url), {}
    for story in stories:
        await _play_story(api, story, answers, None)
        note(len(answers))
    await api.close()
    return answers


async def at_once(url, stories):
    api, answers, begin = client.connect(url), {}, time.monotonic()
    await asyncio.gather(*(_play_story(api, s, answers, begin) for s in stories))
    await api.close()
    return answers


def compare(stories, expected, got):
    """What is wrong: a list of sentences."""
    wrong = []
    for story in stories:
        for turn in range(len(story.turns)):
            want, have = expected.get((story.number, turn)), got.get((story.number, turn))
            where = f"dialogue {story.number}, turn {turn + 1}"
            if want is None or want.error or have is None or have.error:
                wrong.append(f"{where}: lost ({(have or want).error if have or want else 'never asked'})")
            elif want.text != have.text:
                wrong.append(f"{where}: {have.text!r} where it was {want.text!r} alone")
            if have is not None:
                wrong += [f"{where}: shows the secret of dialogue {other.number}" for other in stories
                          if other.number != story.number and other.secret in have.text]
    return wrong
