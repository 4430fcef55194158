"""An API key goes to the server that it is for, and into no log, journal, report, error or traceback."""

import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import bae_lens
from bae_lens.comsem.backends.openai_backend import OpenAIBackend, check_url
from bae_lens.comsem.backends.protocol import FatalError, PassingError, Request, RequestError
from bae_lens.comsem.backends.secrets import spellings

SECRET = 'sk-se"cr\\et+0123/456789='
"""With what JSON, Python and addresses each write in another way."""
PARTS = ("0123/456789", "0123%2F456789")
QUESTION = Request("interpret", (), None, ({"role": "user", "content": "x"},), {}, 10)
ERRORS = (FatalError, PassingError, RequestError)


@contextmanager
def echo_server(status=401, echo=None):
    """A server that says the Authorization header that it was sent in whatever it answers; its address and what it saw."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.answer()

        def do_GET(self):
            self.answer()

        def answer(self):
            seen.append(dict(self.headers.items()))
            token = self.headers.get("authorization", "")
            body = (echo or default)(token.removeprefix("Bearer "), self.path)
            code = status if self.command == "POST" else 200
            self.send_response(code)
            self.send_header("content-type", "application/json")
            self.send_header("x-request-id", token.encode("ascii", "replace").decode())
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *args):
            pass

    def default(key, path):
        if path.endswith("/models"):
            return {"object": "list", "data": [{"id": f"model-of-{key}", "object": "model", "created": 0, "owned_by": key}]}
        return {
            "error": {"message": f"the key {key} ({json.dumps(key)}, {key!r}) is wrong", "code": key, "param": key, "type": key}
        }

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def leaks(text: str) -> list[str]:
    return [part for part in (*spellings(SECRET), *PARTS) if part in text]


@pytest.fixture(scope="module")
def bae_dir(tmp_path_factory):
    """A BAE for the embedded Llama."""
    path = tmp_path_factory.mktemp("bae") / "bae"
    model = bae_lens.load_model(bae_lens.demo.demo_model_dir())
    windows = bae_lens.tokenize(model.tokenizer, ["Return the number of items in the list. " * 30], 64)
    hook = "blocks.1.hook_resid_pre"
    x = bae_lens.harvest(model, windows, hook, progress=False).vectors
    recipe = bae_lens.recipes.recommended(128, 1, steps=4, batch_size=32)
    bae_lens.save(bae_lens.train(x, recipe, metadata={"hook_name": hook}, progress=False).bae, path)
    return path


def interpret(url, bae, out, *options, tries="2"):
    """`bae-lens interpret` in a process of its own, with the key in its environment; all that it says and writes."""
    command = [sys.executable, "-m", "bae_lens", "--traceback", "interpret", "--bae", str(bae), "--out", str(out)]
    command += ["--sentences", "40", "--n-test", "2", "--control", "0", "--tries", tries, "--features", *map(str, range(128))]
    command += ["--backend", url, "--llm", "a-model", "--api-key-variable", "MY_KEY", *options]
    environment = {**os.environ, "MY_KEY": SECRET, "OPENAI_LOG": "debug", "HTTPX_LOG_LEVEL": "debug"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    files = "".join(path.read_bytes().decode("utf-8", "replace") for path in out.rglob("*") if path.is_file())
    return done, done.stdout + done.stderr, files


@pytest.mark.slow
@pytest.mark.parametrize("status", [401, 500])
def test_a_server_that_repeats_the_key_in_its_errors_gets_it_into_no_file_and_no_line(status, bae_dir, tmp_path):
    with echo_server(status) as (url, seen):
        done, said, files = interpret(url, bae_dir, tmp_path / "out")
    assert any(SECRET in value for head in seen for value in head.values()), said[-2000:]
    assert "Traceback" in said or done.returncode in (0, 1), said[-2000:]
    assert not leaks(said)
    assert not leaks(files)


def answers_with(status, echo=None):

    async def ask(url):
        backend = OpenAIBackend("a-model", url, key_variable="MY_KEY", timeout=10)
        try:
            return await backend.answer(QUESTION)
        finally:
            await backend.close()

    with echo_server(status, echo) as (url, _):
        return asyncio.run(ask(url))


@pytest.mark.parametrize("status", [301, 400, 401, 402, 403, 404, 405, 422, 429, 500, 503])
def test_no_error_and_no_traceback_of_any_status_holds_the_key(status, monkeypatch):
    import traceback

    monkeypatch.setenv("MY_KEY", SECRET)
    with pytest.raises(ERRORS) as caught:
        answers_with(status)
    assert not leaks(str(caught.value))
    assert not leaks("".join(traceback.format_exception(caught.value)))


@pytest.mark.parametrize("place", ["content", "refusal"])
def test_an_answer_that_repeats_the_key_is_kept_without_it(place, monkeypatch):
    monkeypatch.setenv("MY_KEY", SECRET)

    def echo(key, path):
        message = {"role": "assistant", "content": None, place: f"it is {key}"}
        return {"choices": [{"message": message}], "usage": {}}

    assert answers_with(200, echo).text == "it is [key]"


def test_an_answer_that_is_no_completion_is_described_without_the_key(monkeypatch):
    monkeypatch.setenv("MY_KEY", SECRET)
    with pytest.raises(ERRORS) as caught:
        answers_with(200, lambda key, path: {"choices": key})
    assert not leaks(str(caught.value))


@pytest.mark.parametrize(
    "url",
    [
        "http://user:hidden-word@localhost/v1",
        "http://user:hidden-word@localhost:notaport/v1",
        "ftp://user:hidden-word@localhost/v1",
        "https://hidden-word@localhost/v1",
        "https://localhost/v1?api-key=hidden-word",
        "https://localhost/v1#hidden-word",
        "http://user:hidden-word@[::1/v1",
        "user:hidden-word@localhost/v1",
        "//user:hidden-word@localhost",
    ],
)
def test_an_address_with_a_password_or_a_query_is_refused_without_repeating_it(url):
    with pytest.raises(ValueError, match=r"address") as caught:
        check_url(url)
    assert "hidden-word" not in str(caught.value)


def test_other_keys_of_the_environment_go_to_no_server_that_they_are_not_for(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_WEBHOOK_SECRET"):
        monkeypatch.setenv(name, f"{name}-value")
    monkeypatch.setenv("MY_KEY", "plain-key")
    seen = []

    def echo(key, path):
        seen.append(key)
        return {"choices": [{"message": {"content": "x"}}], "usage": {}}

    async def ask(url):
        backend = OpenAIBackend("a-model", url, key_variable="MY_KEY")
        await backend.answer(QUESTION)
        await backend.close()

    with echo_server(200, echo) as (url, heads):
        asyncio.run(ask(url))
    assert seen == ["plain-key"]
    assert not re.findall(r"OPENAI_\w+-value", json.dumps(heads))


def test_debug_logs_of_the_libraries_hold_no_key(monkeypatch, caplog):
    """Here the server sends it back in a header of its answer, which openai's client writes down."""
    monkeypatch.setenv("MY_KEY", SECRET)
    caplog.set_level("DEBUG")
    with pytest.raises(ERRORS):
        answers_with(401)
    assert "x-request-id" in caplog.text
    assert not leaks(caplog.text)


