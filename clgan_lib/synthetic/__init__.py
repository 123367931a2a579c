"""The embedded data set: the paper's eight products, drawn by program, good and with defects, with exact masks.

It serves tests, lessons and the quick experiment, none of which can download anything. It imports nothing of the library,
and the library uses only what stands here, so that no training code shares its defects with the test images.
"""

from clgan_lib.synthetic.dataset import CATEGORIES, DEFECTS, VERSION, draw, write_dataset

__all__ = ["CATEGORIES", "DEFECTS", "VERSION", "draw", "write_dataset"]
