import re

import pytest
from fastapi.testclient import TestClient

from survey import files
from survey.app import middleware, pages, server
from survey.app.rate_limit import Bucket

ADDRESS = "http://127.0.0.1:8100"


@pytest.fixture
def tokens(study, book):
    """Tokens of two experts and of one lay person."""
    return [
        *(token for _, token in book.invite(study, "experts", 2)),
        *(token for _, token in book.invite(study, "laypeople", 1)),
    ]


def visitor(study, book, address=ADDRESS, **settings):
    asking = server.application(
        study, book, files.folder(study.name) / "pictures", address, **settings
    )
    return TestClient(asking, base_url=address, follow_redirects=False)


@pytest.fixture
def client(study, book):
    with visitor(study, book) as one:
        yield one


@pytest.fixture
def inside(client, tokens):
    """The client of the first expert, past the first page."""
    assert start(client, tokens[0]).status_code == 303
    return client


def start(client, token, agree="yes"):
    return client.post("/start", data={"token": token, "agree": agree})


def vote(client, seen, choice="left", **changes):
    shown = seen(client.get("/question").text)
    data = {"form": shown.form, "question": shown.number, "choice": choice} | changes
    return client.post("/vote", data=data)


def test_opening_a_link_shows_what_is_stored_and_changes_nothing(client, tokens, book):
    page = client.get(f"/i/{tokens[0]}")

    assert page.status_code == 200
    assert "What is stored" in page.text
    assert "This study is run by the person who sent you the link." in page.text
    assert "invitation" not in page.cookies
    assert book.raters()[0].agreed is None
    assert client.get("/question").status_code == 403


def test_nobody_is_let_in_without_having_agreed(client, tokens):
    assert client.post("/start", data={"token": tokens[0]}).status_code == 422
    assert start(client, tokens[0], agree="no").status_code == 422
    assert client.get("/", headers={"Cookie": f"invitation={tokens[0]}"}).status_code == 200
    asked = client.get("/question", headers={"Cookie": f"invitation={tokens[0]}"})
    assert asked.status_code == 403


def test_the_cookie_is_kept_from_scripts_and_from_other_sites(client, study, book, tokens):
    plain = start(client, tokens[0]).headers["set-cookie"]
    with visitor(study, book, "https://study.example.org") as secure:
        safe = start(secure, tokens[0]).headers["set-cookie"]

    assert "HttpOnly" in plain
    assert "SameSite=strict" in plain
    assert "Secure" not in plain
    assert "Secure" in safe


def test_a_whole_session_is_stored_as_it_was_answered(inside, seen, study, book):
    sheet = study.sheets["experts"][0]
    choices = [("left", "same", "right")[number % 3] for number in range(len(sheet))]

    for number, choice in enumerate(choices):
        shown = seen(inside.get("/question").text)
        assert shown.number == number + 1
        assert (shown.left, shown.right) == (sheet[number].left, sheet[number].right)
        assert vote(inside, seen, choice).headers["location"] == "/question"

    assert "Thank you" in inside.get("/question").text
    assert [one.choice for one in book.of(1)] == choices
    assert [one.question for one in book.of(1)] == list(range(len(sheet)))
    assert book.of(2) == []


def test_the_link_leads_back_to_where_somebody_stopped(inside, seen, study, book, tokens):
    vote(inside, seen)
    vote(inside, seen)

    with visitor(study, book) as other_device:
        assert "Go on where I stopped" in other_device.get(f"/i/{tokens[0]}").text
        start(other_device, tokens[0])
        assert seen(other_device.get("/question").text).number == 3
    assert inside.get("/").headers["location"] == "/question"


