"""The teaching lab: widgets for a running kernel, exercises with checkers, and how the paper is read.

What widgets show comes from plain functions, which tests and static notebooks share. This wing imports `runs`, `exhibits`,
`render` and the core; nothing imports it but notebooks.
"""

from clgan_lib.lab.browser import RunBrowser, draw_models
from clgan_lib.lab.contrast import PatchExplorer, contrast, draw_contrast, pixel_features
from clgan_lib.lab.explorer import PipelineExplorer, detectors, draw_pipeline, score
from clgan_lib.lab.run_selection import committed_model, finished_runs, read_evaluation
from clgan_lib.lab.stepper import LossStepper, Steps, draw_steps
from clgan_lib.lab.trace import weights

__all__ = [
    "LossStepper", "PatchExplorer", "PipelineExplorer", "RunBrowser", "Steps", "committed_model", "contrast",
    "detectors", "draw_contrast", "draw_models", "draw_pipeline", "draw_steps", "finished_runs", "pixel_features",
    "read_evaluation", "score", "weights",
]  # fmt: skip
