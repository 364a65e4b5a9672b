"""Cases from seeds: bytes torn and twisted, values with one thing in them changed.

Both are functions of a seed, so that a failing case comes again.
"""

import json
import random
from collections.abc import Iterator
from typing import Any

import yaml
from hypothesis import strategies as st

# What has broken a reader somewhere.
TOKENS = [
    b"\x00", b"\xff\xfe",
    b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\\ud800", b"\\u0000", b"\r", b"\n",
    b"\t", b"- ", b": ", b"? ", b"&a ", b"*a ", b"<<: ", b"!!python/name:os.system ", b"!!int ",
    b"!!timestamp ", b"!!binary ", b"[", b"]", b"{", b"}", b'"',
    b"'", b"```json\n", b"```", b",",
    b"NaN", b".nan", b".inf", b"-.inf", b"1e999",
    b"9" * 400, b"9" * 5000, b"-0", b"0x", b"1_000",
    b"null", b"~", b"true", b"yes", b"2001-99-99",
    b"../../", b"/etc/passwd", b"<script>", b"%00",
    b"[/b]", b"\x1b[31m", b"[" * 3000, b"{\"a\":" * 3000, b"a" * 200_000, "\u202e".encode(),
    "ё".encode(), "\U0001f3a8".encode(),
]  # fmt: skip


def torn(seeds: list[bytes], seed: int) -> Iterator[bytes]:
    """Yield the seeds, then endlessly what becomes of them by one to six changes."""
    yield from seeds
    chance = random.Random(seed)
    while True:
        case = chance.choice(seeds)
        for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
            case = _changed(case, seeds, chance)
        yield case


def _changed(case: bytes, seeds: list[bytes], chance: random.Random) -> bytes:
    at, to = sorted(chance.randrange(len(case) + 1) for _ in range(2))
    to = min(to, at + chance.choice((1, 4, 40, 400, 4000)))
    how = chance.randrange(9)
    if how == 0:
        return case[:at]
    if how == 1:
        return case[:at] + case[to:]
    if how == 2:
        return case[:to] + case[at:to] * chance.choice((1, 2, 30)) + case[to:]
    if how == 3 and case:
        bit = chance.randrange(8 * len(case))
        flipped = bytearray(case)
        flipped[bit // 8] ^= 1 << bit % 8
        return bytes(flipped)
    if how == 4:
        return case[:at] + chance.randbytes(to - at) + case[to:]
    if how == 5:
        other = chance.choice(seeds)
        return case[:at] + other[chance.randrange(len(other) + 1) :]
    if how == 6:  # four bytes that are a length or a size, at its largest
        return (
            case[:at]
            + chance.choice((b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff"))
            + case[at + 4 :]
        )
    token = chance.choice(TOKENS)
    return case[:at] + token + case[at if how == 7 else to :]


def odd() -> st.SearchStrategy[Any]:
    """Values that a person or a model may write where something else belongs."""
    leaf = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.integers(min_value=2**62, max_value=2**200),
        st.floats(),
        st.text(max_size=80),
        st.sampled_from(
            ["", " ", "\x00", "../../x", "/etc/passwd", "<script>alert(1)</script>", "[/b]",
             "\x1b[2J",
             "1e-4", "yes", "x" * 5000, "a\n", "none", "{{ 7 * 7 }}", "${x}"]
        ),
    )  # fmt: skip
    return st.recursive(
        leaf,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)
        ),
        max_leaves=6,
    )


@st.composite
def twisted(draw: st.DrawFn, value: Any) -> Any:
    """``value`` with one to three of its parts replaced, removed, doubled or renamed."""
    value = json.loads(json.dumps(value))
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(value))
        if not places:
            return draw(odd())
        holder, key = draw(st.sampled_from(places))
        how = draw(st.sampled_from(("replace", "replace", "remove", "add", "swap")))
        if how == "replace":
            holder[key] = draw(odd())
        elif how == "remove":
            del holder[key]
        elif how == "swap":
            other, name = draw(st.sampled_from(places))
            if name in other if isinstance(other, dict) else name < len(other):
                holder[key] = json.loads(json.dumps(other[name]))
        elif isinstance(holder, dict):
            holder[draw(st.text(max_size=8))] = draw(odd())
        else:
            holder.append(draw(odd()))
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every (holder, key) inside ``value``."""
    inside = value.items() if isinstance(value, dict) else enumerate(value)
    for key, below in list(inside):
        yield value, key
        if isinstance(below, dict | list):
            yield from _places(below)


def as_yaml(value: Any) -> bytes:
    """Write ``value`` as YAML, half characters as escapes."""
    return yaml.safe_dump(value, sort_keys=False).encode(errors="surrogatepass")


def as_json(value: Any) -> bytes:
    """Write ``value`` as one line of JSON."""
    return json.dumps(value).encode()


def as_json_lines(value: Any) -> bytes:
    """Write a list as JSONL; anything else as one line."""
    rows = value if isinstance(value, list) else [value]
    return b"".join(as_json(row) + b"\n" for row in rows)
