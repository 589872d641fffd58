"""Dialogues alone and all at once: each answer must be the same, and no secret of one may show in another."""
import asyncio
import random

from . import client, trace

QUESTIONS = ("What is the secret word of this dialogue? Repeat it.", "Tell the story again in other words.",
             "Say the secret word once more, and then go on with the story.")


class Story:
    def __init__(self, number, words):
        source = random.Random(f"story {number}")
        self.number = number
        self.secret = "".join(source.choice("BCDFGHJKLMNPQRSTVWXZ") for _ in range(6)) + str(source.randint(100, 999))
        self.turns = [f"The secret word of this dialogue is {self.secret}. " * 2 + trace.text_of(f"{number} {turn}", words)
                      + " " + question for turn, question in enumerate(QUESTIONS)]


async def _play_story(api, story, tokens, answers, pause):
    messages = []
    for number, turn in enumerate(story.turns):
        if pause is not None:
            await asyncio.sleep(pause.uniform(0, 2))
        messages.append({"role": "user", "content": turn})
        answer = await client.ask(api, messages, tokens)
        answers[story.number, number] = answer
        if answer.error:
            return
        messages.append({"role": "assistant", "content": answer.text})


async def alone(url, stories, tokens, note):
    api, answers = client.connect(url), {}
    for story in stories:
        await _play_story(api, story, tokens, answers, None)
        note(len(answers))
    await api.close()
    return answers


async def at_once(url, stories, tokens, seed=1):
    api, answers = client.connect(url), {}
    await asyncio.gather(*(_play_story(api, s, tokens, answers, random.Random(seed * 1000 + s.number)) for s in stories))
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
