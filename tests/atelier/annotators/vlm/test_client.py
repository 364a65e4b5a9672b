import asyncio
import re
import ssl
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from pydantic import ValidationError

from atelier.annotators.vlm import client
from atelier.annotators.vlm.client import Client, FailedError, same_model
from atelier.config.annotation import VLMParams
from atelier.errors import ParamsError
from tests.certificates import self_signed


@pytest.fixture
def params(vlm):
    """A function that returns params with changes."""
    return lambda **changes: VLMParams.model_validate(vlm | changes)


def ask(params):
    """The reply to one request."""

    async def ask():
        async with Client(params) as one:
            return await one.complete(one.request([], {"type": "object", "properties": {}}))

    return asyncio.run(ask())


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("2.5", 2.5),
        (" 3 ", 3),
        ("-4", 0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("Wed, 21 Oct 2015 07:28:00 +0200", 0),
        (None, None),
        ("", None),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("1e999", None),
        ("9" * 5000, None),
        ("2.5, 3", None),
        ("Sat, 01 Jan 10000 00:00:00 GMT", None),
        ("Wed, 99 Oct 2015 77:28:00 GMT", None),
        ("Wed, 21 Oct 2015", None),
    ],
)
def test_a_retry_after_that_cannot_be_read_counts_as_absent(said, seconds):
    headers = {} if said is None else {"retry-after": said}

    assert client._retry_after(headers) == seconds


def test_a_server_that_names_an_odd_date_is_asked_again(params, model_server):
    model_server.follow(status=429, headers={"Retry-After": "Sat, 01 Jan 10000 00:00:00 GMT"})

    with pytest.raises(FailedError, match="answered 429") as caught:
        ask(params())

    assert (caught.value.again, caught.value.wait) == (True, None)


@pytest.mark.parametrize(
    "key", ["sk-a\nb", "sk-a\r\nX-Evil: 1", "sk-é", "sk a", "sk-\u200b1", "ключ"]
)
def test_a_key_that_no_header_can_hold_is_not_shown_and_not_sent(params, monkeypatch, key):
    monkeypatch.setenv("STUDIO_KEY", key)

    with pytest.raises(
        ParamsError, match=r"variable STUDIO_KEY .*copy the key again"
    ) as caught:
        ask(params(key_variable="STUDIO_KEY"))

    assert key not in str(caught.value)


@pytest.mark.parametrize("key", ["sk-proj_A/b+c==", "a.b-c:d", " sk-1 \n"])
def test_an_ordinary_key_is_taken(params, monkeypatch, key, model_server):
    monkeypatch.setenv("STUDIO_KEY", key)
    model_server.follow(keep=True)

    ask(params(key_variable="STUDIO_KEY", answers="json_schema"))

    assert model_server.asked()["bodies"][0]["key"] == f"Bearer {key.strip()}"


def test_variables_of_another_library_change_nothing(params, monkeypatch, model_server):
    for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_CUSTOM_HEADERS"):
        monkeypatch.setenv(name, "é\n")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9")

    assert ask(params()).text == "{}"


@pytest.mark.parametrize(
    ("change", "unfit"),
    [
        ({"content": None, "reasoning_content": "calm"}, "empty; .* thinking, 4 characters"),
        ({"content": " ", "reasoning": "calm edges"}, "empty; .* thinking, 10 characters"),
        ({"content": []}, "the answer is empty$"),
        ({"content": None, "refusal": "no"}, "refused: no"),
        ({"content": [{"type": "refusal", "refusal": "no"}]}, "refused: no"),
    ],
)
def test_an_answer_without_words_says_what_there_is(params, model_server, change, unfit):
    model_server.follow(change={"choices": [{"message": change}]})

    reply = ask(params())

    assert re.search(unfit, reply.unfit)


def test_thinking_up_to_the_limit_is_told_from_a_long_answer(params, model_server):
    message = {"content": None, "reasoning_content": "calm"}
    model_server.follow(change={"choices": [{"message": message, "finish_reason": "length"}]})

    assert "cut off at annotate.vlm.max_tokens, 4096; all that" in ask(params()).unfit


@pytest.mark.parametrize("usage", [{}, {"prompt_tokens": None, "completion_tokens": "1"}])
def test_tokens_are_estimated_where_usage_cannot_be_used(params, model_server, usage):
    model_server.follow(change={"usage": usage})

    reply = ask(params())

    assert reply.unfit is None
    assert (reply.prompt_tokens, reply.completion_tokens) == (100, 1)  # of the picture; of {}


