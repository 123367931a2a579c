"""The embedded data set: the paper's eight products drawn by program, good and with defects, with exact masks."""

from clgan_lib.synthetic.dataset import VERSION, write_dataset
from clgan_lib.synthetic.drawing import CATEGORIES, DEFECTS, draw

__all__ = ["CATEGORIES", "DEFECTS", "VERSION", "draw", "write_dataset"]
