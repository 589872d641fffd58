"""Plays a trace's dialogues against a server: open loop, each turn at its time or when the answer before it is there."""
import asyncio
import dataclasses
import statistics
import time

from . import client, trace

SYSTEM = "You are a careful assistant. " + trace.text_of("system", 100)


@dataclasses.dataclass
class PlayedTurn:
    dialogue: int
    turn: int
    answer: client.Answer


async def _play_dialogue(api, dialogue, begin, played, note):
    messages = [{"role": "system", "content": SYSTEM}]
    for number, turn in enumerate(dialogue.turns):
        await asyncio.sleep(max(0.0, begin + turn.at_s - time.monotonic()))
        messages.append({"role": "user", "content": trace.text_of(repr((dialogue.number, number)), turn.new_tokens)})
        answer = await client.ask(api, messages, turn.output_tokens)
        played.append(PlayedTurn(dialogue.number, number, answer))
        note(len(played))
        if answer.error:
            return  # its later turns have no history
        messages.append({"role": "assistant", "content": answer.text})


async def _play(url, dialogues, note):
    api = client.connect(url)
    played = []
    begin = time.monotonic() - min(d.turns[0].at_s for d in dialogues)
    await asyncio.gather(*(_play_dialogue(api, d, begin, played, note) for d in dialogues))
    wall_s = time.monotonic() - begin
    await api.close()
    return played, wall_s


def play(url, dialogues, note=lambda n: None):
    """All turns that were played, and the seconds from the first to the last."""
    return asyncio.run(_play(url, dialogues, note))


def _percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(share * len(values)))] if values else float("nan")


def figures(played, wall_s, wanted_turns, slo_ttft_s, slo_tpot_s):
    good = [p.answer for p in played if not p.answer.error]
    later = [p.answer for p in played if not p.answer.error and p.turn > 0]
    meets = [a for a in good if a.ttft_s <= slo_ttft_s and a.tpot_s <= slo_tpot_s]
    return {
        "turns": wanted_turns,
        "answered": len(good),
        "errors": sorted({p.answer.error for p in played if p.answer.error}),
        "wall_s": wall_s,
        "prompt_tokens": sum(a.prompt_tokens for a in good),
        "cached_tokens": sum(a.cached_tokens for a in good),
        "output_tokens": sum(a.output_tokens for a in good),
        "ttft_s": {"first turns, median": _percentile([p.answer.ttft_s for p in played if not p.answer.error and p.turn == 0], 0.5),
                   "later turns, median": _percentile([a.ttft_s for a in later], 0.5),
                   "later turns, p95": _percentile([a.ttft_s for a in later], 0.95)},
        "ttft_s_by_turn": {
            str(turn + 1): [_percentile([p.answer.ttft_s for p in played if p.turn == turn and not p.answer.error], share)
                            for share in (0.5, 0.95)]
            for turn in sorted({p.turn for p in played})},
        "tpot_s": {"median": _percentile([a.tpot_s for a in good], 0.5), "p95": _percentile([a.tpot_s for a in good], 0.95)},
        "e2e_s": {"mean": statistics.fmean([a.total_s for a in good]) if good else float("nan")},
        "goodput_per_s": len(meets) / wall_s,
        "meeting_the_objective": len(meets),
    }


def table(rows):
    """rows: (name, figures) -> lines of text."""
    head = ("server", "answered", "wall s", "cached", "TTFT s, turn 1", "later turns", "p95", "TPOT ms", "p95", "good/s")
    cells = [head]
    for name, f in rows:
        share = f["cached_tokens"] / max(1, f["prompt_tokens"])
        cells.append((name, f"{f['answered']}/{f['turns']}", f"{f['wall_s']:.0f}", f"{share:.2f}",
                      f"{f['ttft_s']['first turns, median']:.2f}", f"{f['ttft_s']['later turns, median']:.2f}",
                      f"{f['ttft_s']['later turns, p95']:.2f}", f"{1e3 * f['tpot_s']['median']:.0f}",
                      f"{1e3 * f['tpot_s']['p95']:.0f}", f"{f['goodput_per_s']:.3f}"))
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    return "\n".join("  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths)))
                     for row in cells)
