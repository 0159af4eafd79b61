"""Speed and memory of fccl's local training beside trl's and transformers' trainers.

    python -m benchmarks.training [--steps N] [--runs N] [--only sft|dpo|kto|classification]
        [--compiled] [--json]

Every variant trains the same randomly initialised model on the same token ids, in a process of its
own with the same threads; variants alternate within a run, and the table has medians over runs.
One pass over the data: as many examples as steps times batch size, so that each variant computes
each example once, in its own order. The first steps warm up and are not counted.

Peak memory is the high-water mark of the resident set (`ru_maxrss`) of that process: libraries,
model, data and training. Padding is not counted in tokens.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from random import Random
from statistics import median
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)

from common.protocol.tasks import LocalTraining, LoraSpec
from learning.models import lora
from learning.objectives import dpo, kto, registry
from learning.objectives.classification import TokenisedText
from learning.objectives.tokens import TokenisedExample, make_example
from learning.training import loop
from learning.training.compilation import compile_blocks
from learning.training.device import available_cores, detect

MAX_LENGTH = 128  # tokens of an example
WARM_UP = 2  # steps
OURS = {"ours": "ours", "compiled": "ours, compiled"}
LORA = LoraSpec(r=16, alpha=32, dropout=0.05)
END = 50256  # GPT-2's end of sequence
VOCABULARY = {"sft": 50257, "dpo": 50257, "kto": 50257, "classification": 30522}
BATCH = {"sft": 4, "dpo": 4, "kto": 8, "classification": 16}
VARIANTS = {
    "sft": {
        **OURS,
        "trl": "trl with default settings (checkpointing, bf16)",
        "tuned": "trl tuned (no checkpointing, bf16, grouped lengths)",
    },
    "dpo": {
        **OURS,
        "trl": "trl with default settings (checkpointing, bf16)",
        "tuned": "trl tuned (no checkpointing, bf16, grouped lengths)",
        "precomputed": "trl tuned, and its reference precomputed",
    },
    "kto": {
        **OURS,
        "trl": "trl with default settings (checkpointing, bf16)",
        "tuned": "trl tuned (no checkpointing, bf16)",
        "precomputed": "trl tuned, and its reference precomputed",
    },
    "classification": {
        **OURS,
        "trainer": "Trainer with default settings (float32)",
        "tuned": "Trainer tuned (bf16, grouped lengths)",
    },
}
Case = tuple[str, str]
"""Objective and variant."""
Times = tuple[float, float]
"""Wall-clock and processor seconds; the latter are reliable with one thread on a busy machine."""


@dataclass
class Steps:
    """End of each step of a process, in seconds, and the tokens of each batch."""

    ends: list[Times] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    reference: Times = (0.0, 0.0)  # spent on all pairs, before the first step


@dataclass(frozen=True)
class Result:
    """Figures of one process of one variant, or medians of several."""

    tokens_per_s: float
    tokens_per_cpu_s: float
    seconds_per_step: float
    peak_mib: float
    tokens: float  # of all batches: the same for all variants


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20, help="steps that are counted")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--only", choices=sorted(VARIANTS))
    parser.add_argument("--compiled", action="store_true", help="also run ours with torch.compile")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--variant", nargs=2, help=argparse.SUPPRESS)  # in a process of its own
    arguments = parser.parse_args()
    if arguments.variant:
        print(json.dumps(asdict(measure((arguments.variant[0], arguments.variant[1]), arguments))))
        return
    names = [arguments.only] if arguments.only else list(VARIANTS)
    cases = [
        (name, variant)
        for name in names
        for variant in VARIANTS[name]
        if variant != "compiled" or arguments.compiled
    ]
    runs: dict[Case, list[Result]] = {case: [] for case in cases}
    for _ in range(arguments.runs):
        for case in cases:
            runs[case].append(run_in_subprocess(case, arguments))
            print(*case, runs[case][-1], file=sys.stderr, flush=True)
    for name in names:  # all variants read the same data
        assert len({r.tokens for case in cases if case[0] == name for r in runs[case]}) == 1
    medians = {case: median_result(results) for case, results in runs.items()}
    if arguments.json:
        print(json.dumps({" ".join(case): asdict(r) for case, r in medians.items()}, indent=1))
    else:
        print_table(medians)


def run_in_subprocess(case: Case, arguments: argparse.Namespace) -> Result:
    """Run a variant in a new process, which prints its result in its last line."""
    command = [sys.executable, "-m", "benchmarks.training", "--variant", *case]
    threads = {"OMP_NUM_THREADS": str(arguments.threads)}
    quiet = {"TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        [*command, "--steps", str(arguments.steps), "--threads", str(arguments.threads)],
        env=os.environ | threads | quiet,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{case} failed:\n{done.stderr[-3000:]}")
    return Result(**json.loads(done.stdout.strip().splitlines()[-1]))


def median_result(results: Sequence[Result]) -> Result:
    columns = zip(*(asdict(r).values() for r in results), strict=True)
    return Result(*(median(column) for column in columns))


def print_table(results: dict[Case, Result]) -> None:
    """Print a table in Markdown; ratios are those of tokens per second."""
    print("| objective | variant | tokens/s | s/step | peak MiB | ours is | in processor time |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for (name, variant), result in results.items():
        best = results[name, "ours"]
        wall = best.tokens_per_s / result.tokens_per_s
        cpu = best.tokens_per_cpu_s / result.tokens_per_cpu_s
        print(
            f"| {name} | {VARIANTS[name][variant]} | {result.tokens_per_s:.0f} | "
            f"{result.seconds_per_step:.2f} | {result.peak_mib:.0f} | "
            + ("| |" if variant == "ours" else f"{wall:.2f} × | {cpu:.2f} × |")
        )


def measure(case: Case, arguments: argparse.Namespace) -> Result:
    """Train in this process and return the figures.

    The time of the reference log-probabilities is distributed over all steps.
    """
    name, variant = case
    torch.set_num_threads(arguments.threads)
    total_steps = arguments.steps + WARM_UP
    examples = EXAMPLES[name](total_steps * BATCH[name])
    with tempfile.TemporaryDirectory() as folder:
        train = ours if variant in OURS else TRAINERS[name]
        steps = train(name, variant, examples, folder)
    if len(steps.ends) != total_steps or len(steps.tokens) < total_steps:
        raise SystemExit(f"{case}: {len(steps.ends)} steps, {len(steps.tokens)} batches")
    share = arguments.steps / total_steps
    seconds, cpu = (
        end - begin + reference * share
        for begin, end, reference in zip(
            steps.ends[WARM_UP - 1], steps.ends[-1], steps.reference, strict=True
        )
    )
    tokens = sum(steps.tokens[WARM_UP:total_steps])
    return Result(
        tokens_per_s=tokens / seconds,
        tokens_per_cpu_s=tokens / cpu,
        seconds_per_step=seconds / arguments.steps,
        peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        tokens=sum(steps.tokens[:total_steps]),
    )


def now() -> Times:
    """Return wall-clock and processor seconds of this process."""
    return time.perf_counter(), time.process_time()


def since(start: Times) -> Times:
    wall, cpu = now()
    return wall - start[0], cpu - start[1]


# Data: random ids, which cost as much as words


def sft_examples(n: int) -> list[TokenisedExample]:
    """Return examples of 24 to 128 tokens, of which 30 to 70 % are the prompt, both uniform."""
    rng = Random("sft")
    examples = []
    for _ in range(n):
        length = rng.randint(24, MAX_LENGTH)
        prompt_length = round(length * rng.uniform(0.3, 0.7))
        examples.append(
            make_example(
                _ids(rng, prompt_length), [*_ids(rng, length - prompt_length - 1), END], length
            )
        )
    return examples


def dpo_examples(n: int) -> list[dpo.TokenisedPair]:
    """Return pairs with prompts of 12 to 56 tokens and answers of 12 to 72."""
    rng = Random("dpo")
    pairs = []
    for _ in range(n):
        prompt_ids = _ids(rng, rng.randint(12, 56))
        answers = [[*_ids(rng, rng.randint(11, 71)), END] for _ in range(2)]
        pairs.append(
            dpo.TokenisedPair(
                *(make_example(prompt_ids, answer, len(answer)) for answer in answers)
            )
        )
    return pairs


def kto_examples(n: int) -> list[kto.TokenisedRating]:
    """Return both answers of the pairs of `dpo`, rated; each beside the answer to the next one."""
    pairs = dpo_examples(n // 2)
    answers = [
        (each, good) for p in pairs for each, good in ((p.chosen, True), (p.rejected, False))
    ]
    return [
        kto.TokenisedRating(answer, _mismatched(answer, answers[(i + 1) % n][0]), good)
        for i, (answer, good) in enumerate(answers)
    ]


def _mismatched(answer: TokenisedExample, other: TokenisedExample) -> TokenisedExample:
    prompt_length = len(answer.input_ids) - answer.target_count
    response = other.input_ids[-other.target_count :]
    return make_example(answer.input_ids[:prompt_length], response, len(response))


def classification_examples(n: int) -> list[TokenisedText]:
    """Return texts of 12 to 128 tokens and two classes."""
    rng = Random("classification")
    return [
        TokenisedText(tuple(_ids(rng, rng.randint(12, MAX_LENGTH))), rng.randint(0, 1))
        for _ in range(n)
    ]


def _ids(rng: Random, n: int) -> list[int]:
    return [rng.randint(1000, 30000) for _ in range(n)]


EXAMPLES: dict[str, Callable[[int], Sequence[Any]]] = {
    "sft": sft_examples,
    "dpo": dpo_examples,
    "kto": kto_examples,
    "classification": classification_examples,
}


# Models and training


def make_model(name: str) -> Any:
    """Return GPT-2 small (124M), or an encoder of MiniLM's shape (6 layers of 384; 23M)."""
    torch.manual_seed(0)
    if name != "classification":
        return GPT2LMHeadModel(GPT2Config())
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=VOCABULARY[name],
            hidden_size=384,
            num_hidden_layers=6,
            num_attention_heads=12,
            intermediate_size=1536,
        )
    )


