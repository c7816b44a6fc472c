"""A real S3 server (moto's) in a process of its own, for tests.

``python object_server.py [--ignore-conditions]`` prints its URL and serves until it is killed.
"""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def serving(*options: str) -> Iterator[str]:
    """Run the server; its URL."""
    command = [sys.executable, __file__, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def _serve() -> None:
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    one_at_a_time = threading.Lock()
    s3 = DomainDispatcherApplication(create_backend_app)

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if "--ignore-conditions" in sys.argv:
            environ.pop("HTTP_IF_NONE_MATCH", None)
        with one_at_a_time:  # moto looks whether a name is taken and then takes it; S3 does both at once
            return list(s3(environ, start_response))

    server = make_server("127.0.0.1", 0, application, threaded=True)
    print(f"http://127.0.0.1:{server.port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    _serve()
