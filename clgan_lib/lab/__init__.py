"""The teaching lab: widgets for a running kernel, exercises with checkers, and how the paper is read.

What widgets show comes from plain functions, which tests and static notebooks share. This wing imports `runs`, `exhibits`,
`render` and the core; nothing imports it but notebooks.
"""

from clgan_lib.lab.browser import RunBrowser, draw_models
from clgan_lib.lab.contrast import PatchExplorer, contrast, draw_contrast, pixel_features
from clgan_lib.lab.explorer import PipelineExplorer, detectors, draw_pipeline, score
from clgan_lib.lab.own_image import OwnImage, draw_inspected
from clgan_lib.lab.player import TrainingPlayer, Trainings, draw_trainings
from clgan_lib.lab.readings import source
from clgan_lib.lab.run_selection import committed_model, committed_run, finished_runs, read_evaluation
from clgan_lib.lab.stepper import LossStepper, Steps, draw_steps
from clgan_lib.lab.trace import weights
from clgan_lib.lab.watched import Watched

__all__ = [
    "LossStepper", "OwnImage", "PatchExplorer", "PipelineExplorer", "RunBrowser", "Steps", "TrainingPlayer", "Trainings",
    "Watched", "committed_model", "committed_run", "contrast", "detectors", "draw_contrast", "draw_inspected",
    "draw_models", "draw_pipeline", "draw_steps", "draw_trainings", "finished_runs", "pixel_features", "read_evaluation",
    "score", "source", "weights",
]  # fmt: skip
