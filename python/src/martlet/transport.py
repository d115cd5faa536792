"""HTTP to a server with Python's own library: tokens, trust, retries and problem documents."""

from __future__ import annotations

import email.utils
import http.client
import json
import os
import pathlib
import random
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any, NoReturn

from .errors import FieldError, ServerError, Unreachable

# Methods that may be sent again when nobody knows whether they arrived.
_IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE"})
_ERROR_BYTE_LIMIT = 1 << 20


class Answer:
    """What came back: status, headers, and the body, which is read when it is asked for."""

    def __init__(self, response: Any) -> None:
        self.status: int = response.status
        self.headers: http.client.HTTPMessage = response.headers
        self.stream = response

    def bytes(self) -> bytes:
        with self.stream:
            return bytes(self.stream.read())

    def json(self) -> Any:
        text = self.bytes()
        return json.loads(text) if text.strip() else None


class _SameServer(urllib.request.HTTPRedirectHandler):
    """Follows redirects on the same server only, so that the token goes nowhere else."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if _origin(newurl) != _origin(req.full_url):
            raise Unreachable(f"{_origin(req.full_url)} sends this request on to {_origin(newurl)}; the token is not sent there.")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _origin(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _seconds(text: str | None) -> float | None:
    """The seconds of a `Retry-After`, which is a number or a date."""
    if not text:
        return None
    try:
        return max(0.0, float(text))
    except ValueError:
        try:
            return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
        except ValueError:
            return None


class Transport:
    """Requests to one server.

    An answer 429 or 503 with `Retry-After` is waited for, and a request that may be sent twice is sent again after the network has failed,
    both for `patience_s` seconds in all. A POST whose fate nobody knows is not repeated.
    """

    def __init__(
        self, url: str, token: str | None, ca_file: str | os.PathLike[str] | None, timeout_s: float, patience_s: float
    ) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ValueError(f"{url!r} is no server's address; it looks like https://martlet.example:8443")
        self.url = url.rstrip("/")
        self._token = token
        self.timeout_s = timeout_s
        self.patience_s = patience_s
        handlers: list[Any] = [_SameServer()]
        if parts.scheme == "https":
            handlers.append(urllib.request.HTTPSHandler(context=self._trust(ca_file)))
        self._opener = urllib.request.build_opener(*handlers)

    @staticmethod
    def _trust(ca_file: str | os.PathLike[str] | None) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=None if ca_file is None else os.fspath(ca_file))
        except FileNotFoundError:
            raise FileNotFoundError(f"there is no file {ca_file}, which should hold the authorities to trust (PEM)") from None
        except ssl.SSLError:
            raise ValueError(f"{ca_file} holds no certificate in PEM form") from None
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context

    def send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | pathlib.Path | None = None,
        timeout_s: float | None = None,
    ) -> Answer:
        """The answer of a success; every other one is raised as `ServerError`.

        A body that is a path is read from its file, again for each attempt.
        """
        url = self.url + path
        given = {name: _text(value) for name, value in (query or {}).items() if value is not None}
        if given:
            url += "?" + urllib.parse.urlencode(given, quote_via=urllib.parse.quote)
        end = time.monotonic() + self.patience_s
        pause = 0.25
        while True:
            try:
                return self._once(method, url, dict(headers or {}), body, timeout_s or self.timeout_s)
            except ServerError as error:
                wait = error.retry_after_s
                # A proxy's 503 does not say whether the request reached the server.
                passes = error.status in (429, 503) and wait is not None
                if not passes or (error.code == "unknown" and method not in _IDEMPOTENT):
                    raise
            except Unreachable as error:
                if method not in _IDEMPOTENT or not getattr(error, "passes", False):
                    raise
                wait, pause = pause * (1 + random.random()), min(8.0, pause * 2)
            assert wait is not None
            if time.monotonic() + wait > end:
                # The last try's error: there is nobody to wait for, or no time.
                return self._once(method, url, dict(headers or {}), body, timeout_s or self.timeout_s)
            time.sleep(wait)

    def _once(
        self, method: str, url: str, headers: dict[str, str], body: bytes | pathlib.Path | None, timeout_s: float
    ) -> Answer:
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        headers.setdefault("Accept", "application/json, application/octet-stream;q=0.9, */*;q=0.1")
        headers.setdefault("User-Agent", "martlet-python")
        file = None
        try:
            data: Any = body
            if isinstance(body, pathlib.Path):
                headers["Content-Length"] = str(body.stat().st_size)
                data = file = body.open("rb")
            request = urllib.request.Request(url, data=data, method=method, headers=headers)
            return Answer(self._opener.open(request, timeout=timeout_s))
        except urllib.error.HTTPError as error:
            raise self._refusal(error) from None
        except (urllib.error.URLError, OSError, http.client.HTTPException) as error:
            self._unreachable(error)
        finally:
            if file:
                file.close()

    @staticmethod
    def _refusal(error: urllib.error.HTTPError) -> ServerError:
        with error:
            content = error.read(_ERROR_BYTE_LIMIT)
        retry = _seconds(error.headers.get("Retry-After"))
        if error.headers.get_content_type() == "application/problem+json":
            try:
                problem = json.loads(content)
                return ServerError(
                    error.code, str(problem["code"]), str(problem["detail"]), title=str(problem.get("title", "")),
                    errors=[FieldError(str(one["pointer"]), str(one["detail"])) for one in problem.get("errors", [])],
                    request_id=problem.get("request_id"), retry_after_s=retry,
                )
            except (ValueError, KeyError, TypeError):
                pass
        words = f"the answer {error.code} is not Martlet's: is there a proxy in between, or another program at this address?"
        return ServerError(error.code, "unknown", words, title=str(error.reason), retry_after_s=retry)

    def _unreachable(self, error: Exception) -> NoReturn:
        reason = getattr(error, "reason", error)
        passes = True
        if isinstance(reason, ssl.SSLCertVerificationError):
            words = (
                f"the certificate of {self.url} is not trusted ({reason.verify_message}). Give Server(ca_file=…), or set MARTLET_CA_FILE: "
                "the PEM file of the authority that signed it."
            )
            passes = False
        elif isinstance(reason, ssl.SSLError):
            words, passes = f"no TLS with {self.url}: {reason.reason or reason}. A server without a certificate has an http:// address.", False
        elif isinstance(reason, (socket.timeout, TimeoutError)):
            words = f"{self.url} did not answer within {self.timeout_s:g} s"
        elif isinstance(reason, ConnectionRefusedError):
            words = f"nobody listens at {self.url}. Is the server running? `martlet serve --data-dir DIR` starts one."
        elif isinstance(reason, socket.gaierror):
            words = f"no machine has the name in {self.url}"
        else:
            words = f"the connection to {self.url} failed: {reason}"
        unreachable = Unreachable(words)
        unreachable.passes = passes  # type: ignore[attr-defined]
        raise unreachable from error


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
