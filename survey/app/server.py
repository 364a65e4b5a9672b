"""The survey's web app: one question per screen, for invited people.

The server does not know which model made a picture, and a page shows only the reader's own
answers. A vote is acknowledged by the redirect to the next question, after the database has
synced it.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path as Folder
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlsplit

from fastapi import Cookie, Depends, FastAPI, Form, Header, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import Response

from survey.app import middleware, pages
from survey.app.pages import Language
from survey.app.rate_limit import Bucket
from survey.app.votes import Choice, OutOfTurnError, Rater, Votes
from survey.files import Asked, Study

COOKIE = "invitation"
_LANGUAGE_COOKIE = "language"
_REMEMBERED = 60 * 24 * 3600  # seconds that a browser keeps the cookies
_SECONDS_A_QUESTION = 8  # for the estimate on the first page
_FEW_CRITERIA = 4  # so many stand open under the pictures; more unfold on demand
_LOOPBACK = ("127.0.0.1", "localhost")
_PICTURES_LAST = "private, max-age=86400, immutable"

Token = Annotated[str, Form(min_length=1, max_length=100)]


class Problem(Exception):  # noqa: N818 - an answer to a reader, not a fault of the program
    """Ends a request with a page that says why."""

    def __init__(self, status: int, text: str, wait: float = 0.0) -> None:
        super().__init__(text)
        self.status, self.text, self.wait = status, text, wait


class Visit:
    """A request of an invited person."""

    def __init__(self, rater: Rater, token: str, sheet: list[Asked]) -> None:
        self.rater, self.sheet = rater, sheet
        self.form_token = middleware.form_token(token)
        self.token = token


def application(
    study: Study,
    votes: Votes,
    pictures: Folder,
    address: str,
    failures: Bucket | None = None,
    pace: Bucket | None = None,
) -> FastAPI:
    """Return the app.

    Args:
        study: What is asked.
        votes: Where answers go.
        pictures: Folder of the study's pictures.
        address: How people reach it, ``http(s)://host:port``; with https, cookies say Secure.
        failures: Limits wrong tokens from one address.
        pace: Limits requests of one person.
    """
    app = FastAPI(title="atelier survey", openapi_url=None, docs_url=None, redoc_url=None)
    desk = _Desk(
        study,
        votes,
        address,
        failures or Bucket(rate=0.2, burst=20),
        pace or Bucket(rate=8, burst=60),
    )
    host = urlsplit(address).hostname or ""
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*_LOOPBACK, host])
    app.add_middleware(middleware.Guard)
    _explain_problems(app)
    _add_entrance(app, desk)
    _add_questions(app, desk, pictures)
    _add_own_data(app, desk)
    _add_assets(app)
    return app


class _Desk:
    """Context of all pages: the study, the votes, and the invited person."""

    def __init__(
        self, study: Study, votes: Votes, address: str, failures: Bucket, pace: Bucket
    ) -> None:
        self.study, self.votes, self.failures, self.pace = study, votes, failures, pace
        self.secure = address.startswith("https:")
        self.dimensions = {one.key: one for one in study.dimensions}
        self.known = frozenset(study.pictures)

    def admit(self, token: str, client: str) -> Visit:
        """Return whose token it is; a wrong one is refused, and soon no more are looked up."""
        rater = self.votes.whose(token)
        if rater is None:
            wait = self.failures.wait(client)
            if wait:
                raise Problem(429, "Too many wrong codes. Please wait a little.", wait)
            raise Problem(404, "This invitation is not valid (any more).")
        wait = self.pace.wait(str(rater.number))
        if wait:
            raise Problem(429, "That was very fast. Please wait a moment.", wait)
        return Visit(rater, token, self.study.sheets[rater.group][rater.sheet])

    def visit(
        self,
        request: Request,
        invitation: Annotated[str | None, Cookie(max_length=100)] = None,
    ) -> Visit:
        """Return who asks, by the cookie."""
        if invitation is None:
            raise Problem(403, "Please open the link of your invitation.")
        visit = self.admit(invitation, _client(request))
        if visit.rater.agreed is None:
            raise Problem(403, "Please open the link of your invitation.")
        return visit

    def form(
        self, request: Request, form: Token, invitation: Annotated[str | None, Cookie()] = None
    ) -> Visit:
        """Return who sent a form, if it is a form of their own pages."""
        visit = self.visit(request, invitation)
        if not middleware.fits(visit.token, form):
            raise Problem(
                403, "This form is not from your own page. Please go back and reload."
            )
        return visit

    def keep(self, response: Response, name: str, value: str) -> None:
        """Set a cookie that scripts cannot read and other sites cannot make a browser send."""
        response.set_cookie(
            name,
            value,
            max_age=_REMEMBERED,
            httponly=True,
            samesite="strict",
            secure=self.secure,
        )


def _language(
    request: Request,
    lang: Annotated[Language | None, Query()] = None,
    language: Annotated[str | None, Cookie()] = None,
    accept_language: Annotated[str, Header()] = "",
) -> Language:
    """Return the language asked for now, before, or by the browser's settings."""
    del request
    if lang is not None:
        return lang
    return pages.preferred(language if language is not None else accept_language)


