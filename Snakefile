"""The grid: one papermill execution of notebooks/10_train.ipynb per model (or variant), category and seed.

    snakemake --cores all --config experiment=quick                              the embedded data
    snakemake --cores all --config experiment=mvtec data_root=/data/mvtec_ad     MVTec AD
    snakemake -n --config experiment=quick                                       what is missing
    snakemake --profile profiles/slurm --config experiment=mvtec data_root=...   on a cluster, see docs/cluster.md

Snakemake reads NAME=VALUE as YAML: a folder with ' #' in its name needs more quotes, data_root="'/x/my data #3'", or
`make benchmark DATA="/x/my data #3"`.

A run without its own number of threads gets all cores of the machine. With GPUs the cores are divided, so that as many runs
go at a time as there are GPUs, or runs_per_gpu times as many (--config runs_per_gpu=4). The GPUs take turns.

A run is repeated when its settings, the training code or the code of the training notebook changed, not for prose or
figures. Interrupted runs go on from their checkpoint. `make benchmark` calls this through `clgan_lib.runs.grid`.
"""

import hashlib
import json
import os
import shlex
import sys
from pathlib import Path

import torch
import yaml

from clgan_lib.runs.config import model_folder
from clgan_lib.runs.estimate import announce
from clgan_lib.runs.experiment import Experiment

overrides = {"data_root": str(config["data_root"])} if config.get("data_root") not in (None, "") else {}
experiment = Experiment.load(str(config.get("experiment", "quick")), **overrides)
experiment.require_data()
RUNS = {(model_folder(run.row), run.category, str(run.seed)): run for run in experiment.runs()}
NOTEBOOK = "notebooks/10_train.ipynb"
PAPERMILL = f"{shlex.quote(sys.executable)} -m clgan_lib.runs.notebook"  # papermill, of this environment, activated or not

SEEN = range(torch.cuda.device_count())  # visible GPUs: a scheduler or the user may set CUDA_VISIBLE_DEVICES
GPUS = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, SEEN))).replace(",", " ") if SEEN else ""
AT_ONCE = max(1, len(SEEN) * int(config.get("runs_per_gpu", 1)))
CLUSTER_CORES = 4  # of a run whose executor does not say how many there are


def run_of(wildcards):
    return RUNS[wildcards.model, wildcards.category, wildcards.seed]


def threads_of(wildcards):
    return run_of(wildcards).threads or max(1, (workflow.resource_settings.cores or CLUSTER_CORES) // AT_ONCE)


def as_yaml(settings):
    """Settings on one line for papermill. JSON would not do: YAML reads its 5e-05 as text."""
    return yaml.safe_dump(settings, default_flow_style=True, width=float("inf"), allow_unicode=True).strip()


def notebook_code():
    cells = json.load(open(NOTEBOOK, encoding="utf8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return hashlib.sha256("\n".join(code).encode()).hexdigest()


onstart:
    missing = [job.wildcards for job in workflow.dag.needrun_jobs() if job.rule.name == "train"]
    runs = [run_of(wildcards).model_copy(update={"threads": threads_of(wildcards)}) for wildcards in missing]
    print(announce(runs, workflow.resource_settings.cores, Path(f"results/{experiment.name}/log")), flush=True)


rule all:
    input:
        [f"results/{experiment.name}/{model}/{category}/seed{seed}/metrics.json" for model, category, seed in RUNS],


rule train:
    input:
        ancient(NOTEBOOK),
    output:
        f"results/{experiment.name}/{{model}}/{{category}}/seed{{seed}}/metrics.json",
    log:
        notebook=f"results/{experiment.name}/log/{{model}}-{{category}}-seed{{seed}}.ipynb",
        text=f"results/{experiment.name}/log/{{model}}-{{category}}-seed{{seed}}.log",
    params:
        settings=lambda wildcards: as_yaml(run_of(wildcards).model_dump()),
        fingerprint=lambda wildcards: run_of(wildcards).fingerprint() + notebook_code(),
    threads: threads_of
    message:
        "{wildcards.model} on {wildcards.category}, seed {wildcards.seed}"
    shell:
        """
        gpus=({GPUS})  # each run sees one GPU: they take turns
        [ -z "{GPUS}" ] || export CUDA_VISIBLE_DEVICES=${{gpus[$(({jobid} % ${{#gpus[@]}}))]}}
        export OMP_NUM_THREADS={threads}
        for attempt in 1 2 3; do  # two kernels that start at once can pick the same port, and one dies
            {PAPERMILL} {input:q} {log.notebook:q} -y {params.settings:q} --kernel python3 --execution-timeout 604800 \
                --no-progress-bar > {log.text:q} 2>&1 && exit 0
            grep -q 'Kernel died before replying' {log.text:q} || break
        done
        echo FAILED: model {wildcards.model:q}, category {wildcards.category:q}, seed {wildcards.seed:q}: \
            "$(grep -m 1 'Exception encountered at' {log.text:q} || echo 'the kernel died'):" \
            "$(grep -v '^ *$' {log.text:q} | tail -n 1) (whole notebook: "{log.notebook:q}")" >&2
        exit 1
        """
