"""The grid: one papermill execution of notebooks/10_train.ipynb per model, category and seed.

    snakemake --cores all --config experiment=quick                              the embedded data
    snakemake --cores all --config experiment=mvtec data_root=/data/mvtec_ad     MVTec AD
    snakemake -n --config experiment=quick                                       what is missing

A run is redone when its settings, the training code or the code of the training notebook changed; prose and figures
redo nothing. Interrupted runs go on from their checkpoint.
"""

import hashlib
import json
import shlex
import sys

from clgan_lib.config import Experiment, model_folder

overrides = {"data_root": config["data_root"]} if config.get("data_root") else {}
experiment = Experiment.load(config.get("experiment", "quick"), **overrides)
RUNS = {(model_folder(run.model), run.category, str(run.seed)): run for run in experiment.runs()}
NOTEBOOK = "notebooks/10_train.ipynb"
PAPERMILL = f"{shlex.quote(sys.executable)} -m papermill"  # of this environment, activated or not


def run_of(wildcards):
    return RUNS[wildcards.model, wildcards.category, wildcards.seed]


def notebook_code():
    cells = json.load(open(NOTEBOOK, encoding="utf8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return hashlib.sha256("\n".join(code).encode()).hexdigest()


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
        settings=lambda wildcards: json.dumps(run_of(wildcards).model_dump()),
        fingerprint=lambda wildcards: run_of(wildcards).fingerprint() + notebook_code(),
    threads: lambda wildcards: run_of(wildcards).threads or workflow.cores
    message:
        "{wildcards.model} on {wildcards.category}, seed {wildcards.seed}"
    shell:
        """
        {PAPERMILL} {input:q} {log.notebook:q} -y {params.settings:q} --kernel python3 --execution-timeout 604800 \
            --no-progress-bar > {log.text:q} 2>&1 || {{
            echo FAILED: model {wildcards.model:q}, category {wildcards.category:q}, seed {wildcards.seed:q}: \
                "$(grep -m 1 'Exception encountered at' {log.text:q} || echo 'the kernel died'):" \
                "$(grep -v '^ *$' {log.text:q} | tail -n 1) (whole notebook: "{log.notebook:q}")" >&2
            exit 1
        }}
        """
