"""How to load an export: the part of its model card that can be run.

Every snippet is run by a test, in the export's own directory. `coordinator/card` puts them in.
"""

from __future__ import annotations

from dataclasses import dataclass

from common.protocol.fields import ObjectiveName
from learning.models.export import BASE_FOLDER, ExportSummary
from learning.objectives.template import format_prompt

_PROMPT = f"""\
WITH_INPUT = {format_prompt("{instruction}", "{input}")!r}
WITHOUT_INPUT = {format_prompt("{instruction}")!r}
"""

_GENERATE = """\
text = WITHOUT_INPUT.format(instruction="Name three primary colours.")
ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")
with torch.inference_mode():
    out = model.generate(
        input_ids=ids["input_ids"],
        attention_mask=ids["attention_mask"],
        max_new_tokens=60,
        do_sample=False,
        pad_token_id=tokenizer.pad_token_id,
    )
answer = tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
print(answer.strip())
"""

_CLASSIFY = """\
text = "Replace this with a text to classify."
ids = tokenizer(text, truncation=True, max_length={max_length}, return_tensors="pt")
with torch.inference_mode():
    shares = model(**ids).logits.softmax(-1)[0]
answer = model.config.id2label[int(shares.argmax())]
print(answer, float(shares.max()))
"""


@dataclass(frozen=True)
class LoadingInfo:
    """What the snippets depend on.

    Attributes:
        objective: Of the run's first phase.
        labels: Class names, where it classifies.
        max_length: Tokens of a text in training.
        written: What lies in the directory.
        revision: Of a base on the hub.
    """

    objective: ObjectiveName
    labels: tuple[str, ...]
    max_length: int
    written: ExportSummary
    revision: str | None

    @property
    def classifies(self) -> bool:
        """Whether the model classifies."""
        return self.objective == "classification"


def loading_snippet(of: LoadingInfo) -> str:
    """Python that loads the export and asks it something."""
    if of.classifies:
        return f"{_imports(of)}\n{_load(of)}\n{_CLASSIFY.format(max_length=of.max_length)}"
    return f"{_imports(of)}\n{_load(of)}\n{_PROMPT}\n{_GENERATE}"


def lm_eval_command(of: LoadingInfo) -> str | None:
    """The command of EleutherAI's harness; None for what it cannot measure."""
    if of.classifies:
        return None
    # `tokenizer`: ours has a padding token, which the base's may lack.
    written = of.written
    revision = f",revision={of.revision}" if of.revision and _on_hub(written) else ""
    model = f"{written.base}{revision},peft=.,tokenizer=." if written.adapter else "."
    return (
        f"lm_eval --model hf --model_args pretrained={model},dtype={written.precision}"
        " --tasks hellaswag --device cpu --batch_size 8"
    )


def _on_hub(written: ExportSummary) -> bool:
    return written.adapter and not written.base.startswith("./")


def _auto(of: LoadingInfo) -> str:
    return "AutoModelForSequenceClassification" if of.classifies else "AutoModelForCausalLM"


def _imports(of: LoadingInfo) -> str:
    if not of.written.plain:
        first = "from pathlib import Path\n\n"
        ours = "from learning.models.encoders import load_whole  # of fccl: heads were pruned\n"
        peft = "from peft import PeftModel\n" if of.written.adapter else ""
        return f"{first}import torch\n{ours}{peft}"
    peft = "from peft import PeftModel\n" if of.written.adapter else ""
    return f"import torch\n{peft}from transformers import {_auto(of)}, AutoTokenizer\n"


def _load(of: LoadingInfo) -> str:
    written = of.written
    start = 'folder = "."  # where this file lies\n'
    place = f"{{folder}}/{BASE_FOLDER}" if written.base.startswith("./") else written.base
    if not written.plain:
        where = f'Path(folder) / "{BASE_FOLDER}"' if written.adapter else "Path(folder)"
        lines = f'loaded = load_whole({where}, torch.device("cpu"))\n'
        lines += "model, tokenizer = loaded.model, loaded.tokenizer\n"
    else:
        lines = "tokenizer = AutoTokenizer.from_pretrained(folder)\n"
        where = "folder" if not written.adapter else _literal(place)
        lines += f"model = {_auto(of)}.from_pretrained({where}{_options(of)})\n"
    if written.adapter:
        lines += "model = PeftModel.from_pretrained(model, folder)\n"
    return f"{start}{lines}model.eval()\n"


def _options(of: LoadingInfo) -> str:
    """What a base needs to be told; a merged model knows."""
    if not of.written.adapter:
        return ""
    options = ', dtype="float32"'
    if _on_hub(of.written) and of.revision:
        options += f', revision="{of.revision}"'
    if of.classifies and not of.written.base_included:
        names = dict(enumerate(of.labels))
        numbers = {name: number for number, name in names.items()}
        options += f",\n    id2label={names!r},\n    label2id={numbers!r},\n"
    return options


def _literal(place: str) -> str:
    return f'f"{place}"' if place.startswith("{folder}") else repr(place)
