"""Bad input, continued: names, links and places that cannot be written. Each ends in one line that names the culprit."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_runs import fake_run
from faults import in_child
from test_bad_input import config, one_line

from clgan_lib import data
from clgan_lib.data import load_category
from clgan_lib.exhibits import registry, run_table, tables
from clgan_lib.interop.folders import find_images
from clgan_lib.paths import safe_name
from clgan_lib.runs import execution
from clgan_lib.runs.config import RunConfig

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


def open_to_all(root: Path) -> None:
    for folder in [root, *root.parents]:  # pytest's own folders are the user's alone
        if folder.stat().st_uid == os.getuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | stat.S_IROTH | stat.S_IXOTH)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="drops root's rights in a forked process")
def test_folders_that_cannot_be_read(tiny_root: Path) -> None:
    """Beside the categories they do not matter, below an inspected folder they do: their images would be missing.

    github.com/lightly-ai/lightly/pull/660, and ``lost+found`` of any mounted disk.
    """
    open_to_all(tiny_root)
    for place in ("lost+found", "somebody", "nut/test/dent/private"):
        (tiny_root / place).mkdir(mode=0o700)
    assert in_child(as_nobody(lambda: data.find_files(tiny_root, "nut"))).code == 0
    assert "there are: nut\n" in in_child(as_nobody(lambda: data.find_folder(tiny_root, "bolt"))).error + "\n"
    ended = in_child(as_nobody(lambda: find_images(tiny_root / "nut")))
    assert ended.error == f"OSError: {tiny_root}/nut/test/dent/private cannot be read (Permission denied); " + (
        "make it readable, or move it away"
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="drops root's rights in a forked process")
def test_folders_that_cannot_be_written_are_named(tiny_root: Path) -> None:
    open_to_all(tiny_root)
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
