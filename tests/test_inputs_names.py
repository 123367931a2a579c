"""What people really have on their disks: names with line breaks, tabs, blanks at their ends and dots inside."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import draw_nuts, save

from clgan_lib.data import list_categories, load_category
from clgan_lib.data_checks import check_dataset
from clgan_lib.exhibits import figures
from clgan_lib.interop import cli, inspection, map_import
from clgan_lib.interop.learning import learn_folder
from clgan_lib.interop.map_files import image_key, index_maps
from clgan_lib.interop.native_resolution import native_measures

ODD = {"a\nb": r"a\nb", "a\tb": r"a\tb", "a\rb": r"a\rb", "a\x1b[2Jb": r"a\x1b[2Jb", "a\u2028b": r"a\u2028b"}
KEPT = [
    "Screenshot 10.04\u202fPM",
    "検査\u3000画像",
    "plate 1.25",
    "na\u00a0me",
    "mu\u200cna",
]  # blanks of other scripts


def advice(root: Path) -> str:
    return str(check_dataset(root).loc["nut", "advice"])


@pytest.mark.parametrize(
    "place", ["train/good/{}.png", "test/dent/{}.png", "test/{}/000.png", "ground_truth/dent/{}.png"]
)
@pytest.mark.parametrize("name", ODD)
def test_a_control_character_in_a_data_set_is_said_in_one_line(name: str, place: str, tiny_root: Path) -> None:
    path = tiny_root / "nut" / place.format(name)
    path.parent.mkdir(exist_ok=True)
    shutil.copy(tiny_root / "nut/test/dent/000.png", path)
    with pytest.raises(ValueError) as caught:
        load_category(tiny_root, "nut", 32)
    for text in (str(caught.value), advice(tiny_root)):
        assert ODD[name] in text and "rename it" in text and len(text.splitlines()) == 1


@pytest.mark.parametrize("name", ODD)
def test_a_control_character_in_a_category_is_escaped(name: str, tiny_root: Path) -> None:
    (tiny_root / "nut").rename(tiny_root / name)
    with pytest.raises(FileNotFoundError) as caught:
        load_category(tiny_root, "nut", 32)
    assert f"there are: {ODD[name]}" in str(caught.value)
    assert len(check_dataset(tiny_root).to_csv().splitlines()) == 2


def test_names_of_every_kind_are_inspected_in_one_row_each(tmp_path: Path) -> None:
    good = draw_nuts(tmp_path) / "nut/train/good"
    for name in (*ODD, *KEPT):
        shutil.copy(good / "000.png", good / f"{name}.png")
    run = learn_folder(good, model="blur", image_size=32, holdout=2, results_root=str(tmp_path / "r"))
    (good / "x\ny.jpg").write_bytes(b"no image")
    (good / "x\ny.txt").touch()
    table = inspection.inspect_folder(run, good, tmp_path / "out").set_index("name")
    assert set(table.index) == {f"{i:03}.png" for i in range(8)} | {f"{n}.png" for n in [*ODD.values(), *KEPT]} | {
        r"x\ny.jpg"
    }
    assert table["problem"].notna().sum() == 1 and r"x\ny.jpg" in table.loc[r"x\ny.jpg", "problem"]
    text = (tmp_path / "out/scores.csv").read_text(encoding="utf8")
    assert len(text.splitlines()) == len(table) + 1 == len(list(csv.reader(text.splitlines())))
    for name in table.index[table["problem"].isna()]:
        assert (tmp_path / "out" / table.loc[name, "mask"]).is_file()
    assert json.loads((tmp_path / "out/inspection.json").read_text())["no_images"] == [r"x\ny.txt"]
    assert figures.inspected(good, tmp_path / "out").axes


@pytest.mark.parametrize("name", KEPT)
def test_names_with_blanks_of_other_scripts_and_dots_are_data(name: str, tiny_root: Path) -> None:
    for place in ("test/dent/{}.png", "ground_truth/dent/{}_mask.png"):
        (tiny_root / "nut" / place.format("001")).rename(tiny_root / "nut" / place.format(name))
    assert f"dent/{name}.png" in load_category(tiny_root, "nut", 32).test_names and advice(tiny_root) == "ready"


def test_a_blank_at_the_end_of_a_folder_is_no_other_folder(tiny_root: Path) -> None:
    """Made on Linux or a server; Windows hides it, and it is invisible to all: github.com/python/cpython/issues/94018."""
    nut = tiny_root / "nut"
    (nut / "test/dent").rename(nut / "test/dent ")
    (nut / "ground_truth/rust").rename(nut / "ground_truth/Rust.")
    (nut / "train/good").rename(nut / "train/good ")
    assert list_categories(tiny_root) == ["nut"] and advice(tiny_root) == "ready"
    assert load_category(tiny_root, "nut", 32).masks.flatten(1).any(1).sum() == 5


def test_maps_of_names_with_dots_are_told_apart(tiny_root: Path) -> None:
    """Measures and dates in names, ``plate_1.25.png``: github.com/abreheret/PixelAnnotationTool/issues/63."""
    for i in range(3):
        for place in ("test/dent/{}.png", "ground_truth/dent/{}_mask.png"):
            (tiny_root / "nut" / place.format(f"00{i}")).rename(tiny_root / "nut" / place.format(f"a.{i}"))
    names = [*(f"dent/a.{i}" for i in range(3)), *(f"{kind}/00{i}" for kind in ("good", "rust") for i in (0, 1))]
    truth = load_category(tiny_root, "nut", 32)
    for name, mask in zip(names, truth.masks, strict=True):
        path = tiny_root / "maps" / (f"{name}.npy" if "00" in name else f"{name}.png.npy")  # PyTorch's own habit
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, 1 - mask.numpy().astype(float))
    rows = [f"{name},{int('good' not in name)}" for name in names]  # without suffix
    (tiny_root / "maps/s.csv").write_text("name,score\n" + "\n".join(rows))
    found = map_import.import_maps(
        tiny_root / "maps",
        method="M",
        source="s",
        category="nut",
        data_root=str(tiny_root),
        results_root=str(tiny_root / "r"),
    )
    assert found.problems.empty and found.scored == 7
    assert json.loads((found.folder / "metrics.json").read_text())["ranking"]["image_AUROC"] == 1
    assert not native_measures(tiny_root / "maps", tiny_root, "nut")["problems"]
    assert image_key("D:\\x\\test\\dent\\2024.05.01.JPG")[0] == "dent/2024.05.01"


@pytest.mark.parametrize(
    "row",
    [
        " dent/000.png ,0.5",
        '"dent/000.png\t",0.5',
        "dent/000.png , 0.5",
        '"dent/000.png\n",0.5',
        "dent/000.png,0.5\n ,0.1",
    ],
)
def test_blanks_around_a_name_in_a_csv_do_not_count(row: str, tmp_path: Path) -> None:
    np.save(tmp_path / "map.npy", np.zeros((4, 4)))
    (tmp_path / "scores.csv").write_text(f"filename,score\n{row}\n")
    index = index_maps(tmp_path)
    assert index.image_scores.pop("dent/000") == 0.5 and not {*index.image_scores} - {""} and not index.problems


def test_maps_and_words_with_line_breaks_stay_one_line_in_tables(
    tiny_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (tiny_root / "nut/test").rglob("*.png"):
        (tiny_root / "maps" / path.parent.name).mkdir(parents=True, exist_ok=True)
        np.save(tiny_root / "maps" / path.parent.name / f"{path.stem}.npy", np.eye(32))
    np.save(tiny_root / "maps/x\ny.npy", np.eye(32))
    (tiny_root / "maps/x\ny.npz").write_bytes(b"no zip")
    command = ["import", str(tiny_root / "maps"), "--method", "M", "--source", "PaDiM,\n epoch\t9", "--category", "nut"]
    assert cli.main([*command, "--data", str(tiny_root), "--results", str(tiny_root / "r")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and all(line.startswith(r"  x\ny") for line in lines[1:])
    (folder,) = (path.parent for path in (tiny_root / "r").rglob("metrics.json"))
    assert len((folder / "import.csv").read_text().splitlines()) == 3
    assert json.loads((folder / "metrics.json").read_text())["imported"]["source"] == "PaDiM, epoch 9"
    assert cli.main([*command[:3], "a\nb", *command[4:], "--data", str(tiny_root)]) == 2
    error = capsys.readouterr().err
    assert r"'a\nb' cannot name a folder" in error and len(error.splitlines()) == 1


def test_a_name_in_two_letter_cases_is_two_images(tmp_path: Path) -> None:
    """From a Linux camera to a disk that does not tell A from a: github.com/treeverse/dvc/issues/3318."""
    good = draw_nuts(tmp_path) / "nut/train/good"
    album = tmp_path / "album"
    for name in ("A.png", "a.png", "a.PNG", "a.jpg"):
        save(album / name, np.zeros((9, 9), np.uint8))
    run = learn_folder(good, model="blur", image_size=32, holdout=2, results_root=str(tmp_path / "r"))
    table = inspection.inspect_folder(run, album, tmp_path / "out")
    assert len(table) == 4 and table["mask"].str.lower().is_unique
