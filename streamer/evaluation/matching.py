"""Whether what was said is what was expected."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from typing import Literal

Match = Literal["exact", "contains", "regex"]

_ARTICLES = re.compile(r"\b(?:a|an|the)\b|^\s*(?i:a|an|the)\s")
"""In capitals only where a sentence begins: team A is not a team."""
_MINUS = r"(?<!\w)-(?=\d)"
_PUNCTUATION = re.compile(rf"(?!{_MINUS})(?:(?<!\d)[^\w\s]|[^\w\s](?!\d)|_)")
_EMPHASIS = re.compile(r"[*`]+")
_LETTER = re.compile(
    r"(?:(?:the\s+)?(?:correct\s+|best\s+|right\s+)?(?:answer|option|choice)\s*(?:is\b)?\s*:?\s*)?"
    r"[(\[]?(?P<letter>[a-z])"
    r"(?:[)\].:,]+(?=\s|$)|\s*$|[ \t]*\n|\s+[-–—]\s|(?=\s+(?:because|since|as)\b))",
    re.IGNORECASE,
)
_NEXT_LETTER = re.compile(
    r"\W*(?:(?:or|and)\W+)?(?P<letter>[A-Za-z])(?:[)\].:,]|\s*$|\s+(?:or|and)\b)"
)
_OR_LETTER = re.compile(r"\b(?:or|and)\s+[(\[]?(?P<letter>[A-Z])[)\].:](?=\s|$)")


def normal(text: str) -> str:
    """Without case, punctuation (but that of numbers), articles and superfluous spaces."""
    plain = _PUNCTUATION.sub(" ", text.replace("−", "-"))
    for left in (_ARTICLES.sub(" ", plain), plain, text):
        if words := left.casefold().split():
            return " ".join(words)
    return ""


def matches(said: str, answers: Sequence[str], match: Match) -> bool:
    """Whether any of the answers is what was said.

    exact: the same but for case, punctuation and articles; contains: as whole words somewhere in
    it; regex: found in it, in any case of letters.
    """
    if match == "regex":
        return any(re.search(answer, said, re.IGNORECASE) for answer in answers)
    told = normal(said)
    if match == "exact":
        return any(told == normal(answer) for answer in answers)
    return any(f" {normal(answer)} " in f" {told} " for answer in answers)


def lettered(question: str, choices: Sequence[str]) -> str:
    """The question with its choices, as it is put to the model."""
    letters = zip(string.ascii_uppercase, choices, strict=False)
    listed = [f"{letter}. {choice}" for letter, choice in letters]
    return "\n".join([question, *listed, "Answer with the letter of the right choice."])


def chosen(said: str, choices: Sequence[str]) -> int | None:
    """Which choice was meant, by its letter or its text; None if none, or more than one."""
    text = _EMPHASIS.sub("", said).strip()
    same = [i for i, choice in enumerate(choices) if normal(choice) == normal(text)]
    if len(same) == 1:
        return same[0]
    if led := _LETTER.match(text):
        index = _index(led)
        if index < len(choices):
            rest = text[led.end() :]
            also = [_NEXT_LETTER.match(rest), *_OR_LETTER.finditer(rest)]
            others = {_index(other) for other in also if other} - {index}
            return index if all(other >= len(choices) for other in others) else None
    held = [i for i, choice in enumerate(choices) if matches(text, [choice], "contains")]
    return held[0] if len(held) == 1 else None


def _index(found: re.Match[str]) -> int:
    return string.ascii_lowercase.index(found["letter"].lower())
