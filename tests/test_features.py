"""Reference rows of feature-based methods: the script's own parts, its maps as scored by others, and the exhibit."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_runs import fake_run
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score
from test_ranking import pro_by_thresholds
from torch import Tensor, nn

from benchmarks import features
from clgan_lib.data import load_category
from clgan_lib.exhibits import beside, tables
from clgan_lib.exhibits.registry import EXHIBITS, make
from clgan_lib.exhibits.verify import check_run
from clgan_lib.interop.map_import import import_maps
from clgan_lib.runs.maps import read_maps
from clgan_lib.runs.record import read_record

METHOD = "Made up (pretrained)"
COST = {"train_s": 2.5, "evaluate_s": 1.0, "peak_bytes": 2**20, "images_seen": 7}


class MadeUp(nn.Module):
    """In the place of anomalib's model: a memory bank of brightness, batch norm inside, a score of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.seen, self.bank = nn.BatchNorm2d(3), [], torch.zeros(0)

    def forward(self, images: Tensor) -> Tensor | types.SimpleNamespace:
        assert not self.norm.training and -1 <= images.min() < 0 < images.max() <= 1
        if self.training:
            self.seen.append(images)
            return images
        maps = (images - self.bank).abs().mean(1, keepdim=True)
        return types.SimpleNamespace(anomaly_map=maps, pred_score=maps.amax((1, 2, 3)) + 1)

    def fit(self) -> None:
        self.bank = torch.cat(self.seen).mean(0)


def write(folder: Path, root: Path, levels: int = 60) -> None:
    """Made-up predictions for `nut` in the layout of the importer: the truth in noise, at few levels, with ties."""
    rng, category = np.random.default_rng(0), load_category(root, "nut", 256)
    noise = rng.integers(0, levels, (len(category.test_names), 256, 256))
    maps = (noise + levels // 3 * category.masks.numpy()).astype(np.float32)
    holdout = rng.integers(0, levels, (2, 256, 256)).astype(np.float32)
    features.write_maps(folder, category.test_names, maps, rng.random(len(maps)), holdout, COST)


def take(folder: Path, root: Path, **settings: object) -> Path:
    given = {"method": METHOD, "source": "a test", "category": "nut", "experiment": "e", "data_root": str(root)}
    return import_maps(folder, **{**given, "results_root": str(root / "r"), **settings}).folder


def test_scores_of_imported_maps_are_those_of_scikit_learn(tiny_root: Path) -> None:
    write(tiny_root / "maps", tiny_root)
    folder = take(tiny_root / "maps", tiny_root)
    assert folder == tiny_root / "r/e" / METHOD / "nut/seed0"
    stored, record = read_maps(folder), read_record(folder)
    scores, truths = stored["scores"], load_category(tiny_root, "nut", 256).masks.numpy()
    precision, recall, _ = precision_recall_curve(truths.ravel(), scores.ravel())
    own = np.loadtxt(tiny_root / "maps/image_scores.csv", delimiter=",", skiprows=1, usecols=1)
    expected = {
        "AUROC": roc_auc_score(truths.ravel(), scores.ravel()),
        "AP": average_precision_score(truths.ravel(), scores.ravel()),
        "AUPRO_0.3": pro_by_thresholds(scores, truths, 0.3),
        "F1_oracle": 100 * (2 * precision * recall / (precision + recall)).max(),
        "image_AUROC": roc_auc_score(truths.any((1, 2)), own),
    }
    assert {name: record.ranking[name] for name in expected} == pytest.approx(expected, abs=1e-5)
    assert record.thresholds.calibrated == pytest.approx(np.quantile(stored["holdout"], 0.99))
    assert record.time.model_dump() == COST | {"steps": None, "images_per_s": None}
    assert list(check_run(folder)) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [('{"seconds": 1}', "'seconds' is none of train_s"), ('{"train_s": "1"}', "train_s: "), ("[1", ""), ("3", "")],
)
def test_a_damaged_cost_is_named_and_nothing_is_written(text: str, words: str, tiny_root: Path) -> None:
    write(tiny_root / "maps", tiny_root)
    (tiny_root / "maps/cost.json").write_text(text)
    with pytest.raises(ValueError, match=f"cost.json: .*{words}.*correct or remove it"):
        take(tiny_root / "maps", tiny_root)
    assert not (tiny_root / "r").exists()


