"""Attach to a Ray cluster quietly: the terminal belongs to the job's own lines."""

import logging
import os

import ray

from ssd1b.command import show

NOISY = ("ray", "ray.data", "ray.train", "ray._private", "ray.dashboard", "ray.dashboard.modules.dashboard_sdk")
"""Loggers whose INFO lines tell of every upload, connection and execution plan."""


def quiet() -> None:
    """Leave only errors of Ray's own logging in this process."""
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)


def connect(local_cpus: int) -> None:
    """Attach to the cluster that the environment names, or start one on this machine with so many logical CPUs."""
    quiet()
    if ray.is_initialized():
        return
    show("connecting to Ray")
    elsewhere = os.environ.get("RAY_ADDRESS") or os.environ.get("RAY_JOB_ID")
    # "local": a Ray of our own, rather than whichever somebody else left running on this machine
    own = {} if elsewhere else {"address": "local", "num_cpus": max(os.cpu_count() or 1, local_cpus)}
    ray.init(ignore_reinit_error=True, log_to_driver=False, logging_level=logging.ERROR, **own)