Spoken = Annotated[Language, Depends(_language)]


def _page(
    desk: _Desk, name: str, language: Language, status: int = 200, **values: Any
) -> HTMLResponse:
    html = pages.render(name, language, contact=desk.study.contact, **values)
    response = HTMLResponse(html, status, {"Content-Language": language})
    desk.keep(response, _LANGUAGE_COOKIE, language)
    return response


def _to(path: str) -> RedirectResponse:
    return RedirectResponse(path, 303)


def _client(request: Request) -> str:
    return request.client.host if request.client else ""


def _explain_problems(app: FastAPI) -> None:
    """Answer whatever goes wrong with a page in the reader's language."""

    def say(request: Request, status: int, text: str, wait: float = 0.0) -> HTMLResponse:
        cookie = request.cookies.get(_LANGUAGE_COOKIE)
        language = pages.preferred(cookie or request.headers.get("accept-language", ""))
        headers = {"Retry-After": str(int(wait) + 1)} if wait else None
        html = pages.render("problem", language, text=text, contact=None)
        return HTMLResponse(html, status, headers)

    @app.exception_handler(Problem)
    def _problem(request: Request, problem: Problem) -> HTMLResponse:
        return say(request, problem.status, problem.text, problem.wait)

    @app.exception_handler(RequestValidationError)
    def _unfit(request: Request, error: RequestValidationError) -> HTMLResponse:
        del error
        return say(request, 422, "This address or form is not complete.")

    @app.exception_handler(HTTPException)
    def _absent(request: Request, error: HTTPException) -> HTMLResponse:
        return say(request, error.status_code, "There is no such page.")

    @app.exception_handler(SQLAlchemyError)
    def _unsaved(request: Request, error: SQLAlchemyError) -> HTMLResponse:
        del error
        return say(request, 503, "Your answer could not be saved. Please try again.", 2)


def _add_entrance(app: FastAPI, desk: _Desk) -> None:
    @app.get("/", response_class=HTMLResponse)
    def home(language: Spoken, invitation: Annotated[str | None, Cookie()] = None) -> Response:
        """Ask for the code of an invitation, or continue a started sheet."""
        rater = desk.votes.whose(invitation) if invitation else None
        if rater is not None and rater.agreed is not None:
            return _to("/question")
        return _page(desk, "enter", language)

    @app.post("/enter")
    def enter(token: Token) -> Response:
        """Redirect a person who typed the code to the first page."""
        return _to(f"/i/{quote(token.strip(), safe='')}")

    @app.get("/i/{token}", response_class=HTMLResponse)
    def welcome(
        request: Request,
        language: Spoken,
        token: Annotated[str, Path(max_length=100)],
    ) -> Response:
        """Say what the study is and what is stored; opening a link changes nothing."""
        visit = desk.admit(token, _client(request))
        return _page(
            desk,
            "welcome",
            language,
            token=token,
            agreed=visit.rater.agreed is not None,
            questions=len(visit.sheet),
            minutes=max(1, round(len(visit.sheet) * _SECONDS_A_QUESTION / 60)),
            dimensions=desk.study.dimensions,
        )

    @app.post("/start")
    def start(
        request: Request, token: Token, agree: Annotated[Literal["yes"], Form()]
    ) -> Response:
        """Record the consent of a person, and start the questions."""
        del agree
        visit = desk.admit(token, _client(request))
        desk.votes.agree(visit.rater.number)
        response = _to("/question")
        desk.keep(response, COOKIE, token)
        return response


