"""Dialogues out of a trace of requests (Mooncake's form): a request whose prompt begins with all of an earlier one goes
on with its dialogue. Lengths are scaled to the machine; the times between the turns stay what they were."""
import dataclasses
import json
import random

BLOCK_TOKENS = 512  # of one hash in the trace

# Common words, nearly all of them one token: texts of about as many words as tokens are wanted.
WORDS = ("the of and to in is that it was for on are as with his they at be this from have or by one had not but what "
         "all were when we there can an your which their said if do will each about how up out them then she many some "
         "so these would other into has more her two like him see time could no make than first been its who now people "
         "my made over did down only way find use may water long little very after words called just where most know "
         "house river stone letter garden winter bridge engine market captain paper window island music story forest "
         "morning silver doctor summer castle ship road school village money king field").split()


@dataclasses.dataclass
class Turn:
    at_s: float  # when it was asked, since the trace's start
    new_tokens: int  # of the question, without the history
    output_tokens: int


@dataclasses.dataclass
class Dialogue:
    number: int
    turns: list


def text_of(seed, n_words):
    """The same words for the same seed, in sentences."""
    source = random.Random(seed)
    sentences, left = [], n_words
    while left > 0:
        n = min(left, source.randint(6, 14))
        words = [source.choice(WORDS) for _ in range(n)]
        sentences.append(" ".join(words).capitalize() + ".")
        left -= n
    return " ".join(sentences)


def chains(lines):
    """Lists of requests, each of which continues the one before it."""
    newest = {}  # prompt blocks -> the chain that ends with them
    all_chains = []
    for line in lines:
        request = json.loads(line)
        blocks = tuple(request["hash_ids"])
        chain = None
        for n in range(len(blocks), 1, -1):  # one shared block is a system prompt
            chain = newest.pop(blocks[:n], None)
            if chain is not None:
                break
        if chain is None:
            chain = []
            all_chains.append(chain)
        chain.append(request)
        # The last block is not full: the next prompt has another one in its place.
        newest[blocks] = newest[blocks[:-1]] = chain
    return all_chains


def dialogues(path, count, duration_s, time_scale, length_scale, context, min_turns=2, max_turns=8):
    """`count` dialogues, evenly over those of which min_turns are asked within duration_s and fit the context; later
    turns are left out. The trace's times are divided by time_scale, its lengths by length_scale."""
    with open(path, encoding="utf-8") as lines:
        all_chains = chains(lines)
    fitting = []
    for chain in all_chains:
        turns, held = [], 0
        for request in chain[:max_turns]:
            total = max(request["input_length"] / length_scale, 16)
            turn = Turn(request["timestamp"] / 1000 / time_scale, max(8, round(total - held)),
                        max(8, round(request["output_length"] / length_scale)))
            held += turn.new_tokens + turn.output_tokens
            if held * 1.15 + 100 > context or turn.at_s > duration_s:  # words are a little more than a token each
                break
            turns.append(turn)
        if len(turns) >= min_turns:
            fitting.append(turns)
    step = max(1.0, len(fitting) / count)
    chosen = [fitting[int(i * step)] for i in range(min(count, len(fitting)))]
    return [Dialogue(i, turns) for i, turns in enumerate(chosen)]
