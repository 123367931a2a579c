"""Options that commands share, and the fields of a run's config as options."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import click

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo


def _results_root() -> str:
    """The folder given before the command: the default after it."""
    return click.get_current_context().find_root().params["results_root"]


RESULTS_HELP = "Folder that holds the experiments; may stand before or after the command."
results = click.option("--results", "--results-root", "results_root", default=_results_root, help=RESULTS_HELP)
category = click.option("--category", required=True, help="Product of the data set.")
data_root = click.option("--data-root", "--data", default="", help="Data set, MVTec AD layout; empty: embedded data.")
leave_out = click.option("--leave-out", multiple=True, help="Defect type left out of the scores; may be repeated.")
rate = click.option("--rate", type=float, help="Share of good images that may be called defective, such as 0.02.")


class RunCommand(click.Command):
    """A command with the fields of `RunConfig` as options; that module (and torch) is imported for this command alone."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The options that the function has, and one for each other field."""
        from clgan_lib.runs.config import RunConfig

        fields, given = RunConfig.model_fields, {parameter.name for parameter in self.params}
        self.params += [_field_option(name, field) for name, field in fields.items() if name not in given]
        return super().get_params(ctx)


def _field_option(name: str, field: FieldInfo) -> click.Option:
    """An option with the name, type, default and description of a field."""
    flag = f"--{name.replace('_', '-')}"
    choices = get_origin(field.annotation) is Literal
    return click.Option(
        [f"{flag}/--no-{flag[2:]}" if field.annotation is bool else flag],
        type=click.Choice(get_args(field.annotation)) if choices else field.annotation,
        default=field.default,
        show_default=field.default != "",
        help=" ".join((field.description or "").replace("`", "").split()),
    )


def read_pairs(context: click.Context, parameter: click.Parameter, pairs: Sequence[str]) -> dict[str, Any]:
    """NAME=VALUE pairs as a dict: a value is JSON (a number, true, a list), or else a text."""
    options: dict[str, Any] = {}
    for pair in pairs:
        name, sign, text = pair.partition("=")
        if not (name and sign):
            raise click.BadParameter(f"{pair!r} is not NAME=VALUE, such as width=16.", context, parameter)
        try:
            options[name] = json.loads(text)
        except ValueError:
            options[name] = text
    return options
