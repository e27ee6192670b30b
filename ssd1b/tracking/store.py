"""Where MLflow keeps things, and a client of it: a server, or a SQLite file under the storage root.

Safe to use from several processes and threads at once.
"""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from mlflow import MlflowClient, set_tracking_uri
from mlflow.exceptions import MlflowException
from requests.exceptions import RequestException
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from ssd1b.home import home, tracking_uri

SQLITE_BUSY_S = 60
"""How long a writer waits for another process's write before SQLite gives up; its default is 5 s."""
PASSING = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "DEADLINE_EXCEEDED", "ABORTED")
"""What MLflow says of a failure that may pass; a server that cannot be reached is an INTERNAL_ERROR to its client."""


class UnansweredError(ValueError):
    """The store does not answer, but may do so later."""


@contextmanager
def answering() -> Iterator[None]:
    """Turn what a store that is down or overrun makes its client raise into UnansweredError."""
    try:
        yield
    except MlflowException as error:
        if error.error_code not in PASSING:
            raise
        raise UnansweredError(f"MLflow at {tracking_uri()} does not answer ({str(error).splitlines()[0]})") from error
    except (OperationalError, ConnectionError, RequestException) as error:
        raise UnansweredError(f"MLflow at {tracking_uri()} does not answer ({str(error).splitlines()[0]})") from error


def locator() -> str:
    """Return the tracking uri, with patience for other writers where it is SQLite."""
    uri = tracking_uri()
    if not uri.startswith("sqlite:") or "timeout=" in uri:
        return uri
    return f"{uri}{'&' if '?' in uri else '?'}timeout={SQLITE_BUSY_S}"


def connect() -> MlflowClient:
    """Return a client of the store that the environment names.

    Raises:
        UnansweredError: it does not answer.
    """
    make_global(locator())
    return client_of(locator())


@cache
def client_of(uri: str) -> MlflowClient:
    for noisy in ("mlflow", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        with first_use():
            client = MlflowClient(tracking_uri=uri, registry_uri=uri)
            client.search_experiments(max_results=1)
    except (MlflowException, SQLAlchemyError, OSError) as error:
        told = f"no MLflow store answers at {uri}: start it or mend MLFLOW_TRACKING_URI ({error})"
        raise UnansweredError(told) from error
    return client


def make_global(uri: str) -> None:
    """Point MLflow's global state at the store: by that, not by the client's uri, it resolves a version's source.

    Setting it also exports MLFLOW_TRACKING_URI, which would outlive a change of the storage root; that is taken back.
    """
    before = os.environ.get("MLFLOW_TRACKING_URI")
    set_tracking_uri(uri)
    if before is None:
        os.environ.pop("MLFLOW_TRACKING_URI", None)
    else:
        os.environ["MLFLOW_TRACKING_URI"] = before


@contextmanager
def first_use() -> Iterator[None]:
    """Hold a lock while a store is opened: MLflow does not survive two processes making one SQLite file's tables."""
    home().mkdir(parents=True, exist_ok=True)
    with (home() / "mlflow.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # closing the file lets go
        yield
