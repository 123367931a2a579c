"""What people really have on their disks: maps and scores of other programs, and terminals of every kind."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import draw_nuts, save
from PIL import Image

from clgan_lib.data import load_category
from clgan_lib.exhibits import tables
from clgan_lib.interop import cli, map_files, map_import
from clgan_lib.interop.native_resolution import native_measures
from clgan_lib.paths import ROOT
from clgan_lib.runs.record import read_record

NAMES = [f"{kind}/{i:03}" for kind, count in {"dent": 3, "good": 2, "rust": 2}.items() for i in range(count)]
NO_UTF8 = os.fsdecode("划痕".encode("gbk"))
ESCAPED = os.fsencode(NO_UTF8).decode("utf8", "backslashreplace")


def put(root: Path, maps: dict[str, np.ndarray]) -> Path:
    for name, values in maps.items():
        path = root / "maps" / f"{name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, values)
    return root / "maps"


def truths(root: Path, size: int = 64) -> dict[str, np.ndarray]:
    return {n: m.numpy().astype(float) for n, m in zip(NAMES, load_category(root, "nut", size).masks, strict=True)}


def take(root: Path, **settings: object) -> map_import.ImportSummary:
    base = {"method": "Stranger", "source": "a test", "category": "nut", "experiment": "e", "data_root": str(root)}
    return map_import.import_maps(root / "maps", **{**base, "results_root": str(root / "r"), **settings})


def problems(found: map_import.ImportSummary) -> dict[str, str]:
    return dict(found.problems.itertuples(index=False, name=None))


def test_2_an_import_of_other_data_is_not_overwritten(tmp_path: Path) -> None:
    for name in ("a", "b"):
        root = draw_nuts(tmp_path / name)
        put(root, truths(root))
    first = take(tmp_path / "a", results_root=str(tmp_path / "r")).folder
    before = (first / "metrics.json").read_bytes()
    with pytest.raises(FileExistsError, match="nut/seed0 .* on .*/a, and this one is on .*/b; .*another category"):
        take(tmp_path / "b", results_root=str(tmp_path / "r"))
    assert (first / "metrics.json").read_bytes() == before


def test_3_maps_whose_names_are_not_utf8_stop_nothing(tiny_root: Path) -> None:
    put(tiny_root, truths(tiny_root) | {f"dent/{NO_UTF8}": np.eye(8), f"{NO_UTF8}/000": np.eye(8)})
    (tiny_root / "maps" / f"{NO_UTF8}.npz").write_bytes(b"no zip")
    (tiny_root / "maps" / f"{NO_UTF8}.csv").write_text("name,score\nx,1\n")
    found = take(tiny_root)
    assert found.scored == 7
    assert set(problems(found)) == {f"dent/{ESCAPED}", f"{ESCAPED}/000", f"{ESCAPED}.npz", f"{ESCAPED}.csv"}


def test_3_test_images_whose_names_are_not_utf8_are_named(tiny_root: Path) -> None:
    (tiny_root / "nut/test/good/000.png").rename(tiny_root / f"nut/test/good/{NO_UTF8}.png")
    put(tiny_root, {n if n != "good/000" else f"good/{NO_UTF8}": np.eye(64) for n in NAMES})
    with pytest.raises(ValueError, match=r"\\xbb\\xae\\xba\\xdb\.png: its name is not UTF-8; rename it"):
        take(tiny_root)


def oblong(root: Path) -> Path:
    """The tiny data set with images twice as wide as high."""
    for path in (root / "nut").rglob("*.png"):
        image = np.asarray(Image.open(path))
        save(path, np.hstack([image, image * 0]))
    return root


@pytest.mark.parametrize("scale", [1, 3, 0.4])
def test_10_a_transposed_map_is_a_named_problem(scale: float, tiny_root: Path) -> None:
    oblong(tiny_root)
    rng, size = np.random.default_rng(0), (round(64 * scale), round(32 * scale))
    maps = {}
    for name in NAMES:
        mask = tiny_root / f"nut/ground_truth/{name}_mask.png"
        truth = np.asarray(Image.open(mask)).astype(float) if mask.is_file() else np.zeros((32, 64))
        maps[name] = cv2.resize(truth, size) + rng.random(size[::-1])
    put(tiny_root, maps)
    assert take(tiny_root).problems.empty
    assert not native_measures(tiny_root / "maps", tiny_root, "nut")["problems"]
    put(tiny_root, {name: maps[name].T for name in ("dent/000", "good/000")})
    found = take(tiny_root)
    assert found.scored == 5 and set(problems(found)) == {"dent/000", "good/000"}
    assert f"the map is {size[1]}x{size[0]} and its image 64x32; transpose" in problems(found)["dent/000"]
    assert len(native_measures(tiny_root / "maps", tiny_root, "nut")["problems"]) == 2
    put(tiny_root, {name: values.T for name, values in maps.items()})
    with pytest.raises(ValueError, match="transpose the map"):
        take(tiny_root)


def test_10_a_map_of_a_turned_photograph_is_upright_as_its_image(tiny_root: Path) -> None:
    put(tiny_root, {name: np.eye(64) for name in NAMES})
    exif = Image.Exif()
    exif[274] = 6
    path = tiny_root / "nut/test/good/000.png"
    Image.fromarray(np.zeros((32, 64), np.uint8)).save(path, exif=exif)
    put(tiny_root, {"good/000": np.eye(64)[:, :32]})  # 32 wide, 64 high, as the image is seen
    assert take(tiny_root).problems.empty
    put(tiny_root, {"good/000": np.eye(64)[:32]})
    assert "its image 32x64" in problems(take(tiny_root))["good/000"]


@pytest.mark.parametrize("method", ["PatchCore lite", "DRAEM/v2", "EfficientAD: S", "A & B", "x "])
def test_11_a_method_may_have_any_name(method: str, tiny_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tiny_root, truths(tiny_root))
    settings = ["--source", "s", "--category", "nut", "--data", str(tiny_root), "--results", str(tiny_root / "r")]
    assert cli.main(["import", str(tiny_root / "maps"), "--method", method, *settings]) == 0
    (folder,) = (path.parent for path in (tiny_root / "r/imported").glob("*/nut/seed0/metrics.json"))
    assert read_record(folder).content()["imported"]["method"] == method
    shown = method.replace("/", "-").replace(":", "-").replace("&", "-").strip()
    assert [row.cells[1].text for row in tables.table3(tables.collect(tiny_root / "r", "imported")).rows][0] == shown


@pytest.mark.parametrize("header", ["filename, anomaly_score", "Image_Path;score", "file\tpred_score"])
@pytest.mark.parametrize("flat", [True, False])
def test_11_scores_in_a_csv_match_in_either_spelling(header: str, flat: bool, tiny_root: Path) -> None:
    spelt = {n: n.replace("/", "_") if flat else n for n in NAMES}
    put(tiny_root, {spelt[n]: 1 - m for n, m in truths(tiny_root).items()})  # maps that rank the other way round
    sign = next(sign for sign in ",;\t" if sign in header)
    rows = [f"{n if flat else n.replace('/', '_')}.png{sign}{int(not n.startswith('good'))}" for n in NAMES]
    (tiny_root / "maps/own.csv").write_text("\n".join([header, *rows]))
    found = take(tiny_root)
    assert found.problems.empty and read_record(found.folder).ranking["image_AUROC"] == 1


@pytest.mark.parametrize("text", ["name,score\nother/000.png,1\n", "id,value\nhole/000.png,1\n"])
def test_11_a_csv_of_which_nothing_counts_is_a_problem(text: str, tiny_root: Path) -> None:
    put(tiny_root, truths(tiny_root))
    (tiny_root / "maps/own.csv").write_text(text)
    assert "none of its" in problems(take(tiny_root))["own.csv"]


@pytest.mark.parametrize("kind", [np.float64, np.int64])
def test_12_an_offset_that_float32_cannot_hold_is_said(kind: type, tiny_root: Path) -> None:
    maps = {
        n: (1e6 + 0.01 * m if kind == np.float64 else 1e9 + 9 * m).astype(kind) for n, m in truths(tiny_root).items()
    }
    put(tiny_root, maps)
    with pytest.raises(ValueError, match="float32 cannot tell its values apart .*; subtract a common offset"):
        take(tiny_root)
    with pytest.raises(ValueError, match="one kind only.*float32 cannot tell its values apart"):
        native_measures(tiny_root / "maps", tiny_root, "nut")
    put(tiny_root, {n: values - maps["good/000"].min() for n, values in maps.items()})
    assert take(tiny_root).problems.empty
    assert native_measures(tiny_root / "maps", tiny_root, "nut")["AUROC"] > 0.99
    put(
        tiny_root,
        {n: np.float64(0.1) + values * 0 for n, values in maps.items()} | {"dent/000": maps["dent/000"] * 0.1},
    )


@pytest.mark.parametrize(
    ("path", "key", "held_out"),
    [
        ("/data/train/can/test_public/bad/000_regular.png", "bad/000_regular", False),
        ("/data/train/candle/Data/Images/Anomaly/000.JPG", "Anomaly/000", False),
        ("D:\\train\\nut\\test\\dent\\000.png", "dent/000", False),
        ("/data/train/can/train/good/000.png", "good/000", True),
        ("/data/test/can/train/good/000.png", "good/000", True),
        ("holdout/00/7.npy", "00/7", True),
        ("de\u0301faut/000.npy", "d\u00e9faut/000", False),
    ],
)
def test_20_what_was_held_out_is_told_by_the_folders_of_the_data_set(path: str, key: str, held_out: bool) -> None:
    assert map_files.image_key(path) == (key, held_out)


def test_20_a_terminal_that_is_not_utf8_gets_escapes(tiny_root: Path) -> None:
    put(tiny_root, truths(tiny_root) | {"部品/000": np.eye(8)})
    moved = tiny_root / "測定"
    moved.mkdir()
    shutil.move(tiny_root / "maps", moved / "maps")
    command = [sys.executable, "-m", "clgan_lib", "import", str(moved / "maps"), "--method", "méthode"]
    command += ["--source", "s", "--category", "nut", "--data", str(tiny_root), "--results", str(moved / "r")]
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}
    ended = subprocess.run(command, capture_output=True, env=environment, cwd=ROOT, check=False)
    assert ended.returncode == 0, ended.stderr
    assert b"7 of 7 test images scored" in ended.stdout and b"\\u90e8\\u54c1/000" in ended.stdout
    command[command.index("--data") + 1] = str(moved)
    ended = subprocess.run(command, capture_output=True, env=environment, cwd=ROOT, check=False)
    assert ended.returncode == 2 and b"\\u6e2c" in ended.stderr and b"Traceback" not in ended.stderr
