"""Bad input, a table of it: what can be used is used, and all else ends in one line that names the file or the field."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import save
from fake_runs import fake_run
from faults import in_child
from PIL import Image

from clgan_lib import data
from clgan_lib.data import load_category
from clgan_lib.data_checks import check_dataset
from clgan_lib.exhibits import registry, run_table, tables
from clgan_lib.interop.learning import learn_folder
from clgan_lib.paths import safe_name
from clgan_lib.runs import execution
from clgan_lib.runs.config import RunConfig
from clgan_lib.runs.record import read_record

GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)
RGB = np.stack([GREY] * 3, 2)


def one_line(error: BaseException) -> str:
    text = str(error)
    assert text and "\n" not in text.strip(), text
    return text


def config(root: Path, **fields: object) -> RunConfig:
    base = {"model": "blur", "category": "nut", "image_size": 32, "holdout": 3, "budget": 4.0}
    return RunConfig(**{**base, "data_root": str(root), "results_root": str(root / "results"), **fields})


# --- images -----------------------------------------------------------------------------------------------------------


def jpeg_named_png(path: Path) -> None:
    Image.fromarray(RGB).save(path.with_suffix(".jpg"), quality=95)
    path.with_suffix(".jpg").rename(path)


def animated(path: Path) -> None:
    frames = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


USABLE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "CMYK": ("a.jpg", lambda p: Image.fromarray(RGB).convert("CMYK").save(p, quality=95)),
    "palette": ("a.png", lambda p: Image.fromarray(RGB).convert("P", palette=Image.Palette.ADAPTIVE).save(p)),
    "grey": ("a.png", lambda p: Image.fromarray(GREY).save(p)),
    "16 bit": ("a.png", lambda p: Image.fromarray(GREY.astype(np.uint16) * 257).save(p)),
    "16-bit TIFF": ("a.tif", lambda p: Image.fromarray(GREY.astype(np.uint16) * 257).save(p)),
    "grey with alpha": ("a.png", lambda p: Image.fromarray(GREY).convert("LA").save(p)),
    "a JPEG named .png": ("a.png", jpeg_named_png),
    "animated PNG, its first frame": ("a.png", animated),
    "TIFF of several pages, its first": ("a.tiff", animated),
    "a name with spaces and dots": ("a b..c .d.png", lambda p: Image.fromarray(GREY).save(p)),
    "a name in other scripts": ("тест-試験-çé.png", lambda p: Image.fromarray(GREY).save(p)),
    "a suffix in capitals": ("A.PNG", lambda p: Image.fromarray(GREY).save(p)),
}


@pytest.mark.parametrize("kind", USABLE)
def test_images_of_every_kind_are_read(kind: str, tiny_root: Path) -> None:
    folder = tiny_root / "nut/train/good"
    shutil.rmtree(folder)
    folder.mkdir()
    name, write = USABLE[kind]
    write(folder / name)
    train = load_category(tiny_root, "nut", 16).train
    lossy = 12 if kind in ("CMYK", "a JPEG named .png") else 1 if kind == "palette" else 0
    assert train.shape == (1, 3, 16, 16)
    assert (train[0].int() - torch.from_numpy(RGB).permute(2, 0, 1)).abs().max() <= lossy


@pytest.mark.parametrize(("width", "height"), [(1, 1), (20000, 10), (10, 20000), (1, 3000)])
def test_images_of_any_shape_are_read(width: int, height: int, tiny_root: Path) -> None:
    save(tiny_root / "nut/train/good/odd.png", np.full((height, width, 3), 77, np.uint8))
    assert (load_category(tiny_root, "nut", 16).train[-1] == 77).all()


def test_one_bit_is_black_and_white(tiny_root: Path) -> None:
    Image.fromarray(GREY > 100).save(tiny_root / "nut/train/good/odd.png")
    assert (load_category(tiny_root, "nut", 16).train[-1, 0].numpy() == np.where(GREY > 100, 255, 0)).all()


def bomb(path: Path) -> None:
    """A PNG that says it is 60000 x 60000."""
    import struct
    import zlib

    head = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    chunk = lambda kind, body: struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))  # noqa: E731
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))


UNUSABLE: dict[str, Callable[[Path], object]] = {
    "truncated": lambda p: (Image.fromarray(RGB).save(p), p.write_bytes(p.read_bytes()[:-30])),
    "zero bytes": lambda p: p.write_bytes(b""),
    "text": lambda p: p.write_text("no image"),
    "a web page": lambda p: p.write_text("<!doctype html><html><body>404</body></html>"),
    "noise": lambda p: p.write_bytes(np.random.default_rng(0).bytes(4000)),
    "a folder": lambda p: p.mkdir(),
    "larger than memory": bomb,
    "a header and nothing else": lambda p: p.write_bytes(b"\x89PNG\r\n\x1a\n"),
}


@pytest.mark.parametrize("place", ["train/good/003.png", "test/dent/000.png", "ground_truth/dent/000_mask.png"])
@pytest.mark.parametrize("kind", UNUSABLE)
def test_what_is_no_image_is_named_and_the_check_finds_it(kind: str, place: str, tiny_root: Path) -> None:
    path = tiny_root / "nut" / place
    path.unlink()
    UNUSABLE[kind](path)
    with pytest.raises(ValueError, match="replace or remove it") as caught:
        execution.start_run(config(tiny_root))
    assert str(path) in one_line(caught.value)
    row = check_dataset(tiny_root).loc["nut"]
    assert row["unreadable"] == 1 and place in row["advice"]
    assert not (tiny_root / "results").exists()  # refused before anything is written


# --- masks ------------------------------------------------------------------------------------------------------------


def masked(root: Path, values: np.ndarray, name: str = "000_mask.png") -> Path:
    path = root / "nut/ground_truth/dent" / name
    path.unlink(missing_ok=True)
    Image.fromarray(values).save(path)
    return path


def test_masks_of_many_levels_and_kinds_mark_all_that_is_not_zero(tiny_root: Path) -> None:
    levels = np.zeros((32, 32), np.uint8)
    levels[4:8, 4:8], levels[20:24, 20:24] = 1, 200
    for values in (levels, np.dstack([levels] * 3), levels > 0):
        masked(tiny_root, values)
        assert (load_category(tiny_root, "nut", 32).masks[0].numpy() == (levels > 0)).all()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.zeros((32, 32), np.uint8), "marks no pixel"),
        (np.ones((31, 32), np.uint8), "is 32x31 but its image is 32x32"),
        (np.ones((1, 1), np.uint8), "is 1x1"),
    ],
)
def test_masks_that_cannot_be_are_named(values: np.ndarray, words: str, tiny_root: Path) -> None:
    path = masked(tiny_root, values)
    with pytest.raises(ValueError, match=words) as caught:
        execution.start_run(config(tiny_root))
    assert str(path) in one_line(caught.value)


def test_images_of_floating_point_numbers_are_refused_not_read_as_black(tiny_root: Path) -> None:
    path = tiny_root / "nut/train/good/000.tif"
    save(path, np.full((32, 32), 0.5, np.float32))
    own = {"results_root": str(tiny_root / "r")}
    for read in (lambda: execution.start_run(config(tiny_root)), lambda: learn_folder(path.parent, **own)):
        with pytest.raises(ValueError, match="floating-point numbers; save it with 8 or 16 bits") as caught:
            read()
        assert str(path) in one_line(caught.value)
    assert "replace nut/train/good/000.tif" in check_dataset(tiny_root).loc["nut", "advice"]


def test_masks_that_cover_everything_are_scored_but_have_no_residual_outside(tiny_root: Path) -> None:
    for path in (tiny_root / "nut/ground_truth").rglob("*.png"):
        save(path, np.full((32, 32), 255, np.uint8))
    metrics = execution.execute(config(tiny_root)).content()
    assert metrics["residual"]["outside"] is None and metrics["scores"]["dual_threshold"]["image"]["R"] < 100
    stored = read_record(config(tiny_root).folder).content()
    assert stored["residual"] == {"inside": None, "outside": None}
    frame = tables.collect(tiny_root / "results", "scratch")
    assert tables.NOT_APPLICABLE in [cell.text for cell in tables.summary(frame).rows[0].cells]


def test_masks_without_an_image_and_files_that_are_not_read_are_mentioned(tiny_root: Path) -> None:
    masked(tiny_root, np.ones((32, 32), np.uint8), "777_mask.png")
    (tiny_root / "nut/train/good/new.webp").write_bytes(b"")
    advice = check_dataset(tiny_root).loc["nut", "advice"]
    assert "no image has the mask nut/ground_truth/dent/777_mask.png" in advice
    assert "convert to one of" in advice and "nut/train/good/new.webp" in advice
    assert len(load_category(tiny_root, "nut", 16).test) == 7  # and neither is in the way


@pytest.mark.parametrize(("emptied", "words"), [(("dent", "rust"), "no defective pixel"), (("good",), "no good pixel")])
def test_what_could_not_be_scored_is_refused_before_training(
    emptied: tuple[str, ...], words: str, tiny_root: Path
) -> None:
    for kind in emptied:
        shutil.rmtree(tiny_root / "nut/test" / kind)
    if "good" in emptied:
        for path in (tiny_root / "nut/ground_truth").rglob("*.png"):
            save(path, np.full((32, 32), 255, np.uint8))
    with pytest.raises(ValueError, match=words) as caught:
        execution.start_run(config(tiny_root))
    assert "'nut'" in one_line(caught.value) and not (tiny_root / "results").exists()


def test_a_defect_type_that_tables_could_not_list_is_refused(tiny_root: Path) -> None:
    for split in ("test", "ground_truth"):
        (tiny_root / "nut" / split / "dent").rename(tiny_root / "nut" / split / "dent, deep")
    with pytest.raises(ValueError, match="rename the defect type 'dent, deep'"):
        execution.start_run(config(tiny_root))


# --- names and places -------------------------------------------------------------------------------------------------

GOOD_NAMES = ["wing nut (2)", "гайка-螺母", "o'ring n.u.t=1,5+#@!%"]
BAD_NAMES = ["", ".", "..", "../x", "a/b", "a\\b", "/etc", ".hidden", "a\0b", "a\nb", "C:x", "$(id)", "`id`", "a;b", "a&b",
             "a|b", "{x}", "-rf", "~root", "nut ", " nut", "nut.", "a\x1bb", "a\u202eb"]  # fmt: skip


@pytest.mark.parametrize("name", GOOD_NAMES)
def test_categories_of_any_script_run(name: str, tiny_root: Path) -> None:
    (tiny_root / "nut").rename(tiny_root / name)
    settings = config(tiny_root, category=name, experiment=name)
    execution.execute(settings)
    assert settings.folder.parent.parent.parent == tiny_root / "results" / name
    frame = tables.collect(tiny_root / "results", name)
    assert list(frame["category"].unique()) == [name]
    assert tables.table3(frame).markdown() and tables.table3(frame).latex()


@pytest.mark.parametrize("name", BAD_NAMES)
def test_no_name_leads_out_of_its_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot name a folder"):
        safe_name(name, "category")
    for field in ("category", "experiment"):
        with pytest.raises(ValueError, match=f"{field}: .* cannot name a folder") as caught:
            RunConfig(**{field: name})
        one_line(caught.value)
    with pytest.raises(ValueError, match="cannot name a folder"):
        run_table.collect(tmp_path, name)
    with pytest.raises(ValueError, match="model: .* is no name"):
        RunConfig(model=f"{name}:Model")


@pytest.mark.parametrize("model", ["../../x:Y", "a.b:c:d", "os;x:Y", ".x:Y", "x:", "a-b:C", "x:Y.Z", "/x:Y", "a..b:C"])
def test_a_model_s_path_is_a_path_of_python(model: str) -> None:
    with pytest.raises(ValueError, match="is no name") as caught:
        RunConfig(model=model)
    one_line(caught.value)


def test_links_are_followed_for_reading(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside")
    expected = load_category(tiny_root, "nut", 16)
    (tiny_root / "nut/train/good/000.png").rename(outside / "a.png")
    (tiny_root / "nut/train/good/000.png").symlink_to(outside / "a.png")
    (tiny_root / "nut").rename(outside / "nut")
    (tiny_root / "nut").symlink_to(outside / "nut")
    found = load_category(tiny_root, "nut", 16)
    assert (found.train == expected.train).all() and found.test_names == expected.test_names
    before = sorted(outside.rglob("*"))
    execution.execute(config(tiny_root))
    assert sorted(outside.rglob("*")) == before  # and nothing is written behind one


@pytest.mark.parametrize("target", ["nowhere.png", "loop.png"])
def test_a_link_to_nowhere_is_named(target: str, tiny_root: Path) -> None:
    path = tiny_root / "nut/train/good/loop.png"
    path.symlink_to(path if target == "loop.png" else tiny_root / target)
    with pytest.raises(ValueError, match="leads nowhere .*; replace or remove it") as caught:
        execution.start_run(config(tiny_root))
    assert str(path) in one_line(caught.value)


def as_nobody(work: Callable[[], object]) -> Callable[[], object]:
    """Root may write anywhere: drop that right first. It is a child process that does this."""

    def unprivileged() -> object:
        if os.getuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        return work()

    return unprivileged


@pytest.mark.skipif(not hasattr(os, "fork"), reason="drops root's rights in a forked process")
def test_folders_that_cannot_be_written_are_named(tiny_root: Path) -> None:
    for folder in [tiny_root, *tiny_root.parents]:  # pytest's own folders are the user's alone
        if folder.stat().st_uid == os.getuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | stat.S_IROTH | stat.S_IXOTH)
    results = tiny_root / "results"
    results.mkdir(mode=0o555)
    execution.start_run(
        config(tiny_root, results_root=str(tiny_root / "warm"))
    ).lock.release()  # decoded, lock files made
    for path in [data.CACHE.parent, data.CACHE, *data.CACHE.rglob("*")]:
        path.chmod(0o777)
    ended = in_child(as_nobody(lambda: execution.execute(config(tiny_root))))
    assert ended.code == 1 and ended.error.startswith(f"OSError: {results}/scratch/blur/nut/seed0 cannot be written")
    assert "choose another results_root" in ended.error and "\n" not in ended.error
    cache = tiny_root / "cache"
    cache.mkdir(mode=0o555)

    def with_cache() -> None:
        data.CACHE = execution.CACHE = cache
        execution.execute(config(tiny_root))

    ended = in_child(as_nobody(with_cache))
    assert f"{cache} cannot be written" in ended.error and "CLGAN_CACHE" in ended.error, ended.error
    fake_run(tiny_root, maps=False)
    (tiny_root / "fake").chmod(0o555)
    frame = tables.collect(tiny_root, "fake")
    ended = in_child(as_nobody(lambda: registry.write_tables(frame, tiny_root / "fake/tables")))
    assert ended.code == 1 and str(tiny_root / "fake/tables") in ended.error and "\n" not in ended.error
