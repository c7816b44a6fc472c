"""The live page: ``python -m flows.status --serve``, on loopback only, and only to look at.

The page is filled by server-sent events, one a second while somebody looks; while nobody does, nothing is
read. A browser connects again by itself, so the server may be stopped and started.
"""

import asyncio
import errno
import re
import socket
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from importlib import resources
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.analytics.theme import DARK, LIGHT, css_variables
from core.planning.live.view import LiveView, to_json
from core.planning.live.watching import Watch
from flows.watch import INTERVAL_S, look
from flows.watch_words import eta_words, left_words, model_words, now_words, what_next
from settings.errors import SettingsError
from settings.layout import Layout

_HOST = "127.0.0.1"
_PLAN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_OWN = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# Dashboards carry all they need inside them, and may fetch nothing.
_DASHBOARD = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _OWN,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}


def serve(output_dir: Path, port: int) -> None:
    """Serve the live page until Ctrl-C.

    Args:
        output_dir: The output directory; it may be missing.
        port: Where on loopback; 0 for any that is free.

    Raises:
        SettingsError: The port is in use, or this user may not use it.
        KeyboardInterrupt: Somebody stopped it.
    """
    with _listening(port) as listening:
        config = uvicorn.Config(
            live_app(output_dir, lambda: server.should_exit),
            log_level="warning",
            lifespan="off",
            timeout_graceful_shutdown=3,
        )
        server = uvicorn.Server(config)
        print(
            f"live view of {output_dir}: http://{_HOST}:{listening.getsockname()[1]}/ (Ctrl-C ends it)",
            flush=True,
        )
        server.run(sockets=[listening])


def live_app(output_dir: Path, is_ending: Callable[[], bool] = lambda: False) -> Starlette:
    """The web application.

    Args:
        output_dir: The output directory.
        is_ending: Whether streams are to end.
    """
    feeds = _Feeds(output_dir)

    async def events(request: Request) -> Response:
        plan_id = request.query_params.get("plan")
        feed = await feeds.feed(plan_id)
        return StreamingResponse(_stream(feed, is_ending), media_type="text/event-stream")

    def dashboard(request: Request) -> Response:
        path = _dashboard_file(output_dir, request.path_params["plan_id"])
        if path is None:
            raise HTTPException(404, "no such dashboard")
        return FileResponse(path, headers={"content-security-policy": _DASHBOARD})

    return Starlette(
        routes=[
            Route("/", lambda request: _asset("live.html", "text/html")),
            Route("/live.js", lambda request: _asset("live.js", "text/javascript")),
            Route("/live.css", lambda request: Response(_style(), media_type="text/css")),
            Route("/icon.svg", lambda request: _asset("live.svg", "image/svg+xml")),
            Route("/events", events),
            Route("/plans/{plan_id}/dashboard", dashboard),
        ],
        middleware=[
            # A stranger's page that points its own name at this machine sends that name along.
            Middleware(
                TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]"], www_redirect=False
            ),
            Middleware(_Headers),
        ],
    )


class _Headers:
    """Adds the headers that every answer has."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers)


class _Feed:
    """What the browsers that look at a plan are sent: one look for all of them, in one thread."""

    def __init__(self, output_dir: Path, plan_id: str | None, looking: Executor) -> None:
        self._output_dir, self._watch, self._looking = output_dir, Watch(output_dir, plan_id), looking
        self._view: LiveView | None = None
        self._looked_s = 0.0
        self._now, self._curves = "", ""

    async def messages(self) -> tuple[str, str]:
        """The plan now, and the curves of its models, which change less often; both as JSON."""
        await asyncio.get_running_loop().run_in_executor(self._looking, self._look_again)
        return self._now, self._curves

    async def plans(self) -> set[str]:
        """Plans there are."""
        await self.messages()
        return {line.plan_id for line in self._view.plans} if self._view else set()

    def _look_again(self) -> None:
        if self._view is None or time.monotonic() - self._looked_s >= 0.9 * INTERVAL_S:
            self._look()

    def _look(self) -> None:
        before, view = self._view, look(self._watch)
        models = [(phase.dataset, phase.phase, phase.models) for phase in view.phases if phase.models]
        if before is None or models != [(p.dataset, p.phase, p.models) for p in before.phases if p.models]:
            self._curves = to_json({"models": models})
        slim = replace(view, phases=tuple(replace(phase, models=()) for phase in view.phases))
        words = {
            "left": left_words(view),
            "next": what_next(view),
            "phases": [[eta_words(phase), now_words(phase), model_words(phase)] for phase in view.phases],
        }
        dashboard = view.plan_id is not None and _dashboard_file(self._output_dir, view.plan_id) is not None
        self._now = to_json(
            {"view": slim, "words": words, "has_dashboard": dashboard, "is_over": view.is_over}
        )
        self._view, self._looked_s = view, time.monotonic()


class _Feeds:
    """One feed for each plan that somebody looks at."""

    def __init__(self, output_dir: Path) -> None:
        self._output_dir, self._looking = output_dir, ThreadPoolExecutor(1, "looking")
        self._newest = _Feed(output_dir, None, self._looking)
        self._feeds: dict[str, _Feed] = {}

    async def feed(self, plan_id: str | None) -> _Feed:
        """The feed of a plan; None for the one that something happened in last.

        Raises:
            HTTPException: There is no such plan.
        """
        if not plan_id:
            return self._newest
        if plan_id not in await self._newest.plans():
            raise HTTPException(404, "no such plan")
        return self._feeds.setdefault(plan_id, _Feed(self._output_dir, plan_id, self._looking))


async def _stream(feed: _Feed, is_ending: Callable[[], bool]) -> AsyncIterator[str]:
    sent = ""
    yield "retry: 1000\n\n"
    while not is_ending():
        now, curves = await feed.messages()
        if curves != sent:
            sent = curves
            yield f"event: curves\ndata: {curves}\n\n"
        yield f"event: now\ndata: {now}\n\n"
        await asyncio.sleep(INTERVAL_S)


def _dashboard_file(output_dir: Path, plan_id: str) -> Path | None:
    path = Layout(output_dir).plan_file(plan_id, "dashboard.html")
    return path if _PLAN.fullmatch(plan_id) and path.is_file() else None


def _asset(name: str, media_type: str) -> Response:
    return Response(_text("flows", name), media_type=media_type)


def _style() -> str:
    dark = f":root {{ {css_variables(DARK)} color-scheme: dark; }}"
    light = f":root {{ {css_variables(LIGHT)} color-scheme: light; }}"
    shared, own = _text("core.analytics", "dashboard.css"), _text("flows", "live.css")
    return f"{light}\n@media (prefers-color-scheme: dark) {{ {dark} }}\n{shared}\n{own}"


def _text(package: str, name: str) -> str:
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")


def _listening(port: int) -> socket.socket:
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((_HOST, port))
        listening.listen()  # whoever opens the page from now on is answered
    except (OSError, OverflowError) as error:
        listening.close()
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        why = (
            "is in use (perhaps by another live view: open it in the browser)"
            if taken
            else f"cannot be used: {error}"
        )
        raise SettingsError(
            f"port {port} {why}; choose another with --port, or 0 for any that is free"
        ) from error
    return listening
