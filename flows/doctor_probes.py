"""Asking services what ``core.resources.doctor_services`` judges; nothing is changed, no secret is told."""

import base64
import ipaddress
import re
import socket
import sqlite3
import time
import uuid
from contextlib import closing, suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit, urlunsplit

import httpx
import yaml

from core.errors import EventLogError
from core.events.open import is_shared, open_storage, open_store
from core.events.stores import SegmentStore
from core.logs import headline, without_secrets
from core.resources.doctor_services import Pool, PrefectFacts
from settings.app import Settings
from settings.layout import Layout

TIMEOUT_S = 4.0
"""Of one answer."""
_PREFECT_YAML = Path(__file__).resolve().parents[1] / "prefect.yaml"


class Clocks(dict[str, float]):
    """Time of each service less ours, seconds, by name; filled while others are asked."""

    def note(self, name: str, asked_at: float, answer: httpx.Response) -> None:
        """Look at the time that an answer carries: whole seconds, of any moment since it was asked for."""
        waited_s = time.time() - asked_at
        with suppress(KeyError, TypeError, ValueError):
            there = parsedate_to_datetime(answer.headers["date"]).timestamp()
            offset_s = there + 0.5 - (asked_at + waited_s / 2)
            self[name] = offset_s if abs(offset_s) > 1.5 + waited_s / 2 else 0.0


def probe_prefect(clocks: Clocks) -> PrefectFacts:
    """Ask the configured Prefect API."""
    import prefect
    from prefect.settings import get_current_settings

    api = get_current_settings().api
    if not api.url:
        return PrefectFacts()
    url, shown = api.url.rstrip("/"), without_secrets(api.url)
    headers = {}
    if api.auth_string:
        encoded = base64.b64encode(api.auth_string.get_secret_value().encode()).decode()
        headers["Authorization"] = f"Basic {encoded}"
    elif api.key:
        headers["Authorization"] = f"Bearer {api.key.get_secret_value()}"
    known: dict[str, Any] = {"url": shown, "own_version": prefect.__version__}
    try:
        with httpx.Client(
            timeout=TIMEOUT_S, headers=headers, verify=not api.tls_insecure_skip_verify
        ) as client:
            asked_at, health = time.time(), client.get(f"{url}/health")
            clocks.note("the Prefect server", asked_at, health)
            version = client.get(f"{url}/admin/version")
            if version.status_code in (401, 403):
                return PrefectFacts(
                    **known, problem="it does not take our password" if headers else "it asks for a password",
                    remedy="export PREFECT_API_AUTH_STRING=USER:PASSWORD as the server has it in "
                    "PREFECT_SERVER_API_AUTH_STRING",
                )  # fmt: skip
            for answer in (health, version):
                answer.raise_for_status()
            return PrefectFacts(**known, **_about(client, url, version.json()))
    except httpx.TimeoutException:
        problem, remedy = (
            f"it does not answer within {TIMEOUT_S:g} s",
            "restart it; see its log and its database",
        )
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        problem = _reason(error)
        remedy = "prefect server start on its machine, or correct PREFECT_API_URL"
    return PrefectFacts(**known, problem=problem, remedy=remedy)


def _about(client: httpx.Client, url: str, version: str) -> dict[str, Any]:
    told = client.get(f"{url}/admin/settings")
    server = told.json().get("server", {}) if told.is_success else {}
    bare = httpx.get(f"{url}/admin/version", timeout=TIMEOUT_S)
    flows = {flow["id"]: flow["name"] for flow in _all(client, f"{url}/flows/filter")}
    deployments = _all(client, f"{url}/deployments/filter")
    return {
        "version": version,
        "is_loopback": _is_loopback(urlsplit(url).hostname or ""),
        "asks_for_auth": bare.status_code in (401, 403),
        "lease_storage": server.get("concurrency", {}).get("lease_storage", ""),
        "has_scheduler": server.get("services", {}).get("scheduler", {}).get("enabled"),
        "pools": {
            pool["name"]: _pool(client, url, pool) for pool in _all(client, f"{url}/work_pools/filter")
        },
        "limits": {
            limit["name"]: limit["limit"] for limit in _all(client, f"{url}/v2/concurrency_limits/filter")
        },
        "deployments": frozenset(f"{flows.get(d['flow_id'], '?')}/{d['name']}" for d in deployments),
    }


def _pool(client: httpx.Client, url: str, pool: dict[str, Any]) -> Pool:
    place = f"{url}/work_pools/{pool['name']}"
    workers = _all(client, f"{place}/workers/filter")
    return Pool(
        kind=pool["type"],
        is_paused=pool["is_paused"],
        queues=tuple(queue["name"] for queue in _all(client, f"{place}/queues/filter")),
        num_online=sum(worker["status"] == "ONLINE" for worker in workers),
    )


