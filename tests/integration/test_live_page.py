"""The live page in a real browser, from a real server, while events come."""

import http.client
import json
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from core.events.event import Event
from core.events.log import EventLog
from core.planning.shared.lock import hold
from settings.layout import Layout
from tests.browser import chromium, patient
from tests.commands import HANG_S, run, start, wait_for
from tests.sample_log import PLAN_ID, sample_events

HOSTILE = "<img src=x onerror=alert(1)>&\"'"
Opened = tuple[Page, list[str], list[str]]
"""A page, what went wrong on it, and what it asked for."""
EVENTS = sample_events(datasets=(HOSTILE, "set_01"))
DURING = next(place for place, event in enumerate(EVENTS) if event.payload.get("epoch") == 2) + 1

pytestmark = pytest.mark.browser


def append(output_dir: Path, events: list[Event]) -> None:
    EventLog(Layout(output_dir).events).append([event._replace(position=-1) for event in events])


@contextmanager
def served(output_dir: Path, port: int = 0) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """A server, and its port."""
    command = ("flows.status", "--serve", "--port", str(port), "--output-dir", str(output_dir))
    process = start(*command)
    try:
        assert process.stdout
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", process.stdout.readline())
        assert found, process.communicate()
        yield process, int(found[1])
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def new_page() -> Iterator[Callable[[int, str], Opened]]:
    """Opens pages of some width."""
    with chromium() as browser:

        def new(width: int, address: str) -> Opened:
            page = patient(browser.new_context(viewport={"width": width, "height": 900}).new_page())
            problems: list[str] = []
            requests: list[str] = []
            page.on("console", lambda message: problems.append(message.text))
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.on("dialog", lambda dialog: problems.append(dialog.message))
            page.on("request", lambda request: requests.append(request.url))
            page.goto(address)
            return page, problems, requests

        yield new


@contextmanager
def asked(
    port: int, path: str, host: str = "127.0.0.1", method: str = "GET"
) -> Iterator[http.client.HTTPResponse]:
    """The answer to a request."""
    with closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
        connection.request(method, path, headers={"Host": f"{host}:{port}"})
        with connection.getresponse() as response:
            yield response


def status(port: int, path: str, host: str = "127.0.0.1", method: str = "GET") -> int:
    with asked(port, path, host, method) as response:
        return response.status


def percent(page: Page) -> int:
    return int(page.locator("#progress .meter").get_attribute("aria-valuenow") or -1)


@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_follows_a_plan_from_before_it_began_without_being_loaded_again(
    tmp_path: Path, new_page: Callable[[int, str], Opened], width: int
) -> None:
    with served(tmp_path) as (_, port):
        page, problems, requests = new_page(width, f"http://127.0.0.1:{port}/")
        page.wait_for_selector("html[data-ready]")
        page.get_by_text("waiting for a plan").wait_for()
        page.evaluate("window.sameDocument = true")
        with hold(tmp_path):
            append(tmp_path, EVENTS[:DURING])
            page.wait_for_selector("#models polyline.train >> nth=0")
            first = percent(page)
            assert page.locator("#status").inner_text() == "running"
            assert page.get_by_role("heading", name=HOSTILE, exact=True).count() == 1
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            append(tmp_path, EVENTS[DURING : DURING + 60])
            wait_for(lambda: percent(page) > first)
            assert page.evaluate("window.sameDocument") is True
            append(tmp_path, EVENTS[DURING + 60 :])
            page.locator("#status", has_text="failed").wait_for()
        page.get_by_text("replay buffer holds no transition <script>alert(1)</script>").first.wait_for()
        assert page.locator("#machine svg").count() >= 2
        assert page.locator("#link").is_hidden()
        Layout(tmp_path).plan_file(PLAN_ID, "dashboard.html").write_text("<title>that dashboard</title>")
        page.get_by_role("link", name="Dashboard of this plan").click()
        expect(page).to_have_title("that dashboard")
        page.go_back()
        page.get_by_text("replay buffer holds").first.wait_for()
        assert problems == []
        assert {url.rpartition(str(port))[0] for url in requests} == {"http://127.0.0.1:"}


def test_a_page_says_that_it_is_disconnected_and_goes_on_when_the_server_is_back_and_a_plan_begins(
    tmp_path: Path, new_page: Callable[[int, str], Opened]
) -> None:
    append(tmp_path, EVENTS)
    with served(tmp_path) as (process, port):
        page, *_ = new_page(1000, f"http://127.0.0.1:{port}/")
        other, *_ = new_page(400, f"http://127.0.0.1:{port}/?plan={PLAN_ID}")
        for each in (page, other):
            each.wait_for_selector(".connection.live")
        process.send_signal(signal.SIGINT)
        assert process.wait(HANG_S) == 130  # with browsers still connected
        page.wait_for_selector(".connection.lost")
    next_one = sample_events(plan_id="plan-20991231-0000-cccc")
    append(tmp_path, [event._replace(occurred_at=event.occurred_at.replace(year=2027)) for event in next_one])
    with served(tmp_path, port):
        for each in (page, other):
            each.wait_for_selector(".connection.live")
        page.locator("#plan", has_text="plan-20991231-0000-cccc").wait_for()
        assert other.locator("#plan").inner_text() == PLAN_ID  # the one that it was asked for
        other.locator("#plans").select_option("plan-20991231-0000-cccc")
        other.locator("#plan", has_text="plan-20991231-0000-cccc").wait_for()


def test_the_server_answers_only_who_calls_it_by_its_own_name_and_lets_nothing_be_changed(
    tmp_path: Path,
) -> None:
    append(tmp_path, EVENTS[:DURING])
    (tmp_path / "secret_dashboard.html").write_text("secret")
    before = sorted(path.name for path in tmp_path.rglob("*"))
    with served(tmp_path) as (process, port):
        for path in ("/", "/events", "/live.js"):
            with asked(port, path, host="evil.example") as refused:
                assert (refused.status, refused.read()) == (400, b"Invalid host header")
        with asked(port, "/", host="localhost") as page:
            policy = page.headers["content-security-policy"]
            assert page.status == 200
            assert page.headers["access-control-allow-origin"] is None
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert status(port, "/events", method="POST") == 405
        for path in ("/events?plan=no", "/plans/no/dashboard", "/plans/..%2fsecret/dashboard", "/x"):
            assert status(port, path) == 404
        with asked(port, "/events") as stream:
            line = next(line for line in stream if line.startswith(b'data: {"view"'))
        now = json.loads(line[6:])
        assert now["view"]["status"] == "interrupted"
        assert f"--resume {PLAN_ID}" in now["words"]["next"]
        with socket.socket() as elsewhere:
            assert elsewhere.connect_ex(("127.0.0.2", port)) != 0  # bound to one address, not to all
        taken = run("flows.status", "--serve", "--port", str(port), "--output-dir", str(tmp_path))
        assert taken.returncode == 2
        assert f"port {port} is in use" in taken.stderr
        assert "--port" in taken.stderr
        assert process.poll() is None
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_what_is_shown_of_hostile_names_is_text(tmp_path: Path) -> None:
    append(tmp_path, EVENTS[:DURING])
    with served(tmp_path) as (_, port):
        with asked(port, "/events") as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            assert stream.headers["x-content-type-options"] == "nosniff"
        for path in ("/", "/live.css", "/live.js", "/icon.svg"):
            with asked(port, path) as answer:  # no data where a browser reads HTML, styles or scripts
                assert b"onerror=alert" not in answer.read()
