"""The page and its answers over HTTP, on this machine only.

Other pages in the browser cannot use it: whatever asks must name this machine as host (DNS rebinding), come from this
very page (origin), and know the token in the page's address. Nothing is loaded from anywhere else, and the only file
it ever writes is a chip in the folder of the workbench.
"""

import json
import secrets
from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cimphony.errors import CimphonyError, DataError
from cimphony.explore.workbench import Workbench
from cimphony.report.html import Html, element, escape

_MOST = 65_536  # bytes of a question
_HERE = files("cimphony")
_POLICY = (
    "default-src 'none'; connect-src 'self'; style-src 'nonce-{0}'; script-src 'nonce-{0}'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)


class ExploreServer(ThreadingHTTPServer):
    """Serves a workbench on 127.0.0.1; `address` is what to open in a browser."""

    daemon_threads = True

    def __init__(self, workbench: Workbench, start: Mapping[str, Any], port: int = 0) -> None:
        """Args: what the page begins with (chip, prompt, new_tokens, batch); port 0 takes a free one."""
        self.workbench, self.start, self.token = workbench, dict(start), secrets.token_urlsafe(24)
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except (OSError, OverflowError) as error:
            raise DataError(f"port {port} cannot be used: {error}; choose another, or 0 for a free one") from None
        self.hosts = {f"{name}:{self.server_port}" for name in ("127.0.0.1", "localhost")}
        self.answers: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
            "/knobs": workbench.knobs,
            "/cost": workbench.cost,
            "/save": workbench.save,
        }

    @property
    def address(self) -> str:
        """The address of the page, with the token that its questions need."""
        return f"http://127.0.0.1:{self.server_port}/?token={self.token}"

    def knows(self, token: str | None) -> bool:
        """Whether this is the token."""
        return secrets.compare_digest((token or "").encode(), self.token.encode())

    def page(self, nonce: str) -> str:
        """The page, whole."""
        bench = self.workbench
        state = {**self.start, "model": bench.model, "chips": list(bench.chips), "folder": str(bench.folder)}
        state |= {"token": self.token}
        read = partial(_read, nonce=nonce)
        head = element(
            "head",
            element("meta", charset="utf-8"),
            element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            element("title", f"Cimphony: explore {bench.model}"),
            read("style", "report/style.css"),
            read("style", "explore/page.css"),
        )
        data = Html(json.dumps(state).replace("<", "\\u003c"))
        body = _text("explore/page.html").replace("MODEL", escape(bench.model)).replace("FOLDER", escape(bench.folder))
        script = element("script", data, type="application/json", id="state") + read("script", "explore/page.js")
        return f"<!doctype html>\n{element('html', head, element('body', Html(body + script)), lang='en')}\n"


def _text(path: str) -> str:
    return (_HERE / path).read_text(encoding="utf-8")


def _read(kind: str, path: str, nonce: str) -> Html:
    return element(kind, Html(_text(path)), nonce=nonce)


class _Handler(BaseHTTPRequestHandler):
    server: ExploreServer  # pyright: ignore[reportIncompatibleVariableOverride]
    timeout = 30
    server_version, sys_version = "cimphony", ""

    def do_GET(self) -> None:
        """The page."""
        asked = urlsplit(self.path)
        token = parse_qs(asked.query).get("token", [""])[0]
        if not self._ours():
            return
        if asked.path != "/" or not self.server.knows(token):
            self._refuse(HTTPStatus.NOT_FOUND, "open the whole address that cimphony explore printed")
            return
        nonce = secrets.token_urlsafe(16)
        self._send(HTTPStatus.OK, "text/html; charset=utf-8", self.server.page(nonce), _POLICY.format(nonce))

    def do_POST(self) -> None:
        """An answer to a question of the page; errors that a user can put right are answers too."""
        if not self._ours():
            return
        if not self.server.knows(self.headers.get("X-Token")):
            self._refuse(HTTPStatus.FORBIDDEN, "unknown token: open the page again")
            return
        length = self.headers.get("Content-Length", "")
        answer = self.server.answers.get(self.path)
        if answer is None or not length.isdigit() or int(length) > _MOST:
            self._refuse(HTTPStatus.BAD_REQUEST, "not a question of the page")
            return
        try:
            asked = json.loads(self.rfile.read(int(length)))
            found = answer(asked) if isinstance(asked, dict) else {"error": "not a question of the page"}
        except CimphonyError as error:
            found = {"error": str(error)}
        except (ValueError, RecursionError):
            self._refuse(HTTPStatus.BAD_REQUEST, "not JSON")
            return
        self._send(HTTPStatus.OK, "application/json", json.dumps(found))

    def _ours(self) -> bool:
        """Refuse what was sent to another host name, or by another page."""
        host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
        if host in self.server.hosts and origin in (None, f"http://{host}"):
            return True
        self._refuse(HTTPStatus.FORBIDDEN, "only the page of cimphony explore may ask")
        return False

    def _refuse(self, status: HTTPStatus, words: str) -> None:
        self.close_connection = True
        self._send(status, "text/plain; charset=utf-8", words + "\n")

    def _send(self, status: HTTPStatus, kind: str, text: str, policy: str = "default-src 'none'") -> None:
        body = text.encode()
        self.send_response(status)
        fields = {
            "Content-Type": kind, "Content-Length": str(len(body)), "Content-Security-Policy": policy,
            "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
        }  # fmt: skip
        for name, value in fields.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the terminal is the user's."""
