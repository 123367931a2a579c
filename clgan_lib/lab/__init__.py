"""The teaching lab: widgets for a running kernel. What they show are plain functions that tests and notebooks share."""

from clgan_lib.lab.browser import RunBrowser, draw_models
from clgan_lib.lab.contrast import PatchExplorer, contrast, draw_contrast, pixel_features
from clgan_lib.lab.explorer import PipelineExplorer, detectors, draw_pipeline, score
from clgan_lib.lab.sources import finished_runs, read_evaluation
from clgan_lib.lab.stepper import LossStepper, Steps, draw_steps
from clgan_lib.lab.trace import weights

__all__ = ["LossStepper", "PatchExplorer", "PipelineExplorer", "RunBrowser", "Steps", "contrast", "detectors"]
__all__ += ["draw_contrast", "draw_models", "draw_pipeline", "draw_steps", "finished_runs", "pixel_features"]
__all__ += ["read_evaluation", "score", "weights"]