def test_only_the_last_answer_can_be_changed(inside, seen, book):
    for _ in range(3):
        vote(inside, seen, "left")

    shown = seen(inside.get("/question/3").text)
    assert 'value="left" aria-pressed="true"' in inside.get("/question/3").text
    assert vote(inside, seen, "right", question=3).status_code == 303
    assert vote(inside, seen, "right", question=2).status_code == 409
    assert vote(inside, seen, "right", question=5).status_code == 409
    assert vote(inside, seen, "right", question=99).status_code == 409
    assert inside.get("/question/2").status_code == 409
    assert inside.get("/question/99").status_code == 409

    assert shown.number == 3
    assert [one.choice for one in book.of(1)] == ["left", "left", "right"]
    assert [one.changes for one in book.of(1)] == [0, 0, 1]


def test_the_same_vote_sent_twice_is_one_vote_however_late_it_comes(inside, seen, book):
    form = seen(inside.get("/question").text).form
    vote(inside, seen, "left")
    vote(inside, seen, "left")
    vote(inside, seen, "left")

    late = inside.post("/vote", data={"form": form, "question": 1, "choice": "left"})

    assert late.status_code == 303
    assert [(one.question, one.changes) for one in book.of(1)] == [(0, 0), (1, 0), (2, 0)]


@pytest.mark.parametrize(
    "changes",
    [
        {"choice": "both"},
        {"choice": ""},
        {"question": 0},
        {"question": "x"},
        {"question": 10**9},
    ],
)
def test_votes_that_make_no_sense_are_refused_and_nothing_is_stored(
    inside, seen, book, changes
):
    assert vote(inside, seen, **changes).status_code == 422
    assert book.of(1) == []


def test_wrong_tokens_are_refused_and_soon_not_even_looked_up_for_a_while(study, book, tokens):
    now = [0.0]
    with visitor(study, book, failures=Bucket(0.5, 5, clock=lambda: now[0])) as client:
        guesses = [client.get(f"/i/{'x' * 42}{n}") for n in range(8)]
        assert [guess.status_code for guess in guesses] == [404] * 5 + [429] * 3
        assert guesses[-1].headers["retry-after"] == "3"
        assert start(client, "y" * 43).status_code == 429
        assert client.get(f"/i/{tokens[0]}").status_code == 200  # others in the house go on
        now[0] = 2.0
        assert client.get("/i/" + "x" * 43).status_code == 404


def test_one_person_cannot_ask_without_end(study, book, tokens):
    now = [0.0]
    with visitor(study, book, pace=Bucket(2, 10, clock=lambda: now[0])) as client:
        start(client, tokens[0])
        statuses = [client.get("/mine.json").status_code for _ in range(12)]
        assert statuses == [200] * 9 + [429] * 3
        start(client, tokens[1])  # others are not held up
        assert client.get("/mine.json").status_code == 200
        now[0] = 0.5
        start(client, tokens[0])
        assert client.get("/mine.json").status_code == 429


def test_a_revoked_link_ends_at_once_and_its_votes_stay(inside, seen, book, tokens):
    vote(inside, seen)
    book.revoke([1])

    assert inside.get("/question").status_code == 404
    assert inside.get(f"/i/{tokens[0]}").status_code == 404
    assert len(book.of(1)) == 1


def test_nobody_reaches_anybody_elses_answers(inside, seen, study, book, tokens):
    with visitor(study, book) as other:
        start(other, tokens[1])
        vote(other, seen, "right")
        form = seen(other.get("/question").text).form

    vote(inside, seen, "left")
    assert [one["choice"] for one in inside.get("/mine.json").json()["answers"]] == ["left"]
    stolen = {"form": form, "question": 2, "choice": "left", "rater": 2, "invitation": 2}
    assert inside.post("/vote", data=stolen).status_code == 403
    assert [one.choice for one in book.of(2)] == ["right"]
    every_page = [inside.get(path).text for path in ("/question", "/mine", "/question/1")]
    assert not [page for page in every_page if tokens[1] in page or form in page]


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_form_from_another_site_does_nothing(inside, seen, book, headers):
    form = seen(inside.get("/question").text).form
    data = {"form": form, "question": 1, "choice": "left", "sure": "yes"}

    assert inside.post("/vote", data=data, headers=headers).status_code == 403
    assert inside.post("/delete", data=data, headers=headers).status_code == 403
    assert book.of(1) == []
    assert len(book.raters()) == 3


