"""The health check of an image or a service, run as its container would run it, against a server that answers as it is told."""

from __future__ import annotations

import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self


class Answering:
    """An HTTP server on a free port, until the block ends."""

    def __init__(self) -> None:
        self._status = 200
        self._asked = ""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer._asked = self.path
                self.send_response(outer._status)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def verdict(self, check: list[str], port: int, *, status: int, environment: dict[str, str] | None = None) -> tuple[int, str]:
        """Exit code of the check, and the path that it asked for. `port`: the one it names, for which this server's stands in."""
        self._status, self._asked = status, ""
        form, program, *arguments = check
        assert (form, program) == ("CMD", "python")
        arguments = [argument.replace(str(port), str(self._server.server_port)) for argument in arguments]
        # A proxy that is set for the providers must not be asked about a container's own port.
        env = {"http_proxy": "http://127.0.0.1:1", "HTTP_PROXY": "http://127.0.0.1:1"} | (environment or {})
        done = subprocess.run([sys.executable, *arguments], env=env, capture_output=True, timeout=30, check=False)
        return done.returncode, self._asked
