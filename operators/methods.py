"""Every method there is: an import here is all that makes an operator known by its name."""
# ruff: noqa: F401 - the imports are the list

from operators.dtd import DTD
from operators.evs import EVS
from operators.fastv import FastV
from operators.framedrop import FrameDrop
from operators.prumerge import PruMerge
from operators.randomdrop import RandomDrop
from operators.rlt import RLT
from operators.tome import ToMe
