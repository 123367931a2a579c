"""The grid as a person wants to see it: a line a run, a bar with the time left, a table at the end.

    python -m clgan_lib.runs.grid quick --cores all
    python -m clgan_lib.runs.grid mvtec --data /data/mvtec_ad --profile profiles/slurm

Snakemake does the work. What it prints goes to ``results/<experiment>/log/snakemake.log``, and this program reads it there.
Without a terminal, or with the environment variable CI, there is no bar and no control character.
"""

from __future__ import annotations

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

from tqdm import tqdm

from clgan_lib.paths import experiment_file

# Lines of Snakemake's log, of versions 8 and 9, and of the Snakefile
STARTED = re.compile(r"Job (\d+): (.+) on (.+), seed (\d+)$")
FINISHED = re.compile(r"Finished job(?:id:)? (\d+)")
FAILED = re.compile(r"FAILED: model (.+), category (.+), seed (\d+): ")
PLAN = re.compile(r"\d+ runs?[,;] ")
STOPPED, NOTHING_RAN = 130, 2  # exit statuses: after Ctrl-C; where the grid could not begin
DIGITS = {"F1": 1, "AUROC": 3}  # of what is said of a run
TAIL = 25  # lines of the log that explain why


@dataclass
class Watch:
    """What the log has said so far.

    Attributes:
        folder: of the experiment.
        bar: a tqdm bar from 0 to 1, or None.
        begun: the moment of the plan.
        expected: seconds of each run by its folder, 1 where nothing is known.
        running: folder and moment of the start, by job number.
        took: seconds of each finished run.
        failed: runs that said why.
    """

    folder: Path
    bar: Any = None
    begun: float = 0.0
    expected: dict[str, float] = field(default_factory=dict)
    running: dict[str, tuple[str, float]] = field(default_factory=dict)
    took: dict[str, float] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)

    def read(self, line: str) -> None:
        """Take in one line of the log, and say what a person wants to know of it."""
        if found := STARTED.match(line):
            self.running[found[1]] = (f"{found[2]}/{found[3]}/seed{found[4]}", time.monotonic())
        elif (found := FINISHED.match(line)) and found[1] in self.running:
            run, begin = self.running.pop(found[1])
            self.took[run] = time.monotonic() - begin
            scores = measures(self.folder / run / "metrics.json")
            parts = [f"{name} {scores[name]:.{digits}f}" for name, digits in DIGITS.items() if name in scores]
            self.say(f"{self.count()} {run.replace('/', ' ')}: {', '.join([*parts, f'{self.took[run]:.0f} s'])}")
        elif found := FAILED.match(line):
            run = "/".join((found[1], found[2], f"seed{found[3]}"))
            self.failed.add(run)
            self.running = {number: begun for number, begun in self.running.items() if begun[0] != run}
            self.say(f"{self.count()} {line}{more_of_error(self.folder / 'log' / (run.replace('/', '-') + '.log'))}")
        elif PLAN.match(line):
            estimate = json.loads((self.folder / "log" / "estimate.json").read_text(encoding="utf8"))
            self.expected = {run: seconds or 1.0 for run, seconds in estimate.items()}
            self.begun = time.monotonic()
            self.say(line)

    def count(self) -> str:
        """How many runs have ended, of how many."""
        return f"[{len(self.took) + len(self.failed)}/{len(self.expected)}]"

    def say(self, line: str) -> None:
        """Print a line, above the bar where there is one."""
        self.bar.write(line) if self.bar is not None else print(line, flush=True)

    def draw(self) -> None:
        """Move the bar; the time left is the estimate's, corrected by what the finished runs took."""
        if self.bar is None or not self.expected:
            return
        now, known = time.monotonic(), [run for run in self.took if run in self.expected]
        scale = sum(self.took[run] for run in known) / sum(self.expected[run] for run in known) if known else 1.0
        spent = {run: now - start for run, start in self.running.values()}
        left = sum(
            max(0.0, scale * seconds - spent.get(run, 0.0))
            for run, seconds in self.expected.items()
            if run not in self.took and run not in self.failed
        ) / max(1, len(spent))
        self.bar.n = (now - self.begun) / max(now - self.begun + left, 1e-9)
        self.bar.set_description_str(f"{self.count()} {tqdm.format_interval(left) if left else 'a little'} left")


def more_of_error(log: Path) -> str:
    """An error message of several lines, of which FAILED has the last alone; "" for one of a single line."""
    text = log.read_text(encoding="utf8", errors="replace").rstrip() if log.is_file() else ""
    name = re.search(r"^(\w+) +Traceback \(most recent call last\)", text, re.M)
    start = text.rfind(f"\n{name[1]}: ") if name else -1
    return text[start:] if start >= 0 and "\n" in text[start + 1 :] else ""