def test_a_form_without_its_secret_does_nothing(inside, seen, book, tokens):
    data = {"question": 1, "choice": "left", "sure": "yes"}

    for form in ("", "0" * 64, middleware.form_token(tokens[1]), tokens[0]):
        for path in ("/vote", "/delete", "/leave"):
            assert inside.post(path, data=data | {"form": form}).status_code in {403, 422}
    assert book.of(1) == []
    assert len(book.raters()) == 3


def test_own_pages_send_forms_that_are_let_through(inside, seen):
    headers = {"Origin": ADDRESS, "Sec-Fetch-Site": "same-origin"}
    form = seen(inside.get("/question").text).form

    sent = inside.post(
        "/vote", data={"form": form, "question": 1, "choice": "left"}, headers=headers
    )

    assert sent.status_code == 303


def test_whatever_the_texts_hold_is_shown_as_text(inside, seen, study):
    page = inside.get("/i/" + inside.cookies["invitation"]).text
    for _ in study.sheets["experts"][0]:
        page += inside.get("/question").text
        vote(inside, seen)

    assert "&lt;script&gt;alert(&#39;name&#39;)" in page
    assert "{braces}" in page
    assert "{{ 7 * 7 }}" in page
    assert not re.findall(r"<script>|<img src=x|<b>good|</ul><script", page)
    assert set(re.findall(r"<script[^>]*>", page)) == {'<script src="/survey.js" defer>'}


def test_captions_are_shown_as_text(study, book, seen):
    study.captions[:] = ["<script>alert('caption')</script>"] * len(study.captions)
    token = book.invite(study, "experts", 1)[0][1]
    with visitor(study, book) as client:
        start(client, token)
        assert "&lt;script&gt;alert(&#39;caption&#39;)" in client.get("/question").text


@pytest.mark.parametrize(
    "name",
    [
        "../study.json",
        "..%2fkey.json",
        "%2e%2e%2fkey.json",
        "..%5c..%5ckey.json",
        "%2fetc%2fpasswd",
        "key.json",
        "x.png",
        "%00",
        "a" * 101,
    ],
)
def test_only_pictures_of_the_study_are_sent(inside, name):
    assert inside.get(f"/picture/{name}").status_code in {404, 422}


def test_pictures_are_for_invited_people(client, inside, study):
    name = study.pictures[0]
    sent = inside.get(f"/picture/{name}")

    assert sent.content == (files.folder(study.name) / "pictures" / name).read_bytes()
    assert sent.headers["cache-control"].startswith("private")
    inside.cookies.clear()
    assert client.get(f"/picture/{name}").status_code == 403


def test_every_answer_has_the_headers_that_keep_a_browser_safe(inside, study):
    paths = [
        "/",
        "/question",
        f"/picture/{study.pictures[0]}",
        "/nothing",
        "/survey.css",
        "/mine",
    ]
    for path in paths:
        headers = inside.get(path).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none';")
        assert "unsafe" not in policy
        assert "http" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "same-origin"
        if not path.startswith("/picture"):
            assert headers["cache-control"] == "no-store"


def test_pages_ask_nothing_of_other_hosts(inside, tokens):
    for path in ("/", "/question", "/mine", f"/i/{tokens[0]}", "/survey.css", "/survey.js"):
        addresses = re.findall(
            r"(?:src|href|action|url\()[=\"']*([^\"'> ]+)", inside.get(path).text
        )
        assert not [one for one in addresses if re.match(r"(https?:)?//", one)], path


def test_other_names_of_this_host_are_refused(client):
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 400
    assert client.get("/", headers={"Host": "localhost:8100"}).status_code == 200