def ours(name: str, variant: str, examples: Sequence[Any], folder: str) -> Steps:
    """Train with `learning.training.loop`, as workers do, with this machine's fastest precision."""
    del folder
    threads = torch.get_num_threads()
    compute = detect("cpu")
    torch.set_num_threads(threads)  # `detect` takes all cores
    model = lora.attach(make_model(name), None if name == "classification" else LORA, seed=0)
    if variant == "compiled":
        compile_blocks(model)
    steps = Steps()
    if name in ("dpo", "kto"):
        start = now()
        module = dpo if name == "dpo" else kto
        reference = module.log_probabilities(model, examples, autocast=compute.autocast)
        examples = [*map(module.with_reference, examples, reference)]
        steps.reference = since(start)

    def on_step(report: loop.StepReport) -> bool:
        steps.ends.append(now())
        steps.tokens.append(report.tokens - sum(steps.tokens))
        return True

    training = LocalTraining(epochs=1, batch_size=BATCH[name], lr=1e-4, max_length=MAX_LENGTH)
    labels = ("0", "1") if name == "classification" else ()
    objective = registry.make_objective(name, labels=labels)  # type: ignore[arg-type]
    loop.train(model, objective, examples, training, on_step, autocast=compute.autocast)
    return steps


def train_sft(name: str, variant: str, examples: Sequence[TokenisedExample], folder: str) -> Steps:
    from trl import SFTConfig, SFTTrainer

    rows = [{"input_ids": list(e.input_ids), "labels": list(e.labels)} for e in examples]
    grouped = {"train_sampling_strategy": "group_by_length"}
    arguments = SFTConfig(
        **_common_options(folder, name),
        **_tuned_options(variant),
        **(grouped if variant == "tuned" else {}),
    )
    trainer = SFTTrainer(
        model=make_model(name),
        args=arguments,
        train_dataset=_dataset(rows),
        processing_class=number_tokenizer(name),
        peft_config=_lora_config(),
    )
    return _run(trainer)


