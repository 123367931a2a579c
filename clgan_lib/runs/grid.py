"""The grid on the terminal: one line a run, a bar with the time left, a table at the end.

    python -m clgan_lib.runs.grid quick --cores all
    python -m clgan_lib.runs.grid mvtec --data /data/mvtec_ad --profile profiles/slurm

Snakemake runs the experiment. This module follows its log, ``results/<experiment>/log/snakemake.log``. Without a
terminal, or with the environment variable CI, it prints plain lines only.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from clgan_lib.paths import experiment_file
from clgan_lib.runs.notebook import prepare_environment

# Lines in the log of Snakemake 8 and 9, and of the Snakefile
_STARTED = re.compile(r"Job (\d+): (.+) on (.+), seed (\d+)$")
_FINISHED = re.compile(r"Finished job(?:id:)? (\d+)")
_FAILED = re.compile(r"FAILED: model (.+), category (.+), seed (\d+): ")
_PLAN = re.compile(r"\d+ runs?[,;] ")
STOPPED, NOTHING_RAN = 130, 2  # exit statuses: after Ctrl-C; where the grid could not begin
_DECIMALS = {"F1": 1, "own F1": 1, "AUROC": 3, "seconds": 0}
_LEGEND = "F1: the paper's threshold; own F1: the model's own, or the calibrated one; seconds: of training"
_TAIL = 25  # last lines of the log, shown where the grid could not begin


@dataclass
class Watch:
    """The state of a grid, read from the log. A run is named by its folder below the experiment's."""

    folder: Path  # of the experiment
    bar: Any = None  # a tqdm bar from 0 to 1
    begun: float = 0.0  # moment of the plan, seconds
    expected: dict[str, float] = field(default_factory=dict)  # estimated seconds of each run; 1 where unknown
    running: dict[str, tuple[str, float]] = field(default_factory=dict)  # run and moment of its start, by job number
    took: dict[str, float] = field(default_factory=dict)  # seconds of each finished run
    failed: set[str] = field(default_factory=set)  # runs that ended with an error

    def read(self, line: str) -> None:
        """Follow one line of the log, and print what it means."""
        if match := _STARTED.match(line):
            self.running[match[1]] = (f"{match[2]}/{match[3]}/seed{match[4]}", time.monotonic())
        elif (match := _FINISHED.match(line)) and match[1] in self.running:
            run, start = self.running.pop(match[1])
            self.took[run] = time.monotonic() - start
            scores = _run_scores(self.folder / run / "metrics.json")
            parts = [f"{name} {scores[name]:.{_DECIMALS[name]}f}" for name in ("F1", "AUROC") if name in scores]
            self.say(f"{self.count()} {run.replace('/', ' ')}: {', '.join([*parts, f'{self.took[run]:.0f} s'])}")
        elif match := _FAILED.match(line):
            run = f"{match[1]}/{match[2]}/seed{match[3]}"
            self.failed.add(run)
            self.running = {number: job for number, job in self.running.items() if job[0] != run}
            self.say(f"{self.count()} {line}{full_error(self.folder / 'log' / (run.replace('/', '-') + '.log'))}")
        elif _PLAN.match(line):
            estimate = json.loads((self.folder / "log" / "estimate.json").read_text(encoding="utf8"))
            self.expected = {run: seconds or 1.0 for run, seconds in estimate.items()}
            self.begun = time.monotonic()
            self.say(line)

    def count(self) -> str:
        """Ended runs, of all."""
        return f"[{len(self.took) + len(self.failed)}/{len(self.expected)}]"

    def say(self, line: str) -> None:
        """Print a line, above the bar if there is one."""
        self.bar.write(line) if self.bar is not None else print(line, flush=True)

    def draw(self) -> None:
        """Move the bar. The time left is the estimate, scaled by what finished runs took."""
        if self.bar is None or not self.expected:
            return
        now, spent = time.monotonic(), sum(self.expected.get(run, 0.0) for run in self.took)
        scale = sum(seconds for run, seconds in self.took.items() if run in self.expected) / spent if spent else 1.0
        running = {run: now - start for run, start in self.running.values()}
        todo = self.expected.keys() - self.took.keys() - self.failed
        left = sum(max(0.0, scale * self.expected[run] - running.get(run, 0.0)) for run in todo) / max(1, len(running))
        self.bar.n = (now - self.begun) / max(now - self.begun + left, 1e-9)
        self.bar.set_description_str(f"{self.count()} {tqdm.format_interval(left) if left else 'a little'} left")


