"""Every operator with two settings, and one setting under which it changes nothing."""

from dataclasses import dataclass

from operators import RLT, Operator, ToMe


@dataclass(frozen=True, kw_only=True)
class Row:
    name: str
    settings: tuple[Operator, Operator]
    neutral: Operator


MATRIX = [
    Row(
        name="rlt", settings=(RLT(), RLT(threshold=0.5, symmetric=True)), neutral=RLT(threshold=-1)
    ),
    Row(name="tome", settings=(ToMe(), ToMe(keep=0.2)), neutral=ToMe(keep=1)),
]