def train_dpo(name: str, variant: str, pairs: Sequence[dpo.TokenisedPair], folder: str) -> Steps:
    """Train with the DPOTrainer of trl.

    It reads only text: ids are written as numbers, which are the words of its tokenizer.
    """
    from trl import DPOConfig, DPOTrainer

    rows = []
    for pair in pairs:
        prompt_length = len(pair.chosen.input_ids) - pair.chosen.target_count
        chosen, rejected = (
            _text(p.input_ids[prompt_length:-1]) for p in (pair.chosen, pair.rejected)
        )
        prompt = _text(pair.chosen.input_ids[:prompt_length]) + " "
        row = {"prompt": prompt, "chosen": chosen, "rejected": rejected, "length": pair.length}
        rows.append(row)
    steps = Steps()

    class Timed(DPOTrainer):
        def _precompute_ref_logps(self, *args: Any, **kwargs: Any) -> Any:
            start = now()
            result = super()._precompute_ref_logps(*args, **kwargs)
            steps.reference = since(start)
            return result

    # With unused columns removed, the sampler would not get the lengths.
    grouped = {"train_sampling_strategy": "group_by_length", "remove_unused_columns": False}
    precompute = {"precompute_ref_log_probs": True, "precompute_ref_batch_size": 8}
    trainer = Timed(
        model=make_model(name),
        args=DPOConfig(
            **_common_options(folder, name),
            **_tuned_options(variant),
            **({} if variant == "trl" else grouped),
            **(precompute if variant == "precomputed" else {}),
        ),
        train_dataset=_dataset(rows),
        processing_class=number_tokenizer(name),
        peft_config=_lora_config(),
    )
    return _run(trainer, steps)


