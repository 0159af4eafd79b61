"""Runnable part of a model card: Python code and a command that load the export.

A test runs every snippet in the export's own directory. `evaluation/export/card.py` includes them.
"""

from __future__ import annotations

from dataclasses import dataclass

from common.protocol.fields import ObjectiveName, QuantizationName
from learning.models.export import BASE_FOLDER, ExportSummary

_GENERATE = """\
messages = [{"role": "user", "content": "Name three primary colours."}]
prompt = tokenizer.apply_chat_template(
    messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"
)
ids = prompt["input_ids"]
with torch.inference_mode():
    out = model.generate(
        input_ids=ids, attention_mask=prompt["attention_mask"], max_new_tokens=60
    )
answer = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
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

_BITS = {"nf4": 'load_in_4bit=True, bnb_4bit_quant_type="nf4"', "int8": "load_in_8bit=True"}


@dataclass(frozen=True)
class LoadingInfo:
    """The properties of an export on which the snippets depend."""

    objective: ObjectiveName  # of the first phase
    labels: tuple[str, ...]  # class names of a model that classifies
    max_length: int  # tokens of a text in training
    written: ExportSummary
    revision: str | None  # of a base on the hub
    quantization: QuantizationName = "none"  # of the base in training

    @property
    def classifies(self) -> bool:
        return self.objective == "classification"


def build_loading_snippet(info: LoadingInfo) -> str:
    """Return Python code that loads the export and runs it once."""
    if info.classifies:
        return f"{_imports(info)}\n{_load(info)}\n{_CLASSIFY.format(max_length=info.max_length)}"
    return f"{_imports(info)}\n{_load(info)}\n{_GENERATE}"


def build_lm_eval_command(info: LoadingInfo) -> str | None:
    """Return the command of EleutherAI's harness; None for a model that it cannot measure."""
    if info.classifies:
        return None
    # `tokenizer`: ours has a padding token, which the base's may lack.
    written = info.written
    revision = f",revision={info.revision}" if info.revision and _on_hub(written) else ""
    model = f"{written.base}{revision},peft=.,tokenizer=." if written.adapter else "."
    return (
        f"lm_eval --model hf --model_args pretrained={model},dtype={written.precision}"
        " --tasks hellaswag --device cpu --batch_size 8"
    )


def _on_hub(written: ExportSummary) -> bool:
    return written.adapter and not written.base.startswith("./")


def _auto(info: LoadingInfo) -> str:
    return "AutoModelForSequenceClassification" if info.classifies else "AutoModelForCausalLM"


def _imports(info: LoadingInfo) -> str:
    if not info.written.plain:
        first = "from pathlib import Path\n\n"
        ours = "from learning.models.encoders import load_whole  # of fccl: heads were pruned\n"
        peft = "from peft import PeftModel\n" if info.written.adapter else ""
        return f"{first}import torch\n{ours}{peft}"
    peft = "from peft import PeftModel\n" if info.written.adapter else ""
    names = [_auto(info), "AutoTokenizer"]
    if info.written.adapter and not info.classifies:
        names.append("GenerationConfig")
    return f"import torch\n{peft}from transformers import {', '.join(names)}\n"


def _load(info: LoadingInfo) -> str:
    written = info.written
    start = 'folder = "."  # where this file lies\n'
    place = f"{{folder}}/{BASE_FOLDER}" if written.base.startswith("./") else written.base
    if not written.plain:
        where = f'Path(folder) / "{BASE_FOLDER}"' if written.adapter else "Path(folder)"
        lines = f'loaded = load_whole({where}, torch.device("cpu"))\n'
        lines += "model, tokenizer = loaded.model, loaded.tokenizer\n"
    else:
        lines = "tokenizer = AutoTokenizer.from_pretrained(folder)\n"
        where = "folder" if not written.adapter else _literal(place)
        lines += f"model = {_auto(info)}.from_pretrained({where}{_options(info)})\n"
    if written.adapter:
        if info.quantization != "none":
            bits = _BITS[info.quantization]
            lines += (
                f"# trained on the base in {info.quantization}; for less memory load it with\n"
                f"# quantization_config=BitsAndBytesConfig({bits})\n"
            )
        lines += "model = PeftModel.from_pretrained(model, folder)\n"
        if not info.classifies:  # where answers end, which the base may not know
            lines += "model.generation_config = GenerationConfig.from_pretrained(folder)\n"
    return f"{start}{lines}model.eval()\n"


def _options(info: LoadingInfo) -> str:
    """Return arguments for loading a base; a merged model needs none."""
    if not info.written.adapter:
        return ""
    options = ', dtype="float32"'
    if _on_hub(info.written) and info.revision:
        options += f', revision="{info.revision}"'
    if info.classifies and not info.written.base_included:
        names = dict(enumerate(info.labels))
        numbers = {name: number for number, name in names.items()}
        options += f",\n    id2label={names!r},\n    label2id={numbers!r},\n"
    return options


def _literal(place: str) -> str:
    return f'f"{place}"' if place.startswith("{folder}") else repr(place)
