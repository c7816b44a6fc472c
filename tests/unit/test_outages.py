"""What is done without Prefect's server: nobody waits for one that hangs for as long as it takes."""

import socket
from collections.abc import Iterator

import pytest
from prefect.settings import (
    PREFECT_API_REQUEST_TIMEOUT,
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    temporary_settings,
)

from tasks.outages import outlasting


@pytest.fixture
def hanging() -> Iterator[None]:
    """A server that takes connections and never answers; each call is tried once, and may take a day."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/api"
        patient = {PREFECT_CLIENT_MAX_RETRIES: 0, PREFECT_API_REQUEST_TIMEOUT: 86_400.0}
        with temporary_settings({PREFECT_API_URL: url, **patient}):
            yield


def ask_it() -> str:
    raise AssertionError("it was asked to do something")


def test_a_server_that_hangs_is_given_up_soon(hanging: None) -> None:
    assert outlasting(ask_it, lambda: "done without", "this") == "done without"