def test_a_run_from_images_to_metrics(tiny_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = MadeUp().eval()
    monkeypatch.setattr(features, "build", lambda method: model)
    monkeypatch.setitem(sys.modules, "anomalib", types.SimpleNamespace(__version__="0"))
    asked = ["--data-root", str(tiny_root), "--categories", "nut", "--leave-out", "nut=rust", "--methods", "PaDiM"]
    asked += ["--seeds", "3", "--maps", str(tiny_root / "maps"), "--results", str(tiny_root / "r")]
    (job,) = features.jobs(features.parse(asked))
    assert "7 of 7 test images scored" in features.run(job)
    folder = tiny_root / "r/features/PaDiM (pretrained)/nut/seed3"
    record, category = read_record(folder), load_category(tiny_root, "nut", 256)
    trained = category.train[:6].float() / 127.5 - 1  # of eight, the seventh is held out; as in every other run
    trained = torch.cat([trained, category.train[7:].float() / 127.5 - 1])
    assert record.time.images_seen == 7 and record.left_out == ["rust"] and record.images.holdout == 1
    torch.testing.assert_close(model.bank, trained.mean(0))
    first = (category.test[0].float() / 127.5 - 1 - model.bank).abs().mean(0)
    np.testing.assert_allclose(read_maps(folder)["scores"][0], first.numpy(), atol=1e-6)
    assert "anomalib 0" in record.imported.source and "ImageNet" in record.imported.source  # type: ignore[union-attr]


def test_each_patch_of_a_coreset_is_the_farthest_from_those_before() -> None:
    patches = torch.randn(200, 5, generator=torch.Generator().manual_seed(0))
    chosen = features.coreset(patches, 0.1)
    assert len(chosen) == 20 and len(torch.unique(chosen, dim=0)) == 20
    for i in range(1, len(chosen)):
        reach = torch.cdist(patches, chosen[:i]).amin(1)
        assert torch.cdist(chosen[i : i + 1], chosen[:i]).min() == pytest.approx(float(reach.max()), rel=1e-5)


def test_types_to_leave_out_name_their_category() -> None:
    asked = ["--data-root", "d", "--categories", "bottle", "nut", "--leave-out", "nut=flip", "nut=bent"]
    left_out = {job.category: job.leave_out for job in features.jobs(features.parse(asked))}
    assert left_out == {"bottle": [], "nut": ["flip", "bent"]}
    for wrong in ("flip", "nut=", "screw=flip"):
        with pytest.raises(ValueError, match=f"--leave-out: '{wrong}' is not CATEGORY=TYPE of bottle, nut"):
            features.jobs(features.parse([*asked, wrong]))


def pretrained(root: Path) -> None:
    """An experiment with a pretrained row and the template on two categories; CLGAN-RC of another on one of them."""
    for category in ("bottle", "metal_nut"):
        left_out = ["flip"] if category == "metal_nut" else []
        for model, variant in (("Near_pretrained_", "Near (pretrained)"), ("template", "")):
            fake_run(root, model, category, experiment="e", left_out=left_out, variant=variant)
    for seed in (0, 1):
        fake_run(root, "clgan_rc", "metal_nut", seed, experiment="restore", left_out=["flip"], native=True)
        fake_run(root, "template", "metal_nut", seed, experiment="restore", left_out=["flip"])


def test_reconstruction_beside_features(tmp_path: Path) -> None:
    pretrained(tmp_path)
    frame = tables.collect(tmp_path, "e")
    rows, (table,) = make(EXHIBITS["beside"], tmp_path / "e", frame)
    shown = [[cell.text for cell in row.cells] for row in table.rows]
    assert [line[0] for line in shown if line[0]] == [
        "embedded: bottle, every type",
        "embedded: metal_nut, every type",
        "embedded: metal_nut, without flip",
    ]
    assert [line[1] for line in shown] == ["CLGAN-RC", "Near (pretrained)", "template"] + 2 * [
        "CLGAN-RC, 2 000 images",
        "Near (pretrained)",
        "template",
    ]
    assert set(shown[0][2:-1]) == {"—"}  # no run of CLGAN-RC on these images
    runs = [read_record(tmp_path / f"restore/clgan_rc/metal_nut/seed{seed}") for seed in (0, 1)]
    mean = np.mean([run.scores["calibrated"]["image"].F1 for run in runs])
    assert shown[6][6].startswith(f"{mean:.1f} ±") and shown[6][8:] == ["12", "1", "512", "cpu"]
    assert all(abs(a - b) <= off for _, a, b, off in beside.check(tmp_path, frame, rows))
    changed = tmp_path / "restore/clgan_rc/metal_nut/seed1/metrics.json"
    content = json.loads(changed.read_text())
    content["ranking"]["AUROC"] = 0.25
    changed.write_text(json.dumps(content))
    wrong = [what for what, a, b, off in beside.check(tmp_path, frame, rows) if not abs(a - b) <= off]
    (what,) = wrong
    assert "category metal_nut, subset without flip, model CLGAN-RC, 2 000 images" in what and what.endswith("AUROC")


def test_an_experiment_without_pretrained_rows_has_no_such_block(tmp_path: Path) -> None:
    fake_run(tmp_path, "template")
    rows, shown = make(EXHIBITS["beside"], tmp_path / "fake", tables.collect(tmp_path, "fake"))
    assert rows.empty and shown == [] and not (tmp_path / "fake/tables/beside.csv").exists()
