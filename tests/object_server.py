"""A real S3 server (moto's) in a process of its own: ``python object_server.py [--ignore-conditions]``.

It prints its URL and serves until it is killed.
"""

import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

_serving = threading.Lock()
_s3 = DomainDispatcherApplication(create_backend_app)


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Moto looks whether a name is taken and then takes it; one request at a time makes that one step."""
    if "--ignore-conditions" in sys.argv:
        environ.pop("HTTP_IF_NONE_MATCH", None)
    with _serving:
        content: Iterable[bytes] = list(_s3(environ, start_response))
        return content


if __name__ == "__main__":
    server = make_server("127.0.0.1", 0, application, threaded=True)
    print(f"http://127.0.0.1:{server.port}", flush=True)
    server.serve_forever()
