"""Writing a configuration as TOML, as a run directory keeps it."""

from __future__ import annotations

import json
import re

from common.config.config import FederationConfig

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def dump(config: FederationConfig) -> str:
    """Return the configuration as TOML, without comments."""
    lines: list[str] = []
    whole = config.model_dump(mode="json", exclude_none=True)
    whole["model"].setdefault("lora", False)  # TOML has no null
    for name, value in whole.items():
        tables = value if isinstance(value, list) else [value]
        for table in tables:
            lines.append(f"[[{name}]]" if isinstance(value, list) else f"[{name}]")
            nested = {k: v for k, v in table.items() if isinstance(v, dict)}
            lines += [f"{k} = {_literal(v)}" for k, v in table.items() if k not in nested]
            for key, inner in nested.items():
                lines.append(f"[{name}.{_key(key)}]")
                lines += [f"{_key(k)} = {_literal(v)}" for k, v in inner.items()]
            lines.append("")
    return "\n".join(lines)


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else _literal(name)


def _literal(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        # JSON's escapes are TOML's, except for DEL, which JSON does not escape.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return "[" + ", ".join(_literal(item) for item in value) + "]"
    return repr(value)
