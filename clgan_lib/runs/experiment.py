"""Experiments: grids of runs, read from a YAML file in `config/` and checked before the first run."""

import itertools
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from clgan_lib.paths import experiment_file
from clgan_lib.runs.config import RunConfig, one_line


class Experiment(BaseModel):
    """A grid of runs: ``config/<name>.yaml``.

    ```yaml
    title: purpose of this experiment, in one sentence
    categories: [bottle, tile]
    seeds: [0]
    settings: {image_size: 64, budget: 2000}   # fields of RunConfig, for every run
    models:
      clgan: {options: {width: 16}}            # fields of RunConfig, for this model; {} for defaults
      blur: {}
      wide: {model: clgan, options: {width: 64}}  # the same model again: the entry's key is the variant's name
    leave_out: {metal_nut: [flip]}             # defect types left out of a category's scores
    real_data: true                            # a title that names a data set: no run without data_root
    ablation: {wider: [clgan, wide]}           # groups of entries; `23_ablation` holds each against the first of its group
    ```
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str
    title: str = ""
    categories: list[str]
    seeds: list[int] = [0]
    settings: dict[str, Any] = {}
    models: dict[str, dict[str, Any] | None]
    leave_out: dict[str, list[str]] = {}
    real_data: bool = False
    ablation: dict[str, list[str]] = {}

    @classmethod
    def load(cls, path: str | Path, **overrides: Any) -> Self:
        """Read an experiment; its name is the file's.

        Args:
            path: a YAML file, or the bare name of one in ``config/``.
            overrides: settings that win over the file's, such as ``data_root``.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: naming file and field that cannot be.
        """
        path = experiment_file(path)
        try:
            loaded = yaml.safe_load(path.read_text(encoding="utf8"))
            if not isinstance(loaded, dict):
                raise ValueError("expected fields such as categories and models")
            loaded["settings"] = {**(loaded.get("settings") or {}), **overrides}
            experiment = cls(name=path.stem, **loaded)
            experiment._check()
        except yaml.YAMLError as error:
            raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
        except ValidationError as error:
            raise ValueError(f"{path}: {one_line(error, list(cls.model_fields))}") from None
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"{path}: {error}") from None
        if not experiment.runs():
            raise ValueError(f"{path}: categories, seeds and models: each needs at least one entry")
        return experiment

    def runs(self) -> list[RunConfig]:
        """Every run of the grid, in the order of the file."""
        return [self.run(*cell) for cell in itertools.product(self.models, self.categories, self.seeds)]

    def require_data(self) -> None:
        """Refuse to train on the embedded data under the name of a real data set.

        Raises:
            ValueError: if the experiment is about real data and no data root is given.
        """
        if self.real_data and not all(run.data_root for run in self.runs()):
            raise ValueError(
                f"experiment {self.name!r} is about real images: give their folder, DATA=/path/to/mvtec_ad"
            )

    def run(self, model: str, category: str, seed: int) -> RunConfig:
        """One run of the grid; the model's settings win over the experiment's."""
        entry = self.models[model] or {}
        named = {"variant": model} if "model" in entry else {"model": model}
        own = {**entry, **named, "experiment": self.name, "category": category, "seed": seed}
        left_out = {"leave_out": self.leave_out[category]} if category in self.leave_out else {}
        return RunConfig(**{**self.settings, **left_out, **own})

    def _check(self) -> None:
        """Check each run's settings, that no two share a folder, and that the ablation's groups name entries."""
        folders: dict[str, str] = {}
        for run in self.runs():
            folder = str(run.folder).casefold()  # some file systems do not tell upper case from lower
            if folder in folders:
                raise ValueError(
                    f"models: {folders[folder]!r} and {run.row!r} would share a folder on {run.category}, seed {run.seed}; "
                    "rename one, or list category and seed once"
                )
            folders[folder] = run.row
        rows = dict.fromkeys(folders.values())
        for group, members in self.ablation.items():
            for member in members:
                if member not in rows:
                    raise ValueError(f"ablation: {group}: {member!r} is no entry of models: {', '.join(rows)}")
            if len(set(members)) < max(2, len(members)):
                raise ValueError(f"ablation: {group}: expected at least two entries, each once, the base first")