def test_headers_of_ones_own_are_not_repeated_either(monkeypatch):
    monkeypatch.setenv("MY_KEY", "plain-key")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Gateway-Key: gateway-secret-1")
    with pytest.raises(ERRORS) as caught:
        answers_with(400, lambda key, path: {"error": {"message": "gateway-secret-1 and plain-key are wrong"}})
    assert "[key] and [key] are wrong" in str(caught.value)


def test_a_redirect_to_another_server_does_not_take_the_key_along(monkeypatch):

    monkeypatch.setenv("MY_KEY", "plain-key")
    reply = {"choices": [{"message": {"content": "x"}}], "usage": {}}
    with echo_server(200, lambda key, path: reply) as (elsewhere, heads):

        class Redirects(BaseHTTPRequestHandler):
            def do_POST(self):
                self.rfile.read(int(self.headers.get("content-length", 0)))
                self.send_response(307)
                self.send_header("location", f"{elsewhere}/chat/completions")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *args):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Redirects)
        threading.Thread(target=server.serve_forever, daemon=True).start()

        async def ask():
            backend = OpenAIBackend("m", f"http://127.0.0.1:{server.server_port}/v1", key_variable="MY_KEY", timeout=10)
            try:
                await backend.answer(QUESTION)
            finally:
                await backend.close()

        with contextlib.suppress(*ERRORS):
            asyncio.run(ask())
        server.shutdown()
        server.server_close()
    assert "plain-key" not in json.dumps(heads)
