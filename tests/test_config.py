"""Settings: what is unknown or impossible is refused by name, before anything runs."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import pytest

from clgan_lib.paths import ROOT
from clgan_lib.runs.config import RunConfig
from clgan_lib.runs.experiment import Experiment
from clgan_lib.runs.fingerprint import training_code


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"imagesize": 64}, "'imagesize' is not a parameter; did you mean 'image_size'"),
        ({"category": "../x"}, "category: '../x' cannot name a folder"),
        ({"experiment": "a/b"}, "experiment: 'a/b'"),
        ({"experiment": "paper"}, "'paper' holds the published numbers"),
        ({"k": -1}, "k: .*greater than or equal to 0, got -1"),
        ({"k": float("nan")}, "k: .*nan"),
        ({"budget": float("inf")}, "budget: .*inf"),
        ({"budget_unit": "parsecs"}, "budget_unit: .*'parsecs'"),
        ({"quantile": 1.0}, "quantile"),
        ({"holdout": 1}, "holdout"),
        ({"seed": "0"}, "seed: .*integer, got '0'"),
        ({"seed": 0.5}, "seed"),
        ({"symmetry": "mirror"}, "symmetry: 'mirror' is unknown; use auto, none"),
        ({"image_size": 8}, "image_size"),
        ({"variant": "a/b"}, "variant: 'a/b' cannot name a folder"),
        ({"variant": "udcae"}, "variant: 'udcae' is the name of another model"),
        ({"variant": "Tables"}, "variant: 'Tables' is the name of another model or of a folder of results"),
        ({"k": -1, "colour": 3}, "k: .*; 'colour' is not a parameter"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(fields: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        RunConfig(**fields)
    assert "\n" not in str(caught.value)


def test_a_notebook_s_plain_values_are_its_parameters() -> None:
    ipython = {"In": ["", ""], "Out": {}, "get_ipython": print, "exit": object, "quit": object, "_": 3, "Path": Path}
    assert RunConfig.from_notebook({**ipython, "model": "blur", "k": 2, "os": pytest}).k == 2.0
    with pytest.raises(ValueError, match="'catgory' is not a parameter; did you mean 'category'"):
        RunConfig.from_notebook({**ipython, "catgory": "tile"})


def test_numbers_survive_json(tmp_path: Path) -> None:
    config = RunConfig(model="blur", budget=5, options={"sigma": 0.1}, leave_out=["flip"], results_root=str(tmp_path))
    again = RunConfig.model_validate_json(config.model_dump_json())
    assert again == config and again.fingerprint() == config.fingerprint()
    assert config.folder == tmp_path / "scratch" / "blur" / "bottle" / "seed0"


def test_the_fingerprint_follows_what_decides_the_weights() -> None:
    base = RunConfig()
    assert (
        RunConfig(k=2.0, quantile=0.9, experiment="other", threads=2, variant="v").fingerprint() == base.fingerprint()
    )
    for change in ({"seed": 1}, {"budget": 3}, {"options": {"width": 8}}, {"model": "blur"}, {"symmetry": "none"}):
        assert RunConfig(**change).fingerprint() != base.fingerprint(), change
    assert RunConfig(symmetry="quarters+flips").fingerprint() == base.fingerprint()  # what auto means for a bottle


def test_the_fingerprint_follows_the_code_that_the_training_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {name: training_code(name) for name in ("clgan", "udcae")}
    read = Path.read_text
    for edited, changed in {
        "losses": {"clgan"},
        "common": {"udcae"},
        "training": {"clgan", "udcae"},
        "checkpoint": {"clgan", "udcae"},
        "objects": {"clgan", "udcae"},  # of the embedded data, imported through its package
        "figures": set(),
    }.items():
        for more, expected in {"edited = 1": changed, "# edited": set(), "'edited'": set()}.items():

            def edit(path: Path, name: str = edited, more: str = more, **how: str) -> str:
                return read(path, **how) + f"\n{more}" * (path.stem == name)  # type: ignore[arg-type]

            monkeypatch.setattr(Path, "read_text", edit)
            found = {name for name in before if training_code(name) != before[name]}
            assert found == expected, (edited, more)


MODEL = """
from outer.bases import Base
from . import helpers
from .. import tools
class Mine(Base):
    pass