def train_kto(
    name: str, variant: str, ratings: Sequence[kto.TokenisedRating], folder: str
) -> Steps:
    """Train with the KTOTrainer of trl, which reads text as its DPOTrainer does."""
    from trl.experimental.kto import KTOConfig, KTOTrainer

    rows = []
    for rating in ratings:
        prompt_length = len(rating.answer.input_ids) - rating.answer.target_count
        prompt = _text(rating.answer.input_ids[:prompt_length]) + " "
        completion = _text(rating.answer.input_ids[prompt_length:-1])
        rows.append({"prompt": prompt, "completion": completion, "label": rating.good})
    steps = Steps()

    class Timed(KTOTrainer):
        def _precompute_ref_logps(self, *args: Any, **kwargs: Any) -> Any:
            start = now()
            result = super()._precompute_ref_logps(*args, **kwargs)
            steps.reference = since(start)
            return result

    precompute = {"precompute_ref_log_probs": True, "precompute_ref_batch_size": 8}
    trainer = Timed(
        model=make_model(name),
        args=KTOConfig(
            **_common_options(folder, name),
            **_tuned_options(variant),
            **(precompute if variant == "precomputed" else {}),
        ),
        train_dataset=_dataset(rows),
        processing_class=number_tokenizer(name),
        peft_config=_lora_config(),
    )
    return _run(trainer, steps)


def train_classification(
    name: str, variant: str, texts: Sequence[TokenisedText], folder: str
) -> Steps:
    from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

    rows = [{"input_ids": list(text.input_ids), "labels": text.label} for text in texts]
    tuned = {"bf16": True, "train_sampling_strategy": "group_by_length"}
    tokenizer = number_tokenizer(name)
    trainer = Trainer(
        model=make_model(name),
        args=TrainingArguments(
            **_common_options(folder, name), **(tuned if variant == "tuned" else {})
        ),
        train_dataset=_dataset(rows),
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
    )
    return _run(trainer)


TRAINERS: dict[str, Callable[..., Steps]] = {
    "sft": train_sft,
    "dpo": train_dpo,
    "kto": train_kto,
    "classification": train_classification,
}


def _run(trainer: Any, steps: Steps | None = None) -> Steps:
    """Train one pass, and record the end of each step and the tokens of each batch."""
    from transformers import TrainerCallback

    steps = steps or Steps()
    collate = trainer.data_collator

    def count_tokens(rows: Any) -> Any:
        batch = collate(rows)
        steps.tokens.append(int(batch["attention_mask"].sum()))
        return batch

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            steps.ends.append(now())

    trainer.data_collator = count_tokens
    trainer.add_callback(Clock())
    trainer.train()
    return steps


def _common_options(folder: str, name: str) -> dict[str, Any]:
    """Return the options that all share. Nothing is written or printed, which would cost time."""
    return {
        "output_dir": folder,
        "use_cpu": True,
        "per_device_train_batch_size": BATCH[name],
        "num_train_epochs": 1,
        "learning_rate": 1e-4,
        "logging_steps": 10_000,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def _tuned_options(variant: str) -> dict[str, Any]:
    if variant == "trl":
        return {}
    return {"gradient_checkpointing": False, "bf16": True, "max_length": MAX_LENGTH}


def _lora_config() -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=LORA.r,
        lora_alpha=LORA.alpha,
        lora_dropout=LORA.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
        fan_in_fan_out=True,
    )


def _dataset(rows: Sequence[dict[str, Any]]) -> Any:
    from datasets import Dataset

    return Dataset.from_list(list(rows))


def _text(ids: Sequence[int]) -> str:
    return " ".join(map(str, ids))


def number_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """Return a tokenizer whose words are the numbers of its ids."""
    words = {str(i): i for i in range(VOCABULARY[name])}
    core = Tokenizer(models.WordLevel(words, unk_token="0"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    end = str(min(END, VOCABULARY[name] - 1))
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token=end, pad_token=end)


if __name__ == "__main__":
    main()
