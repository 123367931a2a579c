"""The examples in the docstrings of the equations' modules run, and each public function there has one."""

from __future__ import annotations

import doctest
import importlib
import inspect

import pytest


@pytest.mark.parametrize("name", ["losses", "detection", "metrics"])
def test_every_public_function_has_an_example_that_runs(name: str) -> None:
    module = importlib.import_module(f"clgan_lib.{name}")
    examples = {test.name: test for test in doctest.DocTestFinder().find(module) if test.examples}
    functions = [
        f"{module.__name__}.{function}"
        for function, value in inspect.getmembers(module, inspect.isfunction)
        if value.__module__ == module.__name__ and not function.startswith("_")
    ]
    assert functions and set(functions) <= set(examples)
    assert doctest.testmod(module).failed == 0
