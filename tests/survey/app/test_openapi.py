"""Whatever is sent to it, the server never fails: its OpenAPI, fuzzed by schemathesis."""

import pytest
from hypothesis import HealthCheck, Phase, settings

from survey import files
from survey.app import server
from survey.app.rate_limit import Bucket

schemathesis = pytest.importorskip(
    "schemathesis", reason="`pip install schemathesis` adds this proof; nothing else needs it"
)

EVERY_PATH = {
    "/",
    "/enter",
    "/i/{token}",
    "/start",
    "/question",
    "/question/{number}",
    "/vote",
    "/picture/{name}",
    "/mine",
    "/mine.json",
    "/leave",
    "/delete",
    "/deleted",
    "/survey.css",
    "/survey.js",
    "/icon.svg",
    "/health",
}


@pytest.fixture
def schema(study, book):
    """The app's own description, with nobody's patience limited."""
    pictures = files.folder(study.name) / "pictures"
    patient = Bucket(1e9, 10**9)
    asking = server.application(
        study, book, pictures, "http://127.0.0.1:8100", failures=patient, pace=patient
    )
    asking.openapi_url = "/openapi.json"
    asking.setup()
    loaded = schemathesis.openapi.from_asgi("/openapi.json", asking, headers=HOST)
    assert {one.ok().path for one in loaded.get_all_operations()} == EVERY_PATH
    return loaded


HOST = {"Host": "127.0.0.1:8100"}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("known", [False, True], ids=["stranger", "invited"])
def test_nothing_that_is_sent_makes_the_server_fail(schema, study, book, known):
    tokens = [token for _, token in book.invite(study, "experts", 1)]
    book.agree(1)
    cookie = {"Cookie": f"invitation={tokens[0]}"} if known else {}
    statuses = {}

    def check(case):
        answer = case.call(headers=HOST | cookie)
        case.validate_response(answer, checks=[schemathesis.checks.not_a_server_error])
        statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1

    for operation in schema.get_all_operations():
        fuzz(operation.ok(), check)

    assert sum(statuses.values()) > 300
    assert not [status for status in statuses if status >= 500]
    assert {200, 404} <= statuses.keys()


def fuzz(operation, check):
    from hypothesis import given

    @settings(
        max_examples=40,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def sent(case):
        check(case)

    sent()
