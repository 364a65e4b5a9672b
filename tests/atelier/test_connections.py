import ssl

import pytest

from atelier import connections
from atelier.errors import ParamsError

VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:9", r"ALL_PROXY is 'socks5://127.0.0.1:9', a SOCKS"),
        ("all_proxy", "socks5h://me:secret@h:9", r"all_proxy is 'socks5h://…@h:9', a SOCKS"),
        ("HTTPS_PROXY", "foo://h", r"HTTPS_PROXY is 'foo://h', and should be the address"),
        ("http_proxy", "http://h:port", r"http_proxy is 'http://h:port', and should be"),
        ("HTTP_PROXY", "http://me:sec/ret@h:80", r"HTTP_PROXY is 'http://…@h:80', and"),
    ],
)
def test_a_proxy_with_which_no_client_can_be_made_is_named(monkeypatch, variable, value, says):
    monkeypatch.setenv("NO_PROXY", "example.org")
    monkeypatch.setenv(variable, value)

    with pytest.raises(ParamsError, match=says) as caught:
        connections.refuse_environment()

    assert "sec" not in str(caught.value)


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_certificates_that_cannot_be_read_are_named(monkeypatch, tmp_path, content):
    path = tmp_path / "authority.pem"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))

    with pytest.raises(ParamsError, match=r"SSL_CERT_FILE names .*authority.pem, which cannot"):
        connections.refuse_environment()


@pytest.mark.parametrize("value", ["http://127.0.0.1:9", "127.0.0.1:9", "https://me:pw@h:9"])
def test_an_ordinary_proxy_is_no_mistake(monkeypatch, value):
    monkeypatch.setenv("ALL_PROXY", value)

    connections.refuse_environment()


def test_a_proxy_that_is_never_used_is_no_mistake(monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "*")

    connections.refuse_environment()


def raised(*errors):
    """An error of which each is caused by the next."""
    for inner, outer in zip(errors[:0:-1], errors[-2::-1], strict=True):
        outer.__cause__ = inner
    return errors[0]


def test_the_innermost_cause_is_told_in_one_line():
    refused = ConnectionRefusedError(111, "Connect call failed")

    assert connections.cause(raised(ValueError("a"), OSError("b"), refused)) == (
        "[Errno 111] Connect call failed"
    )
    assert connections.cause(raised(OSError("all failed"), ExceptionGroup("", [refused]))) == (
        "[Errno 111] Connect call failed"
    )
    assert connections.cause(raised(ValueError("a"), TimeoutError())) == "TimeoutError"
    assert connections.cause(ValueError("a\n  b")) == "a b"
    assert len(connections.cause(ValueError("a" * 5000))) < 400


def test_an_error_of_the_system_that_a_library_hides_is_told():
    try:
        try:
            raise OSError(2, "inside")
        except OSError:
            raise ValueError("outside") from None
    except ValueError as error:
        assert connections.cause(error) == "[Errno 2] inside"  # noqa: PT017


def test_a_ring_of_causes_has_an_end():
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first

    assert connections.cause(first) == "b"


def test_the_proxy_of_the_scheme_or_of_all_is_named_unless_it_is_avoided(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://one:1")
    monkeypatch.setenv("ALL_PROXY", "http://me:secret@two:2")
    monkeypatch.setenv("NO_PROXY", "near.example")

    def advice(url):
        return connections.advice(url, OSError())

    assert "HTTPS_PROXY, http://one:1" in advice("https://far.example/v1")
    assert "ALL_PROXY, http://…@two:2" in advice("http://far.example/v1")
    assert advice("http://near.example/v1") == ""


def test_a_certificate_is_the_advice_even_through_a_proxy(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://one:1")
    unknown = ssl.SSLCertVerificationError("self-signed")
    unknown.verify_code = 18

    said = connections.advice("https://far.example/v1", raised(OSError("x"), unknown))

    assert "SSL_CERT_FILE name a PEM file" in said


def test_an_error_without_words_is_told_by_what_it_hides():
    try:
        try:
            raise LookupError("inside")
        except LookupError:
            raise ValueError from None
    except ValueError as error:
        assert connections.cause(error) == "inside"  # noqa: PT017
