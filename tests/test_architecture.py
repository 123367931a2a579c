"""Tables 1 and 2, Fig. 1 and the open points: read off the code, and wrong when the code is."""

from __future__ import annotations

import inspect
from itertools import combinations
from pathlib import Path

import pandas as pd
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from torch import nn

from clgan_lib.clgan import CLGAN
from clgan_lib.detection import detect
from clgan_lib.exhibits import network_diagram, network_summary
from clgan_lib.lab import readings
from clgan_lib.layers import BlurDown
from clgan_lib.networks import Generator, PatchDiscriminator
from clgan_lib.render.style import save
from clgan_lib.runs.experiment import Experiment


def side(output: str) -> int:
    return int(output.split("×")[0])


@pytest.mark.parametrize("image_size", [64, 256])
def test_table_1_has_the_sizes_that_arithmetic_gives(image_size: int) -> None:
    table = network_summary.discriminator_table(PatchDiscriminator(8), image_size)
    size, expected = image_size, []
    for number in range(5):
        size -= 1  # 4x4, padding 1
        expected.append(size)
        size = -(-size // 2) if number < 3 else size
    assert [side(output) for output in table["output"]] == expected
    assert table["parameters"].sum() == sum(p.numel() for p in PatchDiscriminator(8).parameters())


def test_table_1_differs_from_the_paper_in_its_first_row_only() -> None:
    table = network_summary.discriminator_table(PatchDiscriminator())
    assert list(table["agree"]) == ["no", "yes", "yes", "yes", "yes"]
    assert table.loc["Conv2D_1", ["output", "the paper prints"]].tolist() == ["255×255×64", "256×256×64"]
    assert list(table["type"].str.startswith("Conv+BN+LeakyReLU")) == [True] * 4 + [False]


def test_table_1_notices_another_discriminator() -> None:
    strided, plain = PatchDiscriminator(4), PatchDiscriminator(4, norm="instance", first_norm=False)
    assert isinstance(strided.body[0], nn.Conv2d)
    strided.body[0].stride = (2, 2)
    assert side(network_summary.discriminator_table(strided)["output"].iloc[0]) == 128
    assert network_summary.discriminator_table(plain)["type"].iloc[0] == "Conv+LeakyReLU+blur↓2"
    assert network_summary.discriminator_table(plain)["type"].iloc[1] == "Conv+IN+LeakyReLU+blur↓2"


def test_what_a_patch_sees_is_what_kernels_and_strides_give() -> None:
    net = PatchDiscriminator(4)
    sees, jump, expected = 1, 1, []
    for layer in net.body:
        if isinstance(layer, nn.Conv2d | BlurDown):
            sees += (4 - 1 if isinstance(layer, nn.Conv2d) else 3 - 1) * jump
            jump *= 2 if isinstance(layer, BlurDown) else 1
        if isinstance(layer, nn.Conv2d):
            expected.append(sees)
    assert network_summary.patch_sizes(net) == expected


@pytest.mark.parametrize(("blocks", "downs"), [(9, 2), (6, 3), (1, 2)])
def test_the_generator_s_table_adds_up_and_finds_the_taps(blocks: int, downs: int) -> None:
    generator = Generator(8, blocks, downs=downs)
    table = network_summary.generator_table(generator, 64)
    assert table["parameters"].sum() == sum(p.numel() for p in generator.parameters())
    taps = generator.encode(torch.zeros(1, 3, 64, 64))
    expected = {f"{t.shape[2]}×{t.shape[3]}×{t.shape[1]}" for t in taps}
    assert {tap.split(": ")[1] for tap in table["tap"] if tap} == expected
    assert ", ".join(tap.split(": ")[0] for tap in table["tap"] if tap) == "1, 2, 3, 4, 5"
    assert table["output"].iloc[-1] == "64×64×3"


def test_a_table_leaves_the_network_as_it_was() -> None:
    generator = Generator(4, 1)
    before = generator(torch.zeros(1, 3, 32, 32))
    network_summary.generator_table(generator, 64)
    assert all(p.device.type == "cpu" for p in generator.parameters())
    assert not any(layer._forward_hooks for layer in generator.modules())
    torch.testing.assert_close(generator(torch.zeros(1, 3, 32, 32)), before)


@pytest.mark.parametrize(("head", "layers", "last"), [("fc4", 4, "FC+ReLU"), ("cut2", 2, "FC")])
def test_table_2_and_the_totals(head: str, layers: int, last: str) -> None:
    model = CLGAN(image_size=64, width=4, blocks=2, head=head)  # type: ignore[arg-type]
    table = network_summary.head_table(model.heads)
    assert len(table) == layers and table["type"].iloc[-1] == last
    counted = table.filter(like="parameters").to_numpy().sum()
    totals = network_summary.totals(model)["parameters"]
    assert counted == totals["H"] == sum(p.numel() for p in model.heads.parameters())
    assert totals.sum() == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("options", [{}, {"blocks": 1, "width": 16}, {"downs": 3, "width": 16, "head": "cut2"}])
def test_fig_1_shows_the_model_s_sizes_and_no_word_covers_another(options: dict) -> None:
    model = CLGAN(image_size=128, **options)
    figure = network_diagram.architecture(model)
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()
    texts = [text for text in figure.axes[0].texts if text.get_text()]
    words = [text.get_text().replace("\n", "") for text in texts]
    for tap in model.generator.to("meta").encode(torch.empty(1, 3, 128, 128, device="meta")):
        assert f"{tap.shape[2]}²×{tap.shape[1]}" in words
    assert "14²×1" in words and any(f"{len(model.generator.blocks)} residual" in word for word in words)
    boxes = [text.get_window_extent(renderer) for text in texts]
    for (a, one), (b, other) in combinations(zip(boxes, words, strict=True), 2):
        assert not a.overlaps(b), (one, other)
    for box, word in zip(boxes, words, strict=True):
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, word


def test_fig_1_is_a_vector(tmp_path: Path) -> None:
    written = save(network_diagram.architecture(CLGAN(image_size=64, width=4)), tmp_path / "fig1", ["svg"])
    assert "<image" not in written[0].read_text()


def test_every_option_of_clgan_is_an_open_point_or_printed() -> None:
    raw = pd.read_csv(readings.DOCS / "readings.csv", keep_default_na=False)
    listed = {name for row in raw.itertuples() if row.where.endswith(":CLGAN") for name in str(row.argument).split()}
    ours = set(inspect.signature(CLGAN).parameters) - {"image_size"}  # of the run, and listed as RunConfig's
    assert listed == ours
    detector = {name for row in raw.itertuples() if row.where.endswith(":detect") for name in str(row.argument).split()}
    assert detector == set(inspect.signature(detect).parameters) - {"image", "reconstruction"}


def test_readings_follow_the_code_and_the_literal_recipe() -> None:
    frame = readings.open_points().set_index("point")
    assert frame.index.is_unique and not frame.isna().any(axis=None)
    assert set(frame["kind"]) == {"silent", "open", "contradicts itself", "slip", "explicit"}
    pairs = frame.loc["two terms, one or two batches"]
    assert (pairs["name"], pairs["default"], pairs["literal"]) == (
        "CLGAN(pairs)",
        f"pairs = {inspect.signature(CLGAN).parameters['pairs'].default!r}",
        "pairs = 'two_draws'",
    )
    assert frame.loc["defect types left out", "default"] == "leave_out = []"  # made by a factory
    recipe = Experiment.load(readings.LITERAL).settings
    assert frame.loc["how long", "literal"].startswith(f"budget = {float(recipe['budget'])}")
    assert (frame["paper"].ne("") | frame["kind"].ne("explicit") | frame["english"].ne("")).all()


def test_symbols_are_in_the_code() -> None:
    frame = readings.symbols()
    names = dict(zip(frame["symbol"], frame["name"], strict=True))
    for stage, field in enumerate(["residual", "channels", "gray", "binary", "mask"], 1):
        found = next(name for symbol, name in names.items() if f"D{stage}<" in symbol)
        assert found == f"Detection.{field}"
    assert names["<i>τ</i>"] == "patch_nce_loss(temperature)"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("clgan_lib.clgan:CLGAN,pair", "has no argument 'pair'"),
        ("clgan_lib.clgan:Clgan,pairs", "clgan_lib.clgan:Clgan does not exist"),
        ("clgan_lib.nowhere:CLGAN,pairs", "clgan_lib.nowhere:CLGAN does not exist"),
    ],
)
def test_a_name_that_is_gone_from_the_code_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: str, words: str
) -> None:
    (tmp_path / "readings.csv").write_text(
        f"part,point,kind,paper,english,reading,where,argument\na,b,open,c,d,e,{row}\n"
    )
    monkeypatch.setattr(readings, "DOCS", tmp_path)
    with pytest.raises(ValueError, match=words):
        readings.open_points()


def test_a_reading_is_shown_as_text_not_as_html() -> None:
    frame = readings.open_points().head(1).assign(reading="a < b", default="k = '<'")
    page = readings.as_html(frame).to_html()
    assert "a &lt; b" in page and "k = &#x27;&lt;&#x27;" in page and str(frame["paper"].iloc[0]) in page
