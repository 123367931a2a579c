"""The project's own files agree: what is declared, pinned, listed for conda, imported and promised."""

from __future__ import annotations

import ast
import importlib
import re
import sys
import tomllib
from pathlib import Path

import yaml

from clgan_lib.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
DECLARED = [*PROJECT["dependencies"], *(r for extra in EXTRAS.values() for r in extra if PROJECT["name"] not in r)]
# modules that need more than the dependencies, and say so themselves
NEEDS_EXTRA = {"onnx_export.py": "export", "onnx_model.py": "export", "page.py": "export"}
IMPORT_NAMES = {
    "cv2": "opencv-python",
    "PIL": "torchvision",  # torchvision needs Pillow to read images
    "sklearn": "scikit-learn",
    "skimage": "scikit-image",
    "yaml": "pyyaml",
    "nbformat": "jupyterlab",
    "nbconvert": "jupyterlab",
    "IPython": "ipywidgets",
    "markupsafe": "jinja2",
    "cycler": "matplotlib",
}


def name_of(requirement: str) -> str:
    return re.split(r"[<>=!~\[ ;]", requirement)[0].lower()


def test_the_two_commands_leave_the_book_out() -> None:
    installed = re.findall(r'pip install .*"\.\[(.*?)\]"', (ROOT / "Makefile").read_text().partition("$(READY): ")[2])
    assert installed == ["grid,test"] and "book" not in " ".join(EXTRAS["test"])


def test_conda_lists_what_pyproject_declares() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (pip,) = (entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert environment["name"] == "clgan"
    listed = [entry for entry in pip if not entry.startswith("-")]
    by_name = {*EXTRAS["cluster"], *EXTRAS["book"]}
    assert sorted(listed) == sorted(set(DECLARED) - by_name)
    assert "-e ." in pip and "--constraint constraints.txt" in pip


def test_every_requirement_is_pinned_and_the_pin_lies_in_its_range() -> None:
    from packaging.requirements import Requirement

    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    pins = {name_of(line).replace("_", "-"): line.partition("==")[2] for line in lines}
    assert all(pins.values())
    for declared in map(Requirement, DECLARED):
        assert declared.specifier.contains(pins[declared.name.lower().replace("_", "-")]), declared


def test_the_packages_the_suite_is_asked_to_use_are_declared() -> None:
    asked = "torch torchvision jupyterlab ipywidgets matplotlib pandas opencv-python papermill nbval".split()
    assert set(asked) <= {name_of(requirement) for requirement in DECLARED}


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
    return found


def test_everything_imported_is_declared() -> None:
    base = {name_of(requirement) for requirement in PROJECT["dependencies"]}
    for path in [*(ROOT / "clgan_lib").rglob("*.py"), *(ROOT / "baselines").rglob("*.py")]:
        base_here = base | {name_of(r) for r in EXTRAS.get(NEEDS_EXTRA.get(path.name, ""), [])}
        for top in {name.partition(".")[0] for name in imports(path)}:
            if top not in sys.stdlib_module_names and top not in ("clgan_lib", "baselines"):
                assert IMPORT_NAMES.get(top, top).lower() in base_here, f"{path} imports {top}, which is not declared"


def test_each_command_that_is_installed_exists() -> None:
    assert set(PROJECT["scripts"]) == {"clgan"}
    for target in PROJECT["scripts"].values():
        module, _, function = target.partition(":")
        assert callable(getattr(importlib.import_module(module), function))


def test_arrows_point_one_way() -> None:
    """The library never imports the baselines, and its lower floors never the upper ones."""
    floors = [
        {
            "layers",
            "compiled",
            "networks",
            "losses",
            "augment",
            "data",
            "datasets",
            "image_files",
            "synthetic",
            "paths",
        },
        {"clgan", "model", "data_checks"},
        {"training", "checkpoint", "detection", "metrics", "ranking", "runs"},
    ]
    level = {name: number for number, floor in enumerate(floors) for name in floor}
    for path in (ROOT / "clgan_lib").rglob("*.py"):
        own = level.get(path.relative_to(ROOT / "clgan_lib").parts[0].removesuffix(".py"), len(floors))
        for name in imports(path):
            assert not name.startswith("baselines"), f"{path} imports {name}"
            if name.startswith("clgan_lib."):
                theirs = level.get(name.split(".")[1], len(floors))
                assert theirs <= own, f"{path.name} (floor {own}) imports {name} (floor {theirs})"


def test_what_readme_and_makefile_promise_exists() -> None:
    makefile, readme = (ROOT / "Makefile").read_text(), (ROOT / "README.md").read_text()
    for target in (
        "benchmark",
        "test",
        "test-full",
        "test-oldest",
        "verify",
        "mutants",
        "lab",
        "report",
        "docs",
        "book",
        "clean",
        "help",
    ):
        assert re.search(rf"^{target}:", makefile, re.M), target
    first_screen = readme[:1500]
    assert 0 < first_screen.find("make benchmark") < first_screen.find("make test")


def test_the_workflow_tests_what_is_supported() -> None:
    """Tests and the smoke grid on both versions of Python, executed notebooks kept; it calls what there is."""
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())
    job, makefile = workflow["jobs"]["test"], (ROOT / "Makefile").read_text()
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.12"] and workflow[True] == ["push", "pull_request"]
    commands = [step["run"] for each in workflow["jobs"].values() for step in each["steps"] if "run" in step]
    targets = {word for command in commands for word in re.findall(r"make ([a-z-]+)", command)}
    assert {"test", "verify", "benchmark", "test-oldest"} <= targets
    assert all(re.search(rf"^{target}:", makefile, re.M) for target in targets)
    assert any("EXPERIMENT=smoke" in command for command in commands) and (ROOT / "config/smoke.yaml").is_file()
    smoke, test = (
        next(i for i, c in enumerate(commands) if re.match(word, c)) for word in ("make benchmark", "make test")
    )
    assert smoke < test  # what a user has trained must not disturb the tests
    ours = (ROOT / ".ci/run").read_text()
    assert ours.index("\nmake benchmark EXPERIMENT=smoke\n") < ours.index("\nmake test\n")
    (upload,) = (step for step in job["steps"] if "upload-artifact" in step.get("uses", ""))
    assert "results/smoke/log/*.ipynb" in upload["with"]["path"].split() and upload["if"] == "always()"
    for step in (step for each in workflow["jobs"].values() for step in each["steps"]):
        assert set(step) <= {"uses", "run", "with", "if", "name", "env"} and ("uses" in step) != ("run" in step)
