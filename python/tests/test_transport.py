"""Retries, trust and answers of others, against small servers of this file."""

import http.server
import json
import shutil
import ssl
import subprocess
import threading

import numpy as np
import pytest

import martlet


@pytest.fixture
def answers():
    """A server that gives each of its answers in turn, and remembers what it was asked."""
    servers = []

    def make(*script, context=None):
        asked = []
        left = list(script)

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                asked.append((self.command, self.path, dict(self.headers), body))
                status, headers, text = left.pop(0) if len(left) > 1 else left[0]
                if status == 0:
                    self.connection.close()
                    return
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                content = text.encode() if isinstance(text, str) else text
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = answer

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        scheme = "https" if context else "http"
        return f"{scheme}://127.0.0.1:{server.server_address[1]}", asked

    yield make
    for server in servers:
        server.shutdown()
        server.server_close()


def problem(status, code, retry=None):
    headers = {"Content-Type": "application/problem+json", **({"Retry-After": retry} if retry else {})}
    return status, headers, json.dumps({"type": "about:blank", "title": "t", "status": status, "detail": "d", "code": code})


FINE = (200, {"Content-Type": "application/json"}, '{"status": "ok"}')
RUN = (201, {"Content-Type": "application/json"}, '{"id": "run_1", "name": "n", "state": "created", "committed_rounds": 0}')


@pytest.mark.parametrize("code", [("rate_limited", 429), ("recovering", 503)])
def test_waits_as_long_as_the_server_says(answers, code):
    url, asked = answers(problem(code[1], code[0], "0"), problem(code[1], code[0], "0"), FINE)
    assert martlet.Server(url, "t").health() == {"status": "ok"} and len(asked) == 3
    url, asked = answers(problem(code[1], code[0], "0"), RUN)
    assert martlet.Server(url, "t").create_run({"population": "p"}).id == "run_1" and len(asked) == 2, "refused POSTs are sent again"


def test_gives_up_when_the_wait_is_longer_than_its_patience(answers):
    url, asked = answers(problem(429, "rate_limited", "3600"))
    with pytest.raises(martlet.ServerError) as refused:
        martlet.Server(url, "t", patience_s=1).health()
    assert refused.value.retry_after_s == 3600 and len(asked) == 2


def test_does_not_repeat_what_is_refused_for_good(answers):
    url, asked = answers(problem(503, "model_damaged"))
    with pytest.raises(martlet.ServerError, match="model_damaged"):
        martlet.Server(url, "t").health()
    assert len(asked) == 1


def test_a_lost_get_is_asked_again_and_a_lost_post_is_not(answers):
    url, asked = answers((0, {}, ""), FINE)
    assert martlet.Server(url, "t").health() == {"status": "ok"} and len(asked) == 2
    url, asked = answers((0, {}, ""), RUN)
    with pytest.raises(martlet.Unreachable):
        martlet.Server(url, "t").create_run({"population": "p"})
    assert len(asked) == 1


def test_a_proxy_s_503_does_not_repeat_a_post(answers):
    url, asked = answers((503, {"Content-Type": "text/html", "Retry-After": "0"}, "<h1>busy</h1>"), RUN)
    with pytest.raises(martlet.ServerError, match="not Martlet's"):
        martlet.Server(url, "t").create_run({"population": "p"})
    assert len(asked) == 1


def test_the_token_stays_with_its_server(answers):
    other, seen = answers(FINE)
    url, _ = answers((307, {"Location": other + "/v1/steal"}, ""))
    with pytest.raises(martlet.Unreachable, match="not sent there"):
        martlet.Server(url, "secret").health()
    assert seen == []


def test_a_file_that_was_cut_is_refused(answers):
    content = martlet.tensors.encode({"w": np.zeros(2, np.float32)})
    url, _ = answers((200, {"Content-Type": "application/vnd.safetensors", "Repr-Digest": f"sha-256=:{'A' * 43}=:"}, content))
    run = martlet.Run(martlet.Server(url, "t"), {"id": "run_1"})
    with pytest.raises(martlet.MartletError, match="cut on the way"):
        run.weights()


def test_nobody_listens():
    with pytest.raises(martlet.Unreachable, match="nobody listens"):
        martlet.Server("http://127.0.0.1:1", "t", patience_s=0).health()
    with pytest.raises(ValueError, match="no server's address"):
        martlet.Server("127.0.0.1:8080", "t")


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl")
def test_a_private_authority(answers, tmp_path, monkeypatch):
    def openssl(*words):
        subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, cwd=tmp_path)

    new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    openssl(*new, "-keyout", "key.pem", "-out", "ca.pem", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1")
    openssl(*new, "-keyout", "other-key.pem", "-out", "other.pem", "-subj", "/CN=other")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "ca.pem", tmp_path / "key.pem")
    url, _ = answers(FINE, context=context)
    assert martlet.Server(url, "t", ca_file=tmp_path / "ca.pem").health() == {"status": "ok"}
    monkeypatch.setenv("MARTLET_CA_FILE", str(tmp_path / "ca.pem"))
    assert martlet.Server(url, "t").health() == {"status": "ok"}
    for stranger in ({"ca_file": tmp_path / "other.pem"}, {"ca_file": None}):
        monkeypatch.delenv("MARTLET_CA_FILE", raising=False)
        with pytest.raises(martlet.Unreachable, match="MARTLET_CA_FILE"):
            martlet.Server(url, "t", patience_s=0, **stranger).health()
    with pytest.raises(FileNotFoundError, match="authorities"):
        martlet.Server(url, "t", ca_file=tmp_path / "none.pem")
    with pytest.raises(ValueError, match="no certificate"):
        martlet.Server(url, "t", ca_file=tmp_path / "key.pem")
    monkeypatch.setenv("MARTLET_PINNED_KEY", "sha256//x")
    with pytest.raises(martlet.MartletError, match="MARTLET_CA_FILE"):
        martlet.Server(url, "t")
