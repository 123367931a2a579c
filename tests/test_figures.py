"""Figures show what they say: the right images, holes where runs are missing, a caption that can travel."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from fake_runs import fake_experiment, fake_run
from matplotlib.figure import Figure

from clgan_lib.data import Category, load_category
from clgan_lib.detection import detect
from clgan_lib.exhibits import chapters, examples, figures, k_sweep, run_table, tables
from clgan_lib.model import ReconstructionModel
from clgan_lib.runs.evaluation import evaluate
from clgan_lib.runs.maps import read_maps

matplotlib.use("agg")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_experiment(tmp_path_factory.mktemp("results"))


def pictures(figure: Figure) -> list[np.ndarray]:
    """All images shown, in reading order."""
    return [np.asarray(axis.images[0].get_array()) for axis in figure.findobj(matplotlib.axes.Axes) if axis.images]


def texts(figure: Figure) -> str:
    return " ".join(" ".join(text.get_text() for text in figure.findobj(matplotlib.text.Text)).split())


def test_the_example_is_the_median_image_of_the_reference(root: Path) -> None:
    chosen = examples.examples(root, tables.collect(root, "fake"))
    assert [example.category for example in chosen] == ["bottle", "metal_nut"]
    scores = pd.read_csv(root / "fake/clgan/metal_nut/seed0/scores.csv").query("postprocess == 'dual_threshold'")
    scores = scores[~scores["defect"].isin(["good", "flip"])].sort_values(["F1", "name"])
    assert chosen[1].name == scores["name"].iloc[(len(scores) - 1) // 2]
    stored = np.load(root / "fake/udcae/metal_nut/seed0/maps.npz")
    index = list(stored["names"]).index(chosen[1].name)
    np.testing.assert_array_equal(chosen[1].reconstructions["udcae"], stored["reconstructions"][index])
    expected = detect(stored["images"][index], stored["reconstructions"][index]).mask
    np.testing.assert_array_equal(chosen[1].masks["udcae"], expected)


def test_fig4_and_fig5_have_a_row_per_image(root: Path) -> None:
    chosen = examples.examples(root, tables.collect(root, "fake"))
    fig4, fig5 = figures.reconstructions(chosen), figures.detections(chosen)
    assert [axis.get_title() for axis in fig4.axes[:4]] == ["input", "UDCAE", "CLGAN", "template"]
    np.testing.assert_array_equal(pictures(fig4)[4], chosen[1].image)  # second row, first column
    assert [axis.get_title() for axis in fig5.axes[:5]] == ["image", "truth", "UDCAE", "CLGAN", "template"]
    np.testing.assert_array_equal(pictures(fig5)[6], chosen[1].truth)  # second row, second column
    assert fig4.axes[0].collections and not fig4.axes[1].collections  # the defect is outlined in the input alone
    for figure in (fig4, fig5):
        assert "Seed 0" in texts(figure) and "median F1 under CLGAN" in texts(figure) and "Hatched" not in texts(figure)
        assert "Data: embedded." in texts(figure)


def test_many_models_go_on_below(root: Path) -> None:
    example = examples.examples(root, tables.collect(root, "fake"))[0]
    many = {f"a-long-name-of-number-{i}": example.image for i in range(11)}
    figure = figures.reconstructions([dataclasses.replace(example, reconstructions=many)])
    titles = [axis.get_title() for axis in figure.axes]
    assert titles[0] == titles[10] == "input" and "".join(titles[12].split()) == "a-long-name-of-number-10"
    assert len(pictures(figure)) == 13 and all(len(line) <= 13 for title in titles for line in title.split("\n"))


def test_a_missing_run_is_hatched_and_another_model_chooses(root: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(root, tmp_path / "results"))
    shutil.rmtree(own / "fake/clgan/bottle")
    (own / "fake/template/metal_nut/seed0/maps.npz").unlink()
    chosen = examples.examples(own, tables.collect(own, "fake"))
    assert [example.reference for example in chosen] == ["udcae", "clgan"]
    assert chosen[0].masks["clgan"] is None and chosen[1].reconstructions["template"] is None
    figure = figures.detections(chosen)
    assert len(pictures(figure)) == 2 * 5 - 2
    assert "median F1 under UDCAE (metal_nut: CLGAN). Hatched" in texts(figure)


def test_real_images_are_credited(tmp_path: Path) -> None:
    fake_run(tmp_path, data_root="/elsewhere/mvtec_ad")
    caption = texts(figures.reconstructions(examples.examples(tmp_path, tables.collect(tmp_path, "fake"))))
    assert (
        "Data: mvtec_ad (MVTec AD, Bergmann et al." in caption
        and "CC BY-NC-SA 4.0" in caption
        and "elsewhere" not in caption
    )
    assert run_table.credit(["MVTec_AD_2"]).startswith("Data: MVTec_AD_2 (MVTec AD 2, Heckler-Kram et al.")
    assert all(map(run_table.is_mvtec, ("mvtec_ad", "MVTec-AD", "mvtec_ad_256")))
    assert not any(map(run_table.is_mvtec, ("mvtec_ad_2", "mvtec2", "visa")))


def test_without_maps_there_is_nothing_to_show(root: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(root, tmp_path / "results", ignore=shutil.ignore_patterns("*.npz")))
    assert examples.examples(own, tables.collect(own, "fake")) == []
    with pytest.raises(ValueError, match="no example"):
        figures.reconstructions([])
    with pytest.raises(FileNotFoundError, match=r"maps\.npz"):
        read_maps(own / "fake/clgan/bottle/seed0")


def test_damaged_maps_are_named(tmp_path: Path) -> None:
    (tmp_path / "maps.npz").write_bytes(b"PK\x03\x04 not a zip")
    with pytest.raises(ValueError, match=r"maps\.npz is damaged"):
        read_maps(tmp_path)


def test_pipeline_draws_each_threshold_where_it_is(root: Path) -> None:
    stored = read_maps(root / "fake/clgan/bottle/seed0")
    image, restored, truth = stored["images"][4], stored["reconstructions"][4], stored["masks"][4]
    figure, found = figures.pipeline(image, restored, 2.5, truth), detect(image, restored, 2.5)
    assert [axis.get_title().split()[0] for axis in figure.axes[:8]] == [
        "I",
        "Ir",
        "ID1",
        "ID2",
        "ID3",
        "ID4",
        "ID5",
        "truth",
    ]
    np.testing.assert_array_equal(pictures(figure)[6], found.mask)
    drawn = [axis.lines[0].get_xdata()[0] for axis in figure.axes[8:]]  # type: ignore[index]
    assert drawn == pytest.approx([*found.thresholds, found.gray.mean() + found.gray.std()], abs=1e-6)


def test_fig2_in_the_report_has_the_runs_own_k(tmp_path: Path) -> None:
    folder = fake_run(tmp_path)
    content = json.loads((folder / "metrics.json").read_text())
    content["config"]["k"] = 2.0
    (folder / "metrics.json").write_text(json.dumps(content))
    frame = tables.collect(tmp_path, "fake")
    chosen = examples.examples(tmp_path, frame)
    section = chapters.pipelines(frame, chosen, tmp_path)
    assert section is not None and "seed 0, k = 2." in texts(section.items[0])  # type: ignore[arg-type]
    stored = read_maps(folder)
    index = list(stored["names"]).index(chosen[0].name)
    expected = detect(stored["images"][index], stored["reconstructions"][index], 2.0).mask
    np.testing.assert_array_equal(pictures(section.items[0])[6], expected)  # type: ignore[arg-type]


def test_samples_show_each_type_with_its_mask(tiny_root: Path) -> None:
    figure = figures.samples(load_category(tiny_root, "nut", 32), "a tiny data set")
    assert [axis.get_title().split("\n")[0] for axis in figure.axes] == ["good", "dent", "rust"]
    assert [bool(axis.collections) for axis in figure.axes] == [False, True, True]  # an outline where there is a defect
    assert "a tiny data set" in texts(figure)


class Copy(ReconstructionModel):
    """Reconstructs nothing."""

    trainable = False

    def reconstruct(self, images: torch.Tensor) -> torch.Tensor:
        return 0.9 * images


def test_run_gallery_has_a_row_per_type(tiny_root: Path) -> None:
    category: Category = load_category(tiny_root, "nut", 256)
    figure = figures.run_gallery(evaluate(Copy(image_size=256), category, category.train[:2]), "copy, nut, seed 0")
    assert [axis.get_ylabel().split("\n")[0] for axis in figure.axes[::5]] == ["dent", "rust", "good"]
    assert "copy, nut, seed 0" in texts(figure)


def test_losses_plot_every_term(root: Path) -> None:
    history = pd.read_csv(root / "fake/clgan/bottle/seed0/history.csv")
    figure = figures.losses(history.to_dict("records"), "clgan, bottle, seed 0")  # type: ignore[arg-type]
    assert [axis.get_title() for axis in figure.axes if axis.lines] == ["D", "G_GAN", "NCE_X"]
    np.testing.assert_array_equal(figure.axes[1].lines[0].get_ydata(), history["G_GAN"])


def test_scores_has_a_dot_per_run(root: Path) -> None:
    frame = tables.collect(root, "fake")
    figure = figures.scores(frame)
    drawn = sorted(float(y) for line in figure.axes[0].lines[:3] for y in np.asarray(line.get_ydata()))
    assert drawn == pytest.approx(sorted(tables.select(frame)["F1"]))


def test_sweep_draws_ours_the_perfect_and_the_published(root: Path) -> None:
    found = k_sweep.measure(root, tables.collect(root, "fake"))
    figure = k_sweep.figure(tables.collect(root, "fake"), found)
    labels = [[str(line.get_label()) for line in axis.lines] for axis in figure.axes]
    base = ["this run", "perfect residual", "oracle k", "k without labels"]
    assert labels == [base, [*base, "published"]]  # the paper sweeps metal_nut, not bottle
    np.testing.assert_allclose(figure.axes[1].lines[4].get_ydata()[[0, -1]], [33.84, 40.63])  # type: ignore[index]


def test_saved_figures_are_whole_and_reproducible(root: Path, tmp_path: Path) -> None:
    frame = tables.collect(root, "fake")
    first = figures.save(figures.scores(frame), tmp_path / "a" / "scores")
    second = figures.save(figures.scores(frame), tmp_path / "b" / "scores")
    assert [path.name for path in first] == ["scores.svg", "scores.pdf"] and not list(tmp_path.glob("*/.*"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