@pytest.fixture
def secure(tmp_path):
    """A context manager of a server with a certificate for ``host``; yields its address."""

    @asynccontextmanager
    async def secure(host):
        certificate, key = self_signed(tmp_path, host)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        app = web.Application()
        app.router.add_post("/v1/chat/completions", lambda _: web.Response(text="{}"))
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        yield f"https://localhost:{site._server.sockets[0].getsockname()[1]}/v1", certificate
        await runner.cleanup()

    return secure


def failure(params, secure, host="localhost", monkeypatch=None, plain=False):
    async def ask():
        async with secure(host) as (address, certificate):
            if monkeypatch is not None:
                monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
            url = address.replace("https", "http") if plain else address
            async with Client(params(base_url=url)) as one:
                with pytest.raises(FailedError) as caught:
                    await one.complete(one.request([], {}))
                return str(caught.value)

    return asyncio.run(ask())


def test_a_certificate_that_no_authority_vouches_for_is_named(params, secure, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)

    said = failure(params, secure)

    assert "certificate verify failed: self-signed certificate" in said
    assert "SSL_CERT_FILE name a PEM file" in said


def test_a_trusted_certificate_of_another_host_is_told_from_an_unknown_one(
    params, secure, monkeypatch
):
    said = failure(params, secure, host="elsewhere", monkeypatch=monkeypatch)

    assert "certificate is not valid for 'localhost'" in said
    assert "SSL_CERT_FILE" not in said


def test_a_trusted_certificate_lets_the_request_through(params, secure, monkeypatch):
    said = failure(params, secure, monkeypatch=monkeypatch)

    assert said == "the server sent no chat completion (choices[0].message is absent): {}"


def test_https_asked_of_a_server_that_speaks_http_is_said(params, model_server):
    url = model_server.url.replace("http://", "https://")

    with pytest.raises(FailedError, match="does the server speak http where the address says"):
        ask(params(base_url=url))


def test_a_port_on_which_nothing_listens_is_said(params):
    with pytest.raises(FailedError, match=r"connection failed: .*127\.0\.0\.1.*9"):
        ask(params(base_url="http://127.0.0.1:9/v1"))


@pytest.mark.parametrize("url", ["http://h:port/v1", "http://h:99999/v1", "http://[::1/v1"])
def test_an_address_without_a_possible_port_is_refused_with_the_settings(params, url):
    with pytest.raises(ValidationError, match="should be http"):
        params(base_url=url)


def test_a_failing_proxy_is_named_without_its_password(params, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://me:secret@127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)

    with pytest.raises(FailedError) as caught:
        ask(params(base_url="http://model.example/v1"))

    assert "through the proxy of HTTP_PROXY, http://…@127.0.0.1:9" in str(caught.value)
    assert "NO_PROXY=model.example" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("toy-vl", "toy-vl"),
        ("Toy-VL", "toy-vl"),
        ("Qwen/Qwen2.5-VL-7B-Instruct", "Qwen2.5-VL-7B-Instruct"),
        ("Qwen2.5-VL-7B-Instruct", "/models/Qwen2.5-VL-7B-Instruct"),
        ("qwen2.5-vl", "/models/Qwen2.5-VL.gguf"),
        ("qwen2.5vl", "qwen2.5vl:latest"),
        ("gpt-4o", "gpt-4o-2024-08-06"),
        ("gpt-4", "gpt-4-0613"),
        ("gemini-1.5-pro", "models/gemini-1.5-pro-002"),
        ("claude-3-opus", "claude-3-opus-20240229"),
    ],
)
def test_one_model_may_have_a_folder_a_suffix_or_a_date_more(asked, answered):
    assert same_model(asked, answered)


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("toy-vl", "some-other-model"),
        ("gpt-4o", "gpt-4o-mini"),
        ("gpt-4o", "gpt-4o-mini-2024-07-18"),
        ("gpt-4o-2024-05-13", "gpt-4o-2024-08-06"),
        ("qwen2.5vl:7b", "qwen2.5vl:3b"),
        ("vl", "toy-vl"),
        ("a/toy-vl", "b/toy-vl"),
        ("toy-vl", ""),
    ],
)
def test_another_model_is_another_model(asked, answered):
    assert not same_model(asked, answered)