def _all(client: httpx.Client, address: str) -> list[dict[str, Any]]:
    answer = client.post(address, json={"limit": 200})
    answer.raise_for_status()
    found: list[dict[str, Any]] = answer.json()
    return found


def wanted_deployments() -> tuple[frozenset[str], tuple[str, ...]]:
    """Deployments that ``prefect.yaml`` names, as ``flow/deployment``, and the work pools that they use."""
    listed = yaml.safe_load(_PREFECT_YAML.read_text(encoding="utf-8"))["deployments"]
    pools = {
        str(entry["work_pool"]["name"]) for entry in listed if "{{" not in str(entry["work_pool"]["name"])
    }
    names = (
        f"{re.split('[:.]', entry['entrypoint'])[-1].replace('_', '-')}/{entry['name']}" for entry in listed
    )
    return frozenset(names), tuple(sorted(pools))


def probe_mlflow(settings: Settings, clocks: Clocks) -> tuple[str, str]:
    """Where MLflow is, without its password, and why it cannot be used; empty if it can."""
    uri = settings.tracking.mlflow_uri.get_secret_value()
    if not settings.tracking.mlflow:
        return "", ""
    if not uri or uri.startswith("sqlite:///"):
        path = Path(uri.removeprefix("sqlite:///")) if uri else settings.output_dir / "mlflow.db"
        return str(path), _database_problem(path)
    parts = urlsplit(uri)
    bare = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))
    if parts.scheme in ("http", "https"):
        return bare, _server_problem(bare, parts, clocks)
    return bare, _port_problem(parts.hostname, parts.port)


def _server_problem(bare: str, parts: SplitResult, clocks: Clocks) -> str:
    """Why an MLflow server cannot be used."""
    auth = (parts.username, parts.password or "") if parts.username else None
    try:
        with httpx.Client(timeout=TIMEOUT_S, auth=auth) as client:
            clocks.note("MLflow", time.time(), client.get(f"{bare}/health"))
            answer = client.post(f"{bare}/api/2.0/mlflow/experiments/search", json={"max_results": 1})
        if answer.status_code in (401, 403):
            return "it does not take our password"
        answer.raise_for_status()
    except httpx.TimeoutException:
        return f"it does not answer within {TIMEOUT_S:g} s"
    except httpx.HTTPError as error:
        return _reason(error)
    return ""


def _database_problem(path: Path) -> str:
    """Why a SQLite database cannot be written; one that is not there yet can be made with its folder."""
    if not path.exists():
        return ""
    try:
        with closing(sqlite3.connect(path, timeout=TIMEOUT_S / 2, isolation_level=None)) as database:
            database.execute("BEGIN IMMEDIATE")
            database.execute("ROLLBACK")
    except sqlite3.Error as error:
        return str(error)
    return ""


def _port_problem(host: str | None, port: int | None) -> str:
    """Why nobody answers at an address of a database; only whether somebody listens is known without it."""
    if host is None or port is None:
        return ""
    try:
        socket.create_connection((host, port), TIMEOUT_S).close()
    except OSError as error:
        return _reason(error)
    return ""


def probe_storage(settings: Settings) -> tuple[str, str]:
    """Where shared storage is, and what it cannot do; empty if it can do all."""
    layout, storage = Layout(settings.output_dir), settings.storage
    place = storage.place
    try:
        if not storage.url and not is_shared(layout):
            return "", ""
        if storage.url and not storage.is_bucket and not Path(place).is_dir():
            return place, "it is no folder on this machine"
        store = open_storage(storage, "leases") if storage.url else open_store(layout, "leases")
        place = store.location
        return place, _store_problem(store)
    except (OSError, EventLogError) as error:
        return place or f"that of {layout.root}", _reason(error)


def _store_problem(store: SegmentStore) -> str:
    """What a store cannot do, tried out with a blob that is taken away again."""
    stream, name = "doctor", uuid.uuid4().hex
    try:
        if not store.put_if_absent(stream, name, b"1"):
            return "what is written is not there"
        if store.put_if_absent(stream, name, b"2"):
            return "it overwrites: conditional writes are not respected"
        if store.read(stream, name, 1) != b"1" or name not in store.names(stream):
            return "what is read or listed is not what was written"
    finally:
        store.delete(stream, name)
    return ""


def _reason(error: Exception) -> str:
    return without_secrets(headline(str(error)) or type(error).__name__)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False
