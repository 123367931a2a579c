"""The command line `clgan`: one function per command, which imports what it needs when it is called.

Built on click, which papermill needs anyway; typer and cyclopts would bring six more packages each. An error is one line.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from clgan_lib.interop import cli_fields
from clgan_lib.paths import RESULTS, safe_name


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: of the command line; None takes those of the process.

    Returns:
        The exit status: 0; 1 if a command found images with problems or differences; 2 after an error; 130 after Ctrl-C.
    """
    where, hint = "clgan", ""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal cannot show ends nothing
            stream.reconfigure(errors="backslashreplace")
    try:
        return commands.main(arguments, where, standalone_mode=False) or 0
    except click.Abort:
        click.echo("clgan: stopped", err=True)
        return 130
    except click.ClickException as error:
        message, context = error.format_message(), getattr(error, "ctx", None)
        where = context.command_path if context else where
        hint = f" See {where} --help"
    except (ValueError, OSError, RuntimeError, ImportError, MemoryError) as error:
        message = str(error) or type(error).__name__
    click.echo(f"{where}: {' '.join(message.split())}{hint}", err=True)
    return 2


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--results", "--results-root", "results_root", default=str(RESULTS), help=cli_fields.RESULTS_HELP)
@click.pass_context
def commands(context: click.Context, results_root: str) -> None:
    """Train, apply and compare models that detect surface defects.

    `make benchmark` runs a whole experiment; `clgan COMMAND --help` explains a command.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@commands.command(cls=cli_fields.RunCommand)
@cli_fields.data_root
@click.option("--options", "-o", multiple=True, metavar="NAME=VALUE", callback=cli_fields.read_pairs,
              help="Option of the model, such as -o width=16; may be repeated.")  # fmt: skip
@cli_fields.leave_out
@cli_fields.results
def run(**fields: Any) -> None:
    """Train and evaluate one model.

    It does what notebook 10 does. A run that was stopped continues from its checkpoint; a finished one is repeated.

    \b
    clgan run --model clgan_rc --category bottle --data-root /data/mvtec_ad --image-size 128 --budget 10000
    clgan run --category tile -o width=16 -o batch_size=4      (CLGAN on the embedded data)
    """
    from clgan_lib.runs.config import RunConfig
    from clgan_lib.runs.execution import execute

    config = RunConfig(**fields | {"leave_out": list(fields["leave_out"])})
    record = execute(config)
    click.echo(f"{config.folder}\nmean over the defective test images, percent:")
    for detector, averages in record.scores.items():
        click.echo(f"  {detector}: " + ", ".join(f"{name} {value:.1f}" for name, value in averages["image"]))
    click.echo(f"without a threshold: AUROC {record.ranking['AUROC']:.3f}, AP {record.ranking['AP']:.3f}")


@commands.command()
@click.argument("run")
@click.argument("images")
@click.argument("out")
@click.option("--detector", type=click.Choice(["auto", "calibrated", "dual_threshold", "native"]), default="auto",
              show_default=True,
              help="Of the masks; auto: by the model's own threshold, or else the calibrated one.")  # fmt: skip
@cli_fields.rate
@click.option("--sort", type=click.Choice(["links", "copies"]), help="Put the images into OUT/sorted/, by verdict.")
@click.option("--bf16", is_flag=True, help="Compute in bfloat16: faster on a CPU with avx512_bf16 or amx_bf16.")
@click.option("--exit-code", is_flag=True, help="Exit with 0: all good; 1: one is defective; 2: one has a problem.")
def inspect(run: str, images: str, out: str, rate: float | None, *, exit_code: bool, **settings: Any) -> int:
    """Find defects in a folder of images.

    RUN is a run folder, its weights.safetensors or an ONNX file, IMAGES a folder of images of any size, OUT the folder to
    write. Look at gallery.html in it. The exit status is 1 if an image has a problem.
    """
    from clgan_lib.interop.inspection import inspect_folder, load

    inspector = load(run, rate=rate)
    if inspector.readiness:
        click.echo(f"the model {inspector.readiness}")
    click.echo(f"threshold of an image {inspector.image_threshold:.4g}, {inspector.rule}")
    table = inspect_folder(inspector, images, out, **settings)
    troubled = table.dropna(subset="problem")
    for name, problem in zip(troubled["name"], troubled["problem"], strict=True):
        click.echo(f"{name}: {problem}", err=True)
    defective = _say_defective(table, out)
    return (2 if len(troubled) else int(defective > 0)) if exit_code else int(len(troubled) > 0)


def _say_defective(table: Any, out: str) -> int:
    count = int((table["verdict"] == "defective").sum())
    click.echo(f"{len(table)} images, {count} defective: {Path(out) / 'scores.csv'} and gallery.html")
    return count


@commands.command()
@click.argument("out")
@click.option("--image-threshold", type=float, help="Call an image defective whose largest score is higher.")
@click.option("--pixel-threshold", type=float, help="Mark the pixels whose score is higher.")
@cli_fields.rate
@click.option("--images", default="", help="Where the images are now; empty: where they were.")
def threshold(out: str, image_threshold: float | None, pixel_threshold: float | None, **settings: Any) -> None:
    """Move the thresholds of an inspection.

    OUT is a folder that clgan inspect wrote. Verdicts, masks, overlays and gallery follow from the maps kept there.
    """
    from clgan_lib.interop.results import move_thresholds

    _say_defective(move_thresholds(out, image=image_threshold, pixel=pixel_threshold, **settings), out)


@commands.command()
@click.argument("weights")
@click.argument("good_images")
@cli_fields.rate
@click.option("--fast", is_flag=True, help="Use fewer symmetries, if synthetic anomalies are found as well with them.")
def calibrate(weights: str, good_images: str, **settings: Any) -> None:
    """Choose thresholds from today's good images.

    WEIGHTS is a run folder or its weights.safetensors, GOOD_IMAGES a folder of 5 images or more. The thresholds are written
    to weights.calibration.json beside the weights, which stay as they are; remove it to go back.
    """
    from clgan_lib.interop.recalibration import recalibrate

    click.echo(recalibrate(weights, good_images, **settings)[1])


@commands.command()
@click.argument("run")
@click.argument("file", metavar="FILE.onnx")
def export(run: str, file: str) -> None:
    """Write a trained model as ONNX.

    RUN is a run folder or its weights.safetensors. The file is compared with PyTorch before it is written. Needs the extra
    `export`: pip install -e ".[export]"
    """
    from clgan_lib.interop import onnx_export

    gaps = onnx_export.export(run, file).items()
    click.echo(f"{file}: " + ", ".join(f"{name} differs by at most {value:.1g}" for name, value in gaps))


@commands.command()
@click.argument("run")
@click.argument("file", metavar="OUT.html")
@click.option("--data-root", "--data", "data", default="", help="Data set of the examples; empty: that of the run.")
@click.option("--runtime", default="", help="Folder with onnxruntime-web's dist; empty: npm downloads it once.")
def page(run: str, file: str, data: str, runtime: str) -> None:
    """Write a model as a page to paint defects on.

    RUN is a run folder or its weights.safetensors. The page is one file that runs the model in a browser, without a network.
    Needs the extra `export`: pip install -e ".[export]"
    """
    from clgan_lib.interop.page import write_page

    count = write_page(run, file, data=data, runtime=runtime)
    click.echo(f"{file}: {Path(file).stat().st_size / 1e6:.1f} MB, {count} examples")


@commands.command("import")
@click.argument("maps")
@click.option("--method", required=True, help="Name of the method in tables, such as 'PatchCore lite'.")
@click.option("--source", required=True, help="Program, version and training, in words.")
@cli_fields.category
@cli_fields.data_root
@click.option("--experiment", default="imported", show_default=True, help="Experiment that the run becomes part of.")
@cli_fields.leave_out
@cli_fields.results
def import_(maps: str, leave_out: tuple[str, ...], **settings: Any) -> None:
    """Score anomaly maps of another program.

    MAPS is a folder with one .npy, .npz or .tiff file per test image, such as broken_large/003.npy.

    \b
    clgan import MAPS --method PaDiM --source "anomalib 2.7.0" --category bottle --data-root /data/mvtec_ad
    """
    from clgan_lib.interop.map_import import import_maps

    click.echo(import_maps(maps, leave_out=list(leave_out), **settings))


@commands.command()
@click.argument("maps")
@cli_fields.category
@click.option("--data-root", "--data", required=True, help="Data set, MVTec AD layout.")
@cli_fields.leave_out
def rank(maps: str, **settings: Any) -> None:
    """Rank anomaly maps at the images' own size.

    MAPS is a folder as for `clgan import`. One map is in memory at a time.
    """
    from clgan_lib.interop.native_resolution import native_measures

    measures = native_measures(maps, **settings)
    for name, problem in measures.pop("problems"):
        click.echo(f"{name}: {problem}", err=True)
    click.echo("\n".join(f"{name}: {value}" for name, value in measures.items()))


@commands.command()
@click.argument("experiment")
@cli_fields.results
def measure(experiment: str, results_root: str) -> None:
    """Measure finished runs again, from their maps."""
    from clgan_lib.interop.map_import import measure as measure_run

    folder = Path(results_root, safe_name(experiment, "experiment"))
    runs = sorted(path.parent for path in folder.glob("*/*/seed*/maps.npz"))
    if not runs:
        raise FileNotFoundError(f"{folder} holds no maps.npz to measure; name an experiment that has them")
    for each in runs:
        ranking = measure_run(each).ranking
        click.echo(f"{each}: AUROC {ranking['AUROC']:.3f}, AUPRO {ranking['AUPRO_0.3']:.3f}")


@commands.command()
@click.argument("experiment")
@click.argument("file", metavar="ARCHIVE.zip")
@cli_fields.results
def archive(experiment: str, file: str, results_root: str) -> None:
    """Pack an experiment to publish it.

    The archive holds the runs of EXPERIMENT with checksums, without images that belong to others.
    """
    from clgan_lib.interop import experiment_archive

    click.echo(experiment_archive.pack(Path(results_root, safe_name(experiment, "experiment")), Path(file)))


@commands.command()
@click.argument("file", metavar="ARCHIVE.zip")
@click.option("--data-root", "--data", default="", help="The data set, for images that the archive may not hold.")
@cli_fields.results
def restore(file: str, data_root: str, results_root: str) -> None:
    """Check and unpack an archive."""
    from clgan_lib.interop import experiment_archive

    folders = experiment_archive.restore(Path(file), Path(results_root), data_root)
    click.echo("\n".join(map(str, folders)))
    if not all((folder / "maps.npz").is_file() for folder in folders):
        click.echo("Some have no maps.npz; if the archive has, remove these folders and restore again with --data-root")


@commands.command()
@click.argument("experiment")
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("--keep", type=click.Choice(["last", "all"]), default="last", show_default=True,
              help="Of runs of one model, category and seed: the last, or all, as variants.")  # fmt: skip
@click.option("--data-root", "--data", default="", help="The data set, for images that an archive may not hold.")
@cli_fields.results
def merge(experiment: str, sources: tuple[str, ...], **settings: Any) -> None:
    """Take runs from elsewhere into an experiment.

    Each SOURCE is a run folder, a folder with runs below, or an archive. Runs that were evaluated otherwise are refused.
    """
    from clgan_lib.interop.merging import merge as merge_runs

    click.echo("\n".join(map(str, merge_runs(sources, experiment, **settings))) or "every run is there already")


@commands.command()
@click.argument("experiments", nargs=-1)
@click.option("--maps", is_flag=True, help="Measure each metrics.json again from its maps.npz, too.")
@cli_fields.results
def verify(experiments: tuple[str, ...], maps: bool, results_root: str) -> int:
    """Compare committed tables with their runs.

    EXPERIMENTS are compared with all their runs. Without a name, the tables in git are compared with the runs in git, or
    outside a checkout every experiment. The exit status is 1 if there is a difference.
    """
    from clgan_lib.exhibits.verify import check

    return min(1, check(experiments, maps=maps, results_root=results_root))
