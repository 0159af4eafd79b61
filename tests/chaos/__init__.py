"""Chaos: seeded federations whose processes, servers, network, disks and clocks fail.

`python -m tests.chaos --help` (`make chaos`) runs them. A seed determines the configuration of a
federation and its schedule of faults (`plan.py`); `faults.py` injects them, `federation.py` runs
the processes and restarts what ended, and `ledger.py` and `leftovers.py` check the result.
"""
