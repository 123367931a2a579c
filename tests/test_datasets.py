"""Tiny data sets in exactly the layouts that MVTec AD 2, VisA and MPDD are published in."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import execute_notebook, save

from clgan_lib import data_checks, datasets
from clgan_lib.data import load_category
from clgan_lib.paths import ROOT
from clgan_lib.runs import execution
from clgan_lib.runs.config import RunConfig


@pytest.fixture(autouse=True)
def own_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "CACHE", tmp_path / "cache")
    monkeypatch.setenv("CLGAN_CACHE", str(tmp_path / "cache"))  # of notebooks' kernels


def picture(seed: int, mask: bool = False, value: int = 255) -> np.ndarray:
    rng = np.random.default_rng(seed)
    image = rng.integers(100, 160, (40, 50, 3)).astype(np.uint8)
    if mask:
        image = np.zeros((40, 50), np.uint8)
        image[5 + seed : 15 + seed, 10:20] = value
    return image


def mvtec_ad_2(root: Path) -> Path:
    folder = root / "mvtec_ad_2" / "fabric"
    for i in range(5):
        save(folder / f"train/good/{i:03}_regular.png", picture(i))
        for private in ("test_private", "test_private_mixed"):
            save(folder / private / f"{i:03}_regular.png", picture(40 + i))
    for i, light in enumerate(("regular", "overexposed", "shift_1")):
        save(folder / f"test_public/good/{i:03}_{light}.png", picture(60 + i))
        save(folder / f"test_public/bad/{i:03}_{light}.png", picture(80 + i))
        save(folder / f"test_public/ground_truth/bad/{i:03}_{light}_mask.png", picture(i, mask=True))
    return root / "mvtec_ad_2"


def visa(root: Path) -> Path:
    root, lines = root / "visa", ["object,split,label,image,mask"]
    for i in range(7):
        split = "train" if i < 5 else "test"
        save(root / f"candle/Data/Images/Normal/{i:04}.JPG", picture(i))
        lines.append(f"candle,{split},normal,candle/Data/Images/Normal/{i:04}.JPG,")
    for i in range(3):
        save(root / f"candle/Data/Images/Anomaly/{i:03}.JPG", picture(20 + i))
        save(root / f"candle/Data/Masks/Anomaly/{i:03}.png", picture(i, mask=True, value=i + 1))  # a defect's class
        lines.append(f"candle,test,anomaly,candle/Data/Images/Anomaly/{i:03}.JPG,candle/Data/Masks/Anomaly/{i:03}.png")
    lines.append("pcb1,train,normal,pcb1/Data/Images/Normal/0000.JPG,")  # another object, not unpacked
    (root / "split_csv").mkdir(parents=True)
    (root / "split_csv/1cls.csv").write_text("\n".join(lines) + "\n")
    return root


def mpdd(root: Path) -> Path:
    folder = root / "mpdd" / "tubes"
    for i in range(5):
        save(folder / f"train/good/{i:03}.png", picture(i))
    for i in range(2):
        save(folder / f"test/good/{i:03}.png", picture(20 + i))
        save(folder / f"test/anomalous/{i:03}.png", picture(40 + i))
        save(folder / f"ground_truth/anomalous/{i:03}_mask.png", picture(i, mask=True))
    return root / "mpdd"


@pytest.mark.parametrize(
    ("make", "name", "layout", "train", "defects"),
    [
        (mvtec_ad_2, "fabric", "mvtec_ad_2", 5, ("bad",) * 3 + ("good",) * 3),
        (visa, "candle", "visa", 5, ("bad",) * 3 + ("good",) * 2),
        (mpdd, "tubes", "mvtec_ad", 5, ("anomalous",) * 2 + ("good",) * 2),
    ],
)
def test_each_layout_becomes_a_category(
    tmp_path: Path, make: Callable[[Path], Path], name: str, layout: str, train: int, defects: tuple[str, ...]
) -> None:
    root = make(tmp_path)
    assert datasets.categories(root) == [name] and datasets.recognise(root, name) == layout
    category = load_category(datasets.arrange(root, name), name, 32)
    assert len(category.train) == train and category.defects == defects
    for i, kind in enumerate(defects):
        expected = picture(i, mask=True) > 0 if kind != "good" else np.zeros((40, 50), bool)
        assert category.masks[i].float().mean().item() == pytest.approx(expected.mean(), abs=0.02)
    row = data_checks.check_dataset(root).loc[name]
    assert row["missing masks"] == row["unreadable"] == 0
    assert row["train good"].split(" / ")[0] == str(train)
    assert ("not comparable" in row["advice"]) == (name in data_checks.EXPECTED)  # a made-up tree has other counts


def test_a_tree_of_links_is_made_once_and_again_when_files_are_added(tmp_path: Path) -> None:
    root = mvtec_ad_2(tmp_path)
    first = datasets.arrange(root, "fabric")
    assert datasets.arrange(root, "fabric") == first and first.is_relative_to(tmp_path / "cache")
    save(root / "fabric/train/good/900_regular.png", picture(9))
    second = datasets.arrange(root, "fabric")
    assert second != first and len(list((second / "fabric/train/good").iterdir())) == 6
    assert not list((tmp_path / "cache").rglob("*.part"))
    assert {p.name for p in (second / "fabric").iterdir()} == {"train", "test", "ground_truth"}


def test_a_run_on_visa_needs_no_more_than_its_root(tmp_path: Path) -> None:
    root = visa(tmp_path)
    settings = {"data_root": str(root), "results_root": str(tmp_path / "r"), "category": "candle", "holdout": 3}
    content = execution.execute(RunConfig(model="blur", image_size=32, **settings)).content()  # type: ignore[arg-type]
    assert content["images"] == {"train": 4, "holdout": 1, "test_good": 2, "test_defective": 3}
    assert content["config"]["data_root"] == str(root)  # what was asked for, not the cache


def test_the_data_notebook_shows_categories_of_other_layouts(tmp_path: Path) -> None:
    root = mvtec_ad_2(tmp_path)
    shutil.copytree(root / "fabric", root / "can")
    execute_notebook(ROOT / "notebooks/01_dataset.ipynb", tmp_path / "01.ipynb", data_root=str(root))
    execute_notebook(
        ROOT / "notebooks/01_dataset.ipynb", tmp_path / "01.ipynb", data_root=str(visa(tmp_path)), categories=["candle"]
    )


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    root = visa(tmp_path)
    (root / "candle/Data/Images/Anomaly/001.JPG").unlink()
    with pytest.raises(FileNotFoundError, match=r"1cls\.csv, line 10: .*001\.JPG"):
        datasets.arrange(root, "candle")
    assert "001.JPG" in data_checks.check_dataset(root).loc["candle", "advice"]
    text = (root / "split_csv/1cls.csv").read_text()
    (root / "split_csv/1cls.csv").write_text(text.replace("candle/Data/Images/Normal/0000.JPG", "../../etc/passwd"))
    with pytest.raises(ValueError, match=r"line 2: \.\./\.\./etc/passwd leads out"):
        datasets.arrange(root, "candle")
    (root / "split_csv/1cls.csv").write_text(text.replace("normal", "ordinary", 1))
    with pytest.raises(ValueError, match="line 2: expected object,split"):
        datasets.arrange(root, "candle")
    (root / "split_csv/1cls.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"1cls\.csv does not exist"):
        datasets.arrange(root, "candle")
    second = mvtec_ad_2(tmp_path)
    (second / "fabric/test_public/ground_truth/bad/000_regular_mask.png").unlink()
    row = data_checks.check_dataset(second).loc["fabric"]
    assert row["missing masks"] == 1 and "000_regular.png" in row["advice"]


def test_the_published_counts_add_up_to_the_published_totals() -> None:
    assert tuple(map(sum, zip(*data_checks.VISA.values(), strict=True))) == (
        8659,
        962,
        1200,
    )  # 9,621 normal, 1,200 anomalous
    assert tuple(map(sum, zip(*data_checks.MPDD.values(), strict=True))) == (888, 176, 282)
