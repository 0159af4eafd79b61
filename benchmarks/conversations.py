"""Federated learning from conversations: loss on first and on later answers.

    python -m benchmarks.conversations --data instructions.jsonl [--config FILE] [--count 300]
        [--seeds 0] [--arms all first] [--out FILE] [--keep FILE]

Makes conversations of two to four turns from short instructions, half of them with a system prompt.
Later turns are other instructions, or questions about the conversation itself (`FOLLOW_UPS`), which
only a model that reads the earlier turns can answer. The arm `all` learns every answer; `first`
trains for as many steps on the same conversations, cut after their first answer. Both are evaluated
on the same held-out conversations, separately on first and on later answers. `--keep` writes the
conversations to a file, as rows with `messages`.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from benchmarks.comparison import describe, federate, first_phase
from cli.demo import command
from evaluation.evaluator import HELDOUT, Evaluator
from learning.data import rows
from learning.data.row_types import Conversation, Instruction, Row
from learning.evaluation.row_scores import Scores
from learning.training.device import detect

ARMS = ("all", "first")
LONGEST = 160  # characters of a question or an answer
NEW_TOKENS = 40
SYSTEM_PROMPTS = (
    "Answer in plain English.",
    "You are a tutor. Be friendly and short.",
    "You help the visitors of a library.",
    "Give correct answers, without any introduction.",
)
FOLLOW_UPS: Sequence[tuple[str, Callable[[str, str], str]]] = (
    ("What did I ask you just before this?", lambda asked, _: f"You asked me this: {asked}"),
    ("Write your last answer in capital letters.", lambda _, answer: answer.upper()),
    ("How many words has your last answer?", lambda _, answer: _word_count(answer)),
    (
        "Repeat the last word of your answer.",
        lambda _, answer: f"The last word is: {_last(answer)}",
    ),
)
"""A question about the exchange before it, and its answer from that exchange's two texts."""

Turn = dict[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="instructions")
    parser.add_argument("--config", type=Path, default=Path("configs/smollm2.toml"))
    parser.add_argument("--count", type=int, default=300, help="conversations to make")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--out", type=Path, help="file to which results are appended")
    parser.add_argument("--keep", type=Path, help="file for the conversations of the first seed")
    arguments = parser.parse_args()
    for seed in arguments.seeds:
        made = make_conversations(arguments.data, arguments.count, seed)
        if arguments.keep and seed == arguments.seeds[0]:
            write_rows(arguments.keep, made)
        for arm in arguments.arms:
            result = {"seed": seed, "arm": arm, **run_arm(arguments.config, made, arm, seed)}
            print(json.dumps(result), flush=True)
            if arguments.out:
                with arguments.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(result) + "\n")


def make_conversations(source: Path, count: int, seed: int) -> list[list[Turn]]:
    """Return conversations of two to four exchanges, the same for the same rows and seed."""
    loaded = rows.load("sft", str(source), on_message=print).rows
    exchanges = [_asked(row) for row in loaded if isinstance(row, Instruction)]
    short = [pair for pair in exchanges if max(map(len, pair)) <= LONGEST]
    draw = random.Random(seed)
    draw.shuffle(short)
    unused = iter(short)
    return [_conversation(draw, unused) for _ in range(count)]


def _asked(row: Instruction) -> tuple[str, str]:
    given = row.input.replace("<noinput>", "")
    return f"{row.instruction}\n{given}".strip(), row.output.strip()


def _conversation(draw: random.Random, unused: Any) -> list[Turn]:
    turns = [_turn("system", draw.choice(SYSTEM_PROMPTS))] if draw.random() < 0.5 else []
    asked, answer = next(unused)
    turns += _exchange(asked, answer)
    for _ in range(draw.randint(1, 3)):
        if draw.random() < 0.5:
            asked, answer = next(unused)
        else:
            question, about = draw.choice(FOLLOW_UPS)
            asked, answer = question, about(asked, answer)
        turns += _exchange(asked, answer)
    return turns


def _exchange(asked: str, answer: str) -> list[Turn]:
    return [_turn("user", asked), _turn("assistant", answer)]


def _turn(role: str, content: str) -> Turn:
    return {"role": role, "content": content}


def _word_count(answer: str) -> str:
    return f"My last answer has {len(answer.split())} words."


def _last(answer: str) -> str:
    return answer.rsplit(maxsplit=1)[-1].strip(".,;:!?\"'") if answer.split() else ""


def write_rows(path: Path, conversations: Sequence[Sequence[Turn]]) -> None:
    lines = (json.dumps({"messages": turns}, ensure_ascii=False) + "\n" for turns in conversations)
    path.write_text("".join(lines), encoding="utf-8")


def run_arm(config: Path, made: Sequence[list[Turn]], arm: str, seed: int) -> dict[str, Any]:
    """Train a federation on conversations; return metrics before and after, and answers.

    A tenth of the conversations is held out of both arms.
    """
    kept, heldout = made[len(made) // 10 :], made[: len(made) // 10]
    with tempfile.TemporaryDirectory() as folder:
        data, unseen = Path(folder) / "rows.jsonl", Path(folder) / "unseen.jsonl"
        write_rows(data, [first_exchange(turns) for turns in kept] if arm == "first" else kept)
        write_rows(unseen, heldout)
        plan = command.configure(config, data, Path(folder) / "conversations")
        run, base_path = federate(first_phase(plan, seed))
        evaluator = Evaluator(run, base_path, detect())
        conversations = rows.read("sft", unseen).rows
        result: dict[str, Any] = {"heldout": len(conversations)}
        for name, version in (("before", 0), ("after", run.versions[-1].version)):
            evaluator.load_tensors(run.tensors(version))
            result[name] = measure(evaluator, conversations)
            shown = conversations[:6]
            result[f"answers {name}"] = evaluator.generate(shown, NEW_TOKENS)
        result["asked"] = [describe(row) for row in shown]
    return result


def first_exchange(turns: Sequence[Turn]) -> list[Turn]:
    """Return a conversation up to its first answer."""
    end = next(i for i, turn in enumerate(turns) if turn["role"] == "assistant")
    return list(turns[: end + 1])


def measure(evaluator: Evaluator, conversations: Sequence[Row]) -> dict[str, float]:
    """Return nats per token of first answers, and of later ones.

    A template that keeps the earlier turns as they were gives the later answers the difference
    between the whole conversation and its beginning.
    """
    beginnings = [_beginning(cast(Conversation, row)) for row in conversations]
    firsts, first_tokens = _score(evaluator, beginnings)
    wholes, whole_tokens = _score(evaluator, conversations)
    if len(firsts) != len(wholes):
        raise SystemExit("a conversation is too long: raise model.max_length")
    return {
        "first answers": sum(firsts) / sum(first_tokens),
        "later answers": (sum(wholes) - sum(firsts)) / (sum(whole_tokens) - sum(first_tokens)),
        "tokens of first answers": sum(first_tokens),
        "tokens of later answers": sum(whole_tokens) - sum(first_tokens),
    }


def _score(evaluator: Evaluator, conversations: Sequence[Row]) -> tuple[Scores, list[int]]:
    encoded = evaluator.encode("sft", 0, [(HELDOUT, row) for row in conversations])
    return evaluator.score(encoded), [each.target_count for each in encoded.examples]


def _beginning(row: Conversation) -> Conversation:
    end = next(i for i, turn in enumerate(row.messages) if turn.role == "assistant")
    return replace(row, messages=row.messages[: end + 1])


if __name__ == "__main__":
    main()
