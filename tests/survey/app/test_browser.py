"""A whole session in a real browser; ATELIER_SCREENSHOTS names a folder for its pictures."""

import os
from pathlib import Path

import pytest

NUMBER = "document.querySelector('[name=question]')?.value"
HEADING = "document.querySelector('h1').innerText"
NOT_WIDER = "document.documentElement.scrollWidth <= innerWidth"


@pytest.fixture
def keep(browser, tmp_path):
    """A function that keeps a picture of the screen under a name."""
    folder = Path(os.environ.get("ATELIER_SCREENSHOTS", tmp_path))
    return lambda name: browser.picture(folder / f"{name}.png")


def at(number):
    return f"{NUMBER} === '{number}' && document.readyState === 'complete'"


def wait_past_the_last_key(browser):
    browser.until("performance.now() > 400")


def begin(browser, address):
    browser.go(address)
    browser.value("document.querySelector('[name=agree]').click()")
    browser.value("document.querySelector('button.main').click()")
    browser.until(at(1))


@pytest.mark.slow
def test_a_whole_session_by_keys_and_by_touch(study, book, server, browser, keep):
    ((number, token),) = book.invite(study, "experts", 1)
    questions = len(study.sheets["experts"][0])
    server.start()
    browser.screen(1280, 800)
    browser.go(f"{server.address}/i/{token}")
    keep("1-welcome")
    browser.value("document.querySelector('button.main').click()")
    assert browser.value("location.pathname").startswith("/i/")  # not without having agreed
    begin(browser, f"{server.address}/i/{token}")
    wait_past_the_last_key(browser)
    keep("2-question")
    assert browser.value("document.querySelectorAll('.pair img').length") == 2
    assert browser.value("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert (
        browser.value("document.querySelector('.answers').getBoundingClientRect().bottom") < 800
    )

    said = []
    for question, (key, choice) in enumerate(
        [("ArrowLeft", "left"), (" ", "same"), ("ArrowRight", "right"), ("2", "same")], start=1
    ):
        wait_past_the_last_key(browser)
        browser.press(key)
        browser.until(at(question + 1))
        said.append(choice)
    assert [one.choice for one in book.of(number)] == said

    browser.press("1")  # at once: the last key's echo, no answer
    assert browser.value(NUMBER) == "5"
    browser.go(f"{server.address}/question?lang=zh")
    assert browser.value("document.documentElement.lang") == "zh"
    keep("3-chinese")
    browser.screen(1280, 800, dark=True)
    keep("4-dark")

    browser.call("Page.navigate", url="about:blank")  # the tab is closed, the server dies
    server.kill()
    server.start()
    browser.screen(768, 1024, touch=True)
    browser.go(f"{server.address}/")
    browser.until(at(5))  # and on it goes
    keep("5-tablet")
    assert browser.value(NOT_WIDER)
    small = (
        "[...document.querySelectorAll('a, button, summary')].filter(e => e.offsetHeight < 44)"
    )
    assert browser.value(f"{small}.map(e => e.outerHTML)") == []
    for question in range(5, questions + 1):
        browser.until(at(question))
        browser.value("document.querySelector('button[value=right]').click()")
        said.append("right")
    browser.until("document.querySelector('form') === null")
    keep("6-thanks")
    assert [one.choice for one in book.of(number)] == said

    browser.go(f"{server.address}/question/{questions}?lang=en")
    assert browser.value("document.querySelector('[aria-pressed]').value") == "right"
    browser.value("document.querySelector('button[value=same]').click()")
    browser.until("document.querySelector('form') === null")
    assert book.of(number)[-1].choice == "same"
    browser.screen(390, 844, touch=True)
    browser.go(f"{server.address}/mine")
    keep("7-mine")
    assert browser.value(NOT_WIDER)
    browser.value("document.querySelector('[name=sure]').click()")
    browser.value("document.querySelector('button.danger').click()")
    browser.until("location.pathname === '/deleted'")
    assert book.raters() == []

    assert browser.complaints == []
    asked = {one for one in browser.asked if not one.startswith((server.address, "about:"))}
    assert asked == set()


@pytest.mark.slow
def test_a_phone_shows_both_pictures_and_all_answers(study, book, server, browser, keep):
    ((_, token),) = book.invite(study, "laypeople", 1)
    server.start()
    browser.screen(390, 844, touch=True)
    begin(browser, f"{server.address}/i/{token}")
    keep("8-phone")

    assert browser.value(NOT_WIDER)
    assert (
        browser.value("document.querySelector('.answers').getBoundingClientRect().bottom") < 844
    )
    assert "<script>" not in browser.value(HEADING) or browser.complaints == []


@pytest.mark.slow
def test_it_works_without_scripts(study, book, server, browser):
    ((number, token),) = book.invite(study, "laypeople", 1)
    server.start()
    begin(browser, f"{server.address}/i/{token}")
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    browser.go(f"{server.address}/question")

    browser.value("document.querySelector('button[value=left]').click()")
    browser.until(at(2))

    assert [one.choice for one in book.of(number)] == ["left"]
