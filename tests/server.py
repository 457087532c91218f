"""A server of files on this machine that can misbehave as those of the internet do."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Server:
    """The files that are served, the ways to misbehave, and the requests that came.

    Attributes:
        address: without a slash at the end.
        files: path in the address by name.
        cuts: for a name, after how many bytes each of the next connections is cut.
        waits: names of which a part arrives, and the rest never.
        ranges: does the server go on in the middle of a file?
        lengths: does it say how long a file is?
        asked: name and ``Range`` header of every request.
    """

    address: str = ""
    files: dict[str, Path] = field(default_factory=dict)
    cuts: dict[str, list[int]] = field(default_factory=dict)
    waits: set[str] = field(default_factory=set)
    ranges: bool = True
    lengths: bool = True
    asked: list[tuple[str, str | None]] = field(default_factory=list)


@contextlib.contextmanager
def running() -> Iterator[Server]:
    """Serve until the block ends."""
    server = Server()
    stopped = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name, wanted = self.path.removeprefix("/"), self.headers["Range"]
            server.asked.append((name, wanted))
            if name not in server.files:
                self.send_error(404)
                return
            path = server.files[name]
            size = path.stat().st_size
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and server.ranges else 0
            if start >= size:
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
            if server.lengths:
                self.send_header("Content-Length", str(size - start))
            self.end_headers()
            left = server.cuts[name].pop(0) if server.cuts.get(name) else size
            if name in server.waits:
                left = (size - start) // 2
            with path.open("rb") as file, contextlib.suppress(ConnectionError):
                file.seek(start)
                while left > 0 and (chunk := file.read(min(left, 1 << 20))):
                    self.wfile.write(chunk)
                    left -= len(chunk)
                if name in server.waits:
                    stopped.wait()

        def log_message(self, *_: object) -> None:
            """Be silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        server.address = f"http://127.0.0.1:{http.server_port}"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            stopped.set()
            http.shutdown()
            thread.join()
