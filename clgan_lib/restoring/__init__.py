"""CLGAN-R and CLGAN-RC: the paper's idea, trained to remove the defect.

The generator gets good images with synthetic anomalies and must return the good images; a comparator learns which
differences between image and reconstruction are anomalies. Imports the core (`networks`, `losses`, `model`, `layers`,
`data`, `augment`, `similarity`, `calibration`); nothing of another wing, and not the paper's own `clgan`.
"""