def _add_questions(app: FastAPI, desk: _Desk, pictures: Folder) -> None:
    Visitor = Annotated[Visit, Depends(desk.visit)]  # noqa: N806 - a type

    @app.get("/question", response_class=HTMLResponse)
    def next_question(language: Spoken, visit: Visitor) -> Response:
        """Ask the first question without an answer, or give thanks."""
        answered = desk.votes.answered(visit.rater.number)
        if answered >= len(visit.sheet):
            return _page(desk, "thanks", language, questions=len(visit.sheet))
        return _question(desk, visit, language, answered, answered)

    @app.get("/question/{number}", response_class=HTMLResponse)
    def question(
        language: Spoken, visit: Visitor, number: Annotated[int, Path(ge=1, le=100_000)]
    ) -> Response:
        """Ask again what was answered last, to correct it."""
        answered = desk.votes.answered(visit.rater.number)
        if number - 1 not in {answered - 1, answered} or number > len(visit.sheet):
            raise Problem(409, "Only the last answer can be changed.")
        return _question(desk, visit, language, number - 1, answered)

    @app.post("/vote", response_class=HTMLResponse)
    def vote(
        visit: Annotated[Visit, Depends(desk.form)],
        question: Annotated[int, Form(ge=1, le=100_000)],
        choice: Annotated[Choice, Form()],
    ) -> Response:
        """Put down an answer, then ask the next question."""
        if question > len(visit.sheet):
            raise Problem(409, "Only the last answer can be changed.")
        try:
            desk.votes.vote(visit.rater.number, question - 1, choice)
        except OutOfTurnError:
            raise Problem(409, "Only the last answer can be changed.") from None
        return _to("/question")

    @app.get("/picture/{name}", response_class=FileResponse)
    def picture(visit: Visitor, name: Annotated[str, Path(max_length=100)]) -> Response:
        """Send a picture of the study."""
        del visit
        if name not in desk.known:
            raise Problem(404, "There is no such page.")
        headers = {"Cache-Control": _PICTURES_LAST}
        return FileResponse(pictures / name, media_type="image/png", headers=headers)


def _question(
    desk: _Desk, visit: Visit, language: Language, number: int, answered: int
) -> HTMLResponse:
    asked = visit.sheet[number]
    dimension = desk.dimensions[asked.dimension]
    before = desk.votes.of(visit.rater.number)[number].choice if number < answered else None
    return _page(
        desk,
        "question",
        language,
        form=visit.form_token,
        number=number + 1,
        questions=len(visit.sheet),
        answered=answered,
        left=asked.left,
        right=asked.right,
        caption=desk.study.captions[asked.caption],
        dimension=dimension,
        unfolded=len(dimension.criteria) <= _FEW_CRITERIA,
        before=before,
    )


def _add_own_data(app: FastAPI, desk: _Desk) -> None:
    Visitor = Annotated[Visit, Depends(desk.visit)]  # noqa: N806 - a type
    Sender = Annotated[Visit, Depends(desk.form)]  # noqa: N806 - a type

    @app.get("/mine", response_class=HTMLResponse)
    def mine(language: Spoken, visit: Visitor) -> Response:
        """Say what is stored of the reader."""
        answered = desk.votes.answered(visit.rater.number)
        return _page(
            desk,
            "mine",
            language,
            form=visit.form_token,
            rater=visit.rater,
            answered=answered,
            questions=len(visit.sheet),
        )

    @app.get("/mine.json")
    def mine_json(visit: Visitor) -> JSONResponse:
        """Send all that is stored of the reader."""
        headers = {"Content-Disposition": 'attachment; filename="my-answers.json"'}
        return JSONResponse(own_data(desk.study, desk.votes, visit.rater), headers=headers)

    @app.post("/leave")
    def leave(visit: Sender) -> Response:
        """Forget the reader on this device."""
        del visit
        return _forgotten("/")

    @app.post("/delete")
    def delete(visit: Sender, sure: Annotated[Literal["yes"], Form()]) -> Response:
        """Delete the reader's answers and invitation for good."""
        del sure
        desk.votes.delete(visit.rater.number)
        return _forgotten("/deleted")

    @app.get("/deleted", response_class=HTMLResponse)
    def deleted(language: Spoken) -> Response:
        """Say that nothing is left."""
        return _page(desk, "deleted", language)


def _forgotten(path: str) -> RedirectResponse:
    response = _to(path)
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return response


def own_data(study: Study, votes: Votes, rater: Rater) -> dict[str, Any]:
    """Return all data of one person, in words that they know."""
    sheet = study.sheets[rater.group][rater.sheet]
    return {
        "study": study.name,
        "invitation": rater.number,
        "group": rater.group,
        "invited": _when(rater.made),
        "agreed": _when(rater.agreed),
        "revoked": _when(rater.revoked),
        "answers": [
            {
                "question": vote.question + 1,
                "dimension": sheet[vote.question].dimension,
                "left": sheet[vote.question].left,
                "right": sheet[vote.question].right,
                "choice": vote.choice,
                "answered": _when(vote.voted),
                "corrections": vote.changes,
            }
            for vote in votes.of(rater.number)
        ],
    }


def _when(moment: Any) -> str | None:
    return None if moment is None else f"{moment.isoformat()}Z"


def _add_assets(app: FastAPI) -> None:
    def send(name: str, kind: str) -> Callable[[], Response]:
        content = partial(pages.asset, name)
        return lambda: Response(content(), media_type=kind)

    for name, kind in (
        ("survey.css", "text/css"),
        ("survey.js", "text/javascript"),
        ("icon.svg", "image/svg+xml"),
    ):
        app.get(f"/{name}", name=name)(send(name, kind))

    @app.get("/health")
    def health() -> dict[str, str]:
        """Say that the server is up."""
        return {"status": "ok"}
