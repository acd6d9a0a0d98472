"""Write the small golden sets anew: `python -m tests.golden.regen`.

The oracles share nothing with the product: numpy in fp64, loops, the methods read literally. File
and array names are those of the full sets made with the official code, so that one handler
compares both.
"""

from pathlib import Path

from tests.golden.oracles.dtd import dtd
from tests.golden.oracles.evs import evs
from tests.golden.oracles.fastv import fastv
from tests.golden.oracles.prumerge import prumerge
from tests.golden.oracles.rlt import rlt
from tests.golden.oracles.tome import tome

HERE = Path(__file__).resolve().parent

if __name__ == "__main__":
    for oracle in (dtd, evs, fastv, prumerge, rlt, tome):
        oracle(HERE / oracle.__name__)
