"""The tables of all settings in docs/deployment.md: `python -m tests.settings_table` writes them.

They are made from `streamer/config.py`; a unit test fails when they are stale.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from streamer.config import PoolsSettings, Settings

DOCUMENT = Path(__file__).parents[1] / "docs" / "deployment.md"
START, END = "<!-- settings: begin -->", "<!-- settings: end -->"
POOL = "pools.<kind>"


def settings_tables() -> str:
    """Markdown: a table for each section, and one for what lies in none."""
    sections = {
        name: field.annotation
        for name, field in Settings.model_fields.items()
        if _is_section(field.annotation)
    }
    alone = [(n, f) for n, f in Settings.model_fields.items() if n not in sections]
    text = _table("Without a section", "", alone)
    for name, section in sections.items():
        assert section is not None
        assert section.__doc__, name
        text += _table(f"`{name}`", " ".join(section.__doc__.split()), _rows(section, name))
    return text


def in_document(document: str) -> str:
    """The document with its tables as they should be."""
    before, _, rest = document.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}\n\n{settings_tables()}{END}{after}"


def _table(title: str, lead: str, rows: list[tuple[str, FieldInfo]]) -> str:
    lines = [f"### {title}", "", *([lead, ""] if lead else [])]
    lines += ["| setting | default | allowed | |", "|---|---|---|---|"]
    for path, field in rows:
        cells = [f"`{path}`", _default(field), _allowed(field), field.description or ""]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join([*lines, "", ""])


def _rows(section: Any, path: str) -> list[tuple[str, FieldInfo]]:
    if section is PoolsSettings:  # the three are alike
        return _rows(PoolsSettings.model_fields["decode"].annotation, POOL)
    found = []
    for name, field in section.model_fields.items():
        found.append((f"{path}.{name}", field))
        for entry in filter(_is_section, get_args(field.annotation)):
            found += _rows(entry, f"{path}.{name}[]")
    return found


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "must be given"
    if field.default is None:
        return ""
    if isinstance(field.default, tuple):
        return f"`{json.dumps(field.default)}`"
    if isinstance(field.default, bool):
        return f"`{str(field.default).lower()}`"
    return f"`{field.default}`"


def _allowed(field: FieldInfo) -> str:
    kind = (get_args(field.annotation) or (field.annotation,))[0]
    if get_origin(field.annotation) is tuple:
        return "a list"
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(field.annotation))
    if kind is bool:
        return "`true`, `false`"
    limits = ", ".join(_limits(field))
    if kind in (int, float):
        return " ".join(filter(None, ["a whole number" if kind is int else "a number", limits]))
    return limits or ("a path" if kind is Path else "text")


def _limits(field: FieldInfo) -> Iterator[str]:
    for limit in field.metadata:
        match limit:
            case Gt(gt=value):
                yield f"above {value}"
            case Ge(ge=value):
                yield f"from {value}"
            case Le(le=value):
                yield f"to {value}"
            case MinLen(min_length=value):
                yield f"{value} characters or more"
            case _ if pattern := getattr(limit, "pattern", None):
                yield f"`{pattern}`"


if __name__ == "__main__":
    DOCUMENT.write_text(in_document(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
