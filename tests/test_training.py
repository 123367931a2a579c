"""The trainer: budgets, order, checkpoints, and a run that is killed and goes on as if nothing had been."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from test_determinism import SMALL
from torch import Tensor, nn

from clgan_lib import training
from clgan_lib.checkpoint import Progress, load_checkpoint, save_checkpoint
from clgan_lib.clgan import CLGAN
from clgan_lib.model import ReconstructionModel, build_model
from clgan_lib.paths import replacing
from clgan_lib.training import Budget, NonFiniteLoss, train

OPTIONS = {"image_size": 32, "width": 4, "blocks": 1, "patches": 8, "batch_size": 2}


class Recorder(ReconstructionModel):
    """A model that remembers what it was shown, and whose loss may break."""

    def __init__(self, *, image_size: int, batch_size: int = 2, draws: int = 1, breaks_at: int = 10**9) -> None:
        super().__init__(image_size=image_size, batch_size=batch_size)
        self.draws, self.breaks_at = draws, breaks_at
        self.weight = nn.Parameter(torch.zeros(()))
        self.shown: list[list[int]] = []
        self.progress: list[float] = []

    def training_step(self, images: Tensor, progress: float) -> dict[str, Tensor]:
        self.shown.append([round((float(i.mean()) + 1) * 127.5) for i in images])
        self.progress.append(progress)
        with torch.no_grad():
            self.weight += 1
        return {"L": torch.tensor(float("nan") if len(self.shown) >= self.breaks_at else float(len(self.shown)))}

    def reconstruct(self, images: Tensor) -> Tensor:
        return images


def numbered(count: int) -> Tensor:
    """Image i is all i."""
    return torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 8, 8).contiguous()


def good_images() -> Tensor:
    return torch.randint(0, 256, (6, 3, 32, 32), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def test_every_epoch_shows_every_image_once() -> None:
    model = Recorder(image_size=8)
    done = train(model, numbered(6), budget=Budget(3, "epochs"))
    shown = [i for batch in model.shown for i in batch]
    assert done.images == 18 and done.steps == 9
    epochs = [shown[0:6], shown[6:12], shown[12:18]]
    assert all(sorted(epoch) == list(range(6)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_draws_are_independent_and_counted() -> None:
    model = Recorder(image_size=8, draws=2)
    done = train(model, numbered(50), budget=Budget(40, "images"))
    assert done.images == 40 and done.steps == 10
    assert any(batch[:2] != batch[2:] for batch in model.shown)


def test_budgets_stop_where_they_say() -> None:
    model = Recorder(image_size=8)
    assert train(model, numbered(4), budget=Budget(7, "images")).images == 8  # the last batch is whole
    assert train(Recorder(image_size=8), numbered(4), budget=Budget(0, "images")).steps == 0
    begin = time.monotonic()
    timed = train(Recorder(image_size=8), numbered(4), budget=Budget(0.3, "seconds"))
    assert timed.steps > 0 and 0.3 <= timed.seconds and time.monotonic() - begin < 30
    assert model.progress == sorted(model.progress) and model.progress[0] == 0 and model.progress[-1] < 1


def test_the_history_holds_the_mean_of_every_term() -> None:
    done = train(Recorder(image_size=8, batch_size=1), numbered(4), budget=Budget(200, "images"))
    assert len(done.history) == 100
    assert [row["L"] for row in done.history] == [2 * i + 1.5 for i in range(100)]
    assert [row["step"] for row in done.history] == [2 * i + 2 for i in range(100)]


@pytest.mark.parametrize("name", SMALL)
def test_losses_and_pictures_are_float32_whatever_the_networks_compute_in(name: str) -> None:
    model = build_model(name, image_size=64, options=SMALL[name])
    images = torch.rand(model.draws * model.batch_size, 3, 64, 64) * 2 - 1
    for progress in (0.0, 0.6, 0.95):  # DCGAN's three stages
        with torch.autocast("cpu", torch.bfloat16):
            terms = model.training_step(images, progress)
        assert {term.dtype for term in terms.values()} == {torch.float32}
    with torch.autocast("cpu", torch.bfloat16):
        drawn = model.reconstruct(images)
    assert drawn.dtype == torch.float32 and not torch.equal(drawn, drawn.bfloat16().float())


def test_the_mean_of_many_short_numbers_is_exact() -> None:
    class Short(Recorder):
        def training_step(self, images: Tensor, progress: float) -> dict[str, Tensor]:
            super().training_step(images, progress)
            return {"L": torch.tensor(0.6875, dtype=torch.bfloat16)}  # their sum in bf16 would not go beyond 256

    done = train(Short(image_size=8, batch_size=1), numbered(4), budget=Budget(60_000, "images"))
    assert {row["L"] for row in done.history} == {0.6875}


def test_a_term_of_one_stage_is_averaged_over_that_stage() -> None:
    class Staged(Recorder):
        def training_step(self, images: Tensor, progress: float) -> dict[str, Tensor]:
            super().training_step(images, progress)
            return {"A" if len(self.shown) <= 303 else "B": torch.tensor(float(len(self.shown)))}

    done = train(Staged(image_size=8, batch_size=1), numbered(4), budget=Budget(1000, "images"))
    assert [row for row in done.history if "A" in row and "B" in row] == [
        {**done.history[30], "A": 302.0, "B": 307.0}  # steps 301 to 303, and 304 to 310
    ]


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    file = tmp_path / "last.safetensors"
    model = Recorder(image_size=8, breaks_at=50)
    with pytest.raises(NonFiniteLoss, match=r"L became nan by step 50; .*learning rate"):
        train(model, numbered(4), budget=Budget(200, "images"), checkpoint=file, checkpoint_seconds=0, fingerprint="f")
    fresh = Recorder(image_size=8)
    done = load_checkpoint(file, fresh, "f")
    assert done is not None and done.steps == 49 and fresh.weight == 49


def run_clgan(file: Path | None, seed: int = 0, stop_after: int = 10**9) -> tuple[dict[str, Tensor], Progress]:
    torch.manual_seed(seed)
    model = CLGAN(**OPTIONS)  # type: ignore[arg-type]
    rows = 0

    def stop(row: dict[str, float]) -> None:
        nonlocal rows
        rows += 1
        if rows >= stop_after:
            raise KeyboardInterrupt

    settings = {"symmetry": "any+flips", "crop": True, "fingerprint": "f", "checkpoint_seconds": 0.0}
    done = train(model, good_images(), budget=Budget(24), seed=seed, checkpoint=file, on_log=stop, **settings)  # type: ignore[arg-type]
    return model.state_dict(), done


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def test_one_seed_is_one_result_and_another_seed_another() -> None:
    first, again, other = run_clgan(None)[0], run_clgan(None)[0], run_clgan(None, seed=1)[0]
    assert equal(first, again) and not equal(first, other)


def test_an_interrupted_run_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole, history = run_clgan(None)
    with pytest.raises(KeyboardInterrupt):
        run_clgan(tmp_path / "c.safetensors", stop_after=5)
    resumed, done = run_clgan(tmp_path / "c.safetensors")
    assert equal(whole, resumed)
    assert [{**row, "seconds": 0} for row in done.history] == [{**row, "seconds": 0} for row in history.history]


def _train_until_killed(file: Path) -> None:
    torch.set_num_threads(1)
    run_clgan(file)


def test_a_killed_run_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    file, whole = tmp_path / "c.safetensors", run_clgan(None)[0]
    context = multiprocessing.get_context("spawn")
    for _ in range(2):  # kill it as soon as the checkpoint changes, whatever it is doing
        before = file.stat().st_mtime_ns if file.exists() else None
        process = context.Process(target=_train_until_killed, args=(file,))
        process.start()
        deadline = time.monotonic() + 120
        while process.is_alive() and (not file.exists() or file.stat().st_mtime_ns == before):
            assert time.monotonic() < deadline, "no checkpoint appeared"
            time.sleep(0.001)
        os.kill(process.pid, signal.SIGKILL)  # type: ignore[arg-type]
        process.join()
    assert equal(whole, run_clgan(file)[0])


def test_a_checkpoint_of_other_settings_or_half_written_is_not_used(tmp_path: Path) -> None:
    file, model = tmp_path / "c.safetensors", Recorder(image_size=8)
    save_checkpoint(file, model, Progress(steps=3), "mine")
    assert load_checkpoint(file, model, "mine") == Progress(steps=3)
    assert load_checkpoint(file, model, "another's") is None
    file.write_bytes(file.read_bytes()[:-1])
    assert load_checkpoint(file, model, "mine") is None
    file.write_bytes(b"")
    assert load_checkpoint(file, model, "mine") is None


@pytest.mark.parametrize("lost", ["random/cpu", "steps", "weights/discriminator"])
def test_a_checkpoint_that_does_not_fit_leaves_everything_as_it_was(lost: str, tmp_path: Path) -> None:
    file = tmp_path / "c.safetensors"
    torch.manual_seed(0)
    other = CLGAN(**OPTIONS)  # type: ignore[arg-type]
    other.training_step(torch.rand(other.batch_size, 3, 32, 32), 0.0)
    save_checkpoint(file, other, Progress(steps=1), "f")
    file.write_bytes(file.read_bytes().replace(lost.encode(), lost[::-1].encode()))
    torch.manual_seed(1)
    model = CLGAN(**OPTIONS)  # type: ignore[arg-type]
    before, random = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    assert load_checkpoint(file, model, "f") is None
    assert equal(before, model.state_dict()) and torch.equal(torch.get_rng_state(), random)
    assert model.training_state() == {"G": {}, "D": {}}


def test_a_file_takes_its_place_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("old")
    with pytest.raises(OSError, match="disk"), replacing(file) as part:
        part.write_text("half")
        raise OSError("disk full")
    assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]


def test_devices_that_are_not_there_are_named() -> None:
    with pytest.raises(ValueError, match="'abacus' cannot be used here"):
        training.pick_device("abacus")
    assert training.pick_device("cpu").type == "cpu"
