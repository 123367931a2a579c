"""The tables and figures of the paper and of the report, each made from finished runs.

`run_table` reads the runs, a module per exhibit measures and lays out, and `registry` lists the exhibits. `report` puts
them on one page; `verify` makes every table again and compares. Imports `runs`, `render`, `audit`, `restoring` and the core.
"""