def test_large_forms_are_refused_unread(inside, seen):
    form = seen(inside.get("/question").text).form
    data = {"form": form, "question": 1, "choice": "left", "more": "x" * 20_000}

    def endless():
        for _ in range(100):
            yield b"x" * 1000

    assert inside.post("/vote", data=data).status_code == 413
    assert inside.post("/vote", content=endless()).status_code == 413


def test_people_take_their_data_with_them_and_delete_it(inside, seen, book, tokens):
    vote(inside, seen, "right")
    data = inside.get("/mine.json").json()
    page = inside.get("/mine").text
    form = re.search(r'name="form" value="(\w+)"', page)[1]

    assert data["group"] == "experts"
    assert data["agreed"].endswith("Z")
    assert [(one["question"], one["choice"]) for one in data["answers"]] == [(1, "right")]
    assert inside.post("/delete", data={"form": form}).status_code == 422
    gone = inside.post("/delete", data={"form": form, "sure": "yes"})
    assert gone.headers["location"] == "/deleted"
    assert "gone" in inside.get("/deleted").text
    assert [one.number for one in book.raters()] == [2, 3]
    assert book.of(1) == []
    assert inside.get(f"/i/{tokens[0]}").status_code == 404


def test_a_shared_device_forgets_who_used_it(inside, book):
    page = inside.get("/mine").text
    form = re.search(r'name="form" value="(\w+)"', page)[1]

    assert inside.post("/leave", data={"form": form}).headers["location"] == "/"

    assert inside.get("/question").status_code == 403
    assert len(book.raters()) == 3


def test_a_code_can_be_typed(client, tokens):
    sent = client.post("/enter", data={"token": f" {tokens[0]} "})

    assert sent.headers["location"] == f"/i/{tokens[0]}"
    assert client.post("/enter", data={"token": "a/../b?c"}).headers["location"] == (
        "/i/a%2F..%2Fb%3Fc"
    )


def test_the_pages_speak_the_language_that_the_reader_chose(inside, tokens):
    assert '<html lang="en">' in inside.get("/question").text
    browser = inside.get("/question", headers={"Accept-Language": "zh-CN,zh;q=0.9,en;q=0.8"})
    assert '<html lang="en">' in browser.text  # chosen before, by the first page
    chosen = inside.get("/question?lang=zh").text

    assert '<html lang="zh">' in chosen
    assert "差不多" in chosen
    assert '<html lang="zh">' in inside.get("/mine").text
    assert '<html lang="zh">' in inside.get("/nothing").text
    assert inside.get("/question?lang=xx").status_code == 422


def test_a_browser_s_own_language_comes_first(client):
    page = client.get("/", headers={"Accept-Language": "fr, zh-TW;q=0.8, en;q=0.5"})

    assert '<html lang="zh">' in page.text


def test_a_database_that_fails_is_said_and_nothing_is_acknowledged(inside, seen, book):
    form = seen(inside.get("/question").text).form
    book.close()
    (files.folder("trial") / "votes.db").write_bytes(b"no database")

    sent = inside.post("/vote", data={"form": form, "question": 1, "choice": "left"})

    assert sent.status_code == 503
    assert "location" not in sent.headers


def test_every_text_of_the_pages_is_in_the_chinese_catalogue():
    catalogue = pages.catalogue("zh")
    said = set()
    for template in pages._environment().list_templates():
        if template.endswith(".j2"):
            said |= set(re.findall(r'say\("([^"]+)"', _source(template)))
    code = (pages._FOLDER.parent / "server.py").read_text(encoding="utf-8")
    said |= set(re.findall(r'(?:Problem\(\d+, |say\(request, [\w.]+, )"([^"]+)"', code))

    assert len(said) > 50
    assert not said - catalogue.keys()
    for english, chinese in catalogue.items():
        assert set(re.findall(r"{\w+}", english)) == set(re.findall(r"{\w+}", chinese)), english


def _source(template):
    environment = pages._environment()
    return environment.loader.get_source(environment, template)[0]