def full_error(log: Path) -> str:
    """The error message at the end of a run's log if it has several lines, else "": FAILED quotes the last line."""
    text = log.read_text(encoding="utf8", errors="replace").rstrip() if log.is_file() else ""
    name = re.search(r"^(\w+) +Traceback \(most recent call last\)", text, re.M)
    start = text.rfind(f"\n{name[1]}: ") if name else -1
    return text[start:] if start >= 0 and "\n" in text[start + 1 :] else ""


def _run_scores(path: Path) -> dict[str, float]:
    """Training time and scores in a ``metrics.json``, by the names of `_DECIMALS`; empty if it cannot be read."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        metrics = json.loads(path.read_text(encoding="utf8"))
        scores = metrics["scores"]
        own = scores.get("native", scores["calibrated"])
        return {
            "F1": scores["dual_threshold"]["image"]["F1"],
            "own F1": own["image"]["F1"],
            "AUROC": metrics["ranking"]["AUROC"],
            "seconds": metrics["time"]["train_s"],
        }
    return {}


def summary(folder: Path) -> str:
    """The table at the end: a row a model, means over its finished runs."""
    paths = folder.glob("*/*/seed*/metrics.json")
    runs = [{"model": path.parents[2].name, **scores} for path in paths if (scores := _run_scores(path))]
    if not runs:
        return "No run is finished."
    groups = pd.DataFrame(runs).groupby("model")
    table = groups.mean().rename_axis(None)
    table.insert(0, "runs", groups.size())
    decimals = {name: f"{{:.{count}f}}".format for name, count in _DECIMALS.items()}
    return f"{table.to_string(formatters=decimals, col_space=8)}\n{_LEGEND}"


def _follow(process: subprocess.Popen[bytes], log: Path, watch: Watch) -> None:
    """Read the log until the process has ended."""
    rest, ended = "", False
    with open(log, encoding="utf8", errors="replace") as lines:
        while not ended:
            ended = process.poll() is not None  # before reading, so that the last lines are read, too
            *whole, rest = (rest + lines.read()).split("\n")
            for line in whole:
                watch.read(line)
            watch.draw()
            time.sleep(0 if ended else 0.3)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Pass Ctrl-C on to Snakemake and its runs, and wait for them; a second one kills them."""
    how = signal.SIGINT
    while process.poll() is None:
        try:
            os.killpg(process.pid, how)
            process.wait()
        except KeyboardInterrupt:
            how = signal.SIGKILL


def main(argv: list[str] | None = None) -> int:
    """Run a grid and return its exit status; options that are not listed here go to Snakemake."""
    parser = argparse.ArgumentParser(description="Train the missing runs of an experiment.")
    parser.add_argument("experiment", help="a file of config/, or a path to one")
    parser.add_argument("--data", default="", help="a folder in the MVTec AD layout")
    arguments, others = parser.parse_known_args(argv)
    try:
        name = experiment_file(arguments.experiment).stem
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return NOTHING_RAN
    prepare_environment()
    folder = Path("results") / name
    log = folder / "log" / "snakemake.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    # In a file, since `--config name=value` would read '123' as a number and end a folder's name at ' #'
    config = log.with_name("grid.json")
    config.write_text(json.dumps({"experiment": arguments.experiment, "data_root": arguments.data}), encoding="utf8")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # a shell's `&` ignores the first, nohup the last
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    plain = not sys.stdout.isatty() or bool(os.environ.get("CI"))
    with tqdm(
        desc="starting", total=1.0, bar_format="{desc} |{bar:30}|", file=sys.stdout, leave=False, disable=plain
    ) as bar:
        watch = Watch(folder, None if plain else bar)
        watch.say(f"{name}: looking for runs that are missing (Snakemake's log: {log})")
        with open(log, "wb") as out:
            command = [sys.executable, "-m", "snakemake", *others, "--configfile", str(config)]
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )
        try:
            _follow(process, log, watch)
        except KeyboardInterrupt:
            _stop(process)
            bar.close()
            print("Stopped. The same command goes on from here.")
            return STOPPED
    return _report(watch, log, process.returncode)


def _report(watch: Watch, log: Path, status: int) -> int:
    """Print how the grid ended; the exit status."""
    if status and not (watch.running or watch.took or watch.failed):
        print("\n".join(log.read_text(encoding="utf8", errors="replace").splitlines()[-_TAIL:]), file=sys.stderr)
        return NOTHING_RAN
    if not watch.expected:
        print("Every run is there.")
    for run in sorted(watch.expected.keys() - watch.took.keys() - watch.failed):  # such as a cluster's job that died
        print(f"MISSING: {run}, see {log.parent / run.replace('/', '-')}.log and {log}", file=sys.stderr)
    print(f"\n{summary(watch.folder)}\n", flush=True)
    return int(status != 0)


if __name__ == "__main__":
    sys.exit(main())
