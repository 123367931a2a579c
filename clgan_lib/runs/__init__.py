"""One run, from its settings to its folder, and back.

A run is one model on one category with one seed. `config` and `experiment` check the settings, `fingerprint` hashes the
training code, `execution` trains and evaluates. `folder`, `weights`, `maps` and `record` write and read the files of a run.
Imports the core and `synthetic`.
"""