"""
OUTSIDE = {  # a reader's own model and what it is made of: each line of it counts
    "outer/__init__.py": "import outer.settings",
    "outer/settings.py": "rate = 1",
    "outer/tools.py": "import neighbour",
    "outer/bases.py": "from clgan_lib.model import ReconstructionModel\nclass Base(ReconstructionModel):\n    pass",
    "outer/inner/__init__.py": "from outer.inner.deep import thing",
    "outer/inner/deep.py": "thing = 1",
    "outer/inner/helpers.py": '"""Prose."""\n\ndef helper():\n    """Prose."""\n    return 1  # prose',
    "outer/inner/model.py": MODEL,
    "neighbour.py": "from clgan_lib.losses import patch_nce_loss",
}


def test_the_fingerprint_follows_packages_bases_and_relative_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in {**OUTSIDE, "outer/unrelated.py": "x = 1"}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    code = partial(training_code, "outer.inner.model:Mine")
    before = code()
    for name, text in OUTSIDE.items():
        (tmp_path / name).write_text(text + "\nedited = 1\n")
        assert code() != before, name
        (tmp_path / name).write_text(text + "\n# edited\n")
        assert code() == before, name
    (tmp_path / "outer/unrelated.py").write_text("y = 2")
    assert code() == before
    helpers = tmp_path / "outer/inner/helpers.py"
    helpers.write_text(helpers.read_text().replace("Prose", "Other words").replace("# prose", "# another comment"))
    assert code() == before
    helpers.write_text(helpers.read_text().replace("return 1", "return 2"))
    assert code() != before
    for name in [name for name in sys.modules if name.partition(".")[0] in ("outer", "neighbour")]:
        del sys.modules[name]


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_committed_experiment_is_valid(path: Path) -> None:
    experiment = Experiment.load(path)
    assert experiment.name == path.stem and experiment.title
    runs = experiment.runs()
    assert len(runs) == len(experiment.models) * len(experiment.categories) * len(experiment.seeds)
    assert len({run.folder for run in runs}) == len(runs)


def test_a_model_s_settings_win_and_categories_leave_out_their_own(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "title: t\ncategories: [bottle, metal_nut]\nseeds: [0, 1]\nleave_out: {metal_nut: [flip]}\n"
        "settings: {image_size: 32, budget: 10}\nmodels: {blur: , clgan: {budget: 99}}\n"
    )
    experiment = Experiment.load(tmp_path / "mine.yaml", data_root="/data")
    runs = {(r.model, r.category, r.seed): r for r in experiment.runs()}
    assert len(runs) == 8 and all(r.data_root == "/data" and r.image_size == 32 for r in runs.values())
    assert runs["clgan", "bottle", 1].budget == 99 and runs["blur", "bottle", 1].budget == 10
    assert runs["blur", "metal_nut", 0].leave_out == ["flip"] and runs["blur", "bottle", 0].leave_out == []


def test_one_model_several_times(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "title: t\ncategories: [bottle]\nmodels: {blur: {}, wide: {model: blur, options: {sigma: 0.1}}}\n"
        "ablation: {sigma: [blur, wide]}\n"
    )
    narrow, wide = Experiment.load(tmp_path / "mine.yaml", results_root=str(tmp_path)).runs()
    assert (narrow.model, narrow.row, narrow.variant) == ("blur", "blur", "")
    assert (wide.model, wide.row, wide.folder) == ("blur", "wide", tmp_path / "mine/wide/bottle/seed0")
    assert RunConfig(model="blur", options={"sigma": 0.1}).fingerprint() == wide.fingerprint()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("models: [", "bad.yaml is not valid YAML"),
        ("3", "expected fields"),
        ("categories: [a]", "bad.yaml: models: field required"),
        ("categories: [a]\nmodels: {blur: {}}\nsetings: {}", "'setings' is not a parameter; did you mean 'settings'"),
        ("categories: [a]\nmodels: {blur: {budgt: 3}}", "bad.yaml: 'budgt' is not a parameter"),
        ("categories: ['../a']\nmodels: {blur: {}}", "'../a' cannot name a folder"),
        ("categories: bottle\nmodels: {blur: {}}", "bad.yaml: categories"),
        ("categories: [a]\nmodels: {udcae: {model: blur}}", "variant: 'udcae' is the name of another model"),
        ("categories: [a]\nmodels: {log: {model: blur}}", "variant: 'log' is"),
        ("categories: [a]\nmodels: {a/b: {model: blur}}", "variant: 'a/b' cannot name a folder"),
        ("categories: [a]\nmodels: {x: {model: blur}, X: {model: blur}}", "'x' and 'X' would share a folder on a"),
        ("categories: [a, a]\nmodels: {blur: {}}", "'blur' and 'blur' would share a folder .* list category"),
        ("categories: [a]\nmodels: {blur: {}}\nablation: {g: [blur, wide]}", "g: 'wide' is no entry of models: blur"),
        ("categories: [a]\nmodels: {blur: {}}\nablation: {g: [blur]}", "g: expected at least two entries"),
    ],
)
def test_a_bad_experiment_names_file_and_field(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(ValueError, match=words):
        Experiment.load(tmp_path / "bad.yaml")


def test_an_unknown_experiment_names_those_there_are() -> None:
    with pytest.raises(FileNotFoundError, match=r"nosuch\.yaml does not exist; there are: .*quick"):
        Experiment.load("nosuch")


def test_an_experiment_about_real_images_is_not_run_on_drawn_ones() -> None:
    with pytest.raises(ValueError, match="'mvtec' is about real images: give their folder, DATA="):
        Experiment.load("mvtec").require_data()
    Experiment.load("mvtec", data_root="/data/mvtec_ad").require_data()
    Experiment.load("quick").require_data()