def measures(path: Path) -> dict[str, float]:
    """A run's F1 under the paper's threshold and under its own, AUROC, and seconds of training; what it has of them."""
    found: dict[str, float] = {}
    with suppress(OSError, ValueError, KeyError, TypeError):
        metrics = json.loads(path.read_text(encoding="utf8"))
        scores = metrics["scores"]
        found["seconds"] = float(metrics["time"]["train_s"])
        found["F1"] = float(scores["dual_threshold"]["image"]["F1"])
        found["AUROC"] = float(metrics["ranking"]["AUROC"])
        found["own F1"] = float(scores.get("native", scores["calibrated"])["image"]["F1"])
    return found


def summary(folder: Path) -> str:
    """A row a model: means over the runs that are there."""
    lines = [f"{'':24}{'runs':>5}{'F1':>8}{'own F1':>8}{'AUROC':>8}{'seconds':>9}"]
    for model in sorted({path.parents[2] for path in folder.glob("*/*/seed*/metrics.json")}):
        runs = [found for path in model.glob("*/seed*/metrics.json") if (found := measures(path))]
        cells = ""
        for name, width, digits in (("F1", 8, 1), ("own F1", 8, 1), ("AUROC", 8, 3), ("seconds", 9, 0)):
            values = [run[name] for run in runs if name in run]
            cells += f"{sum(values) / len(values):{width}.{digits}f}" if values else " " * width
        lines.append(f"{model.name:24}{len(runs):5}{cells}")
    return "\n".join(
        [*lines, "F1: the paper's threshold; own F1: the model's own, or the calibrated one; seconds: of training"]
    )


def follow(process: subprocess.Popen[bytes], log: Path, watch: Watch) -> None:
    """Read the log on until the process has ended and all is read."""
    rest = ""
    with open(log, encoding="utf8", errors="replace") as lines:
        ended = False
        while not ended:
            ended = process.poll() is not None  # before reading: what it wrote last is read, too
            *whole, rest = (rest + lines.read()).split("\n")
            for line in whole:
                watch.read(line)
            watch.draw()
            time.sleep(0 if ended else 0.3)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Pass Ctrl-C on to Snakemake and its runs, and wait for them; a second one ends them at once."""
    how = signal.SIGINT
    while process.poll() is None:
        try:
            os.killpg(process.pid, how)
            process.wait()
        except KeyboardInterrupt:
            how = signal.SIGKILL


def main(argv: list[str] | None = None) -> int:
    """Run a grid; see the module. What it does not know it gives to Snakemake."""
    parser = argparse.ArgumentParser(description="Train the missing runs of an experiment.")
    parser.add_argument("experiment", help="a file of config/, or a path to one")
    parser.add_argument("--data", default="", help="a folder in the MVTec AD layout")
    arguments, others = parser.parse_known_args(argv)
    try:
        name = experiment_file(arguments.experiment).stem
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return NOTHING_RAN
    folder = Path("results") / name
    log = folder / "log" / "snakemake.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    # In a file, since `--config name=value` would read '123' as a number and end a folder's name at ' #'
    config = log.with_name("grid.json")
    config.write_text(json.dumps({"experiment": arguments.experiment, "data_root": arguments.data}), encoding="utf8")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # as Ctrl-C
    people = sys.stdout.isatty() and not os.environ.get("CI")
    bar = (
        tqdm(total=1.0, desc="starting", bar_format="{desc} |{bar:30}|", file=sys.stdout, leave=False)
        if people
        else None
    )
    watch = Watch(folder, bar)
    watch.say(f"{name}: looking for runs that are missing (Snakemake's log: {log})")
    with open(log, "wb") as out:
        process = subprocess.Popen([sys.executable, "-m", "snakemake", *others, "--configfile", str(config)],
                                   stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)  # fmt: skip
    try:
        follow(process, log, watch)
        status = process.returncode
    except KeyboardInterrupt:
        stop(process)
        status = STOPPED
    if bar is not None:
        bar.close()
    return report(watch, log, status)


def report(watch: Watch, log: Path, status: int) -> int:
    """Say how the grid ended; the exit status."""
    if status == STOPPED:
        print("Stopped. The same command goes on from here.")
        return STOPPED
    if status and not watch.running and not watch.took and not watch.failed:
        print("\n".join(log.read_text(encoding="utf8", errors="replace").splitlines()[-TAIL:]), file=sys.stderr)
        return NOTHING_RAN
    if not watch.expected:
        print("Every run is there.")
    for run in sorted(set(watch.expected) - set(watch.took) - watch.failed):  # a cluster's job that died, for one
        print(f"MISSING: {run}, see {log.parent / run.replace('/', '-')}.log and {log}", file=sys.stderr)
    print(f"\n{summary(watch.folder)}\n", flush=True)
    return int(status != 0)


if __name__ == "__main__":
    sys.exit(main())
