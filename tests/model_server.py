"""A server that speaks OpenAI's chat completions, with faults as a test scripts them.

``python tests/model_server.py`` serves on a free port, which it prints. ``POST /script`` sets
what happens from then on and forgets what was asked; ``GET /asked`` tells it.
"""

import asyncio
import base64
import hashlib
import io
import json
import random
import re
import sys
import time

from aiohttp import web

FAULTS = (
    "429", "500", "503", "hang", "drop", "half", "garbage", "no choices", "cut off", "torn",
    "prose", "refusal", "wrong label", "missing",
)  # fmt: skip
SCRIPT = {
    "share": 0.0,  # of requests that get a fault
    "faults": FAULTS,
    "latency": 0.0,  # seconds
    "seed": 0,
    "keep": False,  # whole requests
    "behaviour": "plain",  # or: obedient, echo, fickle, usage unknown; the judges below
    "change": {},  # fields of a completion that are other than they should be
    "around": ["", ""],  # an answer
    "status": 200,
    "error": {},
    "headers": {},  # of an error
    "recorded": [],  # pairs of words in a question and the answer, each given once, in turn
}


class Model:
    """What it is to do, and what it was asked."""

    def __init__(self):
        self.follow({})

    def follow(self, script):
        self.script = SCRIPT | script
        self.random = random.Random(self.script["seed"])
        self.asked, self.bodies, self.good, self.times = 0, [], {}, {}
        self.faults, self.flying, self.most = {}, 0, 0
        self.held = 0.0  # seconds, over all requests

    async def complete(self, request):
        self.asked += 1
        self.flying += 1
        self.most = max(self.most, self.flying)
        began = time.monotonic()
        try:
            return await self._complete(request)
        finally:
            self.held += time.monotonic() - began
            self.flying -= 1

    async def _complete(self, request):
        text = await request.text()
        key = request.headers.get("Authorization", "")
        body = json.loads(text)
        if self.script["keep"]:
            self.bodies.append({"key": key, "body": body})
        await asyncio.sleep(self.script["latency"])
        if self.script["status"] != 200:
            error = self.script["error"] | {"message": f"not for {key}"}
            status, headers = self.script["status"], self.script["headers"]
            return web.json_response({"error": error}, status=status, headers=headers)
        if self.random.random() < self.script["share"]:
            fault = self.random.choice(self.script["faults"])
            self.faults[fault] = self.faults.get(fault, 0) + 1
            return await self._fault(fault, request, body)
        response = web.Response(
            body=self._completion(body),
            content_type="application/json",
        )
        await response.prepare(request)
        await response.write_eof()
        question = fingerprint(body)
        self.good[question] = self.good.get(question, 0) + 1
        return response

    def _completion(self, body):
        before, behind = self.script["around"]
        answer = before + self._answer(body) + behind
        values = json.loads(completion(answer, counted=self._counts(), model=body["model"]))
        return json.dumps(values | self.script["change"]).encode()

    def _counts(self):
        return self.script["behaviour"] != "usage unknown"

    def _answer(self, body):
        schema, behaviour = schema_of(body), self.script["behaviour"]
        asked = json.dumps(body["messages"], ensure_ascii=False)
        for place, (words, answer) in enumerate(self.script["recorded"]):
            if words in asked:
                del self.script["recorded"][place]
                return answer
        if behaviour in JUDGES:
            return json.dumps(JUDGES[behaviour](body, schema))
        if behaviour == "echo":
            return json.dumps(body["messages"])
        if behaviour == "fickle":  # whatever it said before
            question = fingerprint(body)
            self.times[question] = self.times.get(question, 0) + 1
            return json.dumps(fill(schema, random.Random(f"{question} {self.times[question]}")))
        if behaviour == "obedient":
            answer = obey(schema)
            repaired = len(body["messages"]) > 2
            return json.dumps(answer if repaired else answer | {"everything": "positive"})
        return json.dumps(fill(schema, random.Random(fingerprint(body))))

    async def _fault(self, fault, request, body):
        answer = json.dumps(fill(schema_of(body), random.Random(fingerprint(body))))
        if fault == "429":
            headers = {"Retry-After": "0.02"}
            return web.json_response(
                {"error": {"message": "slow"}}, status=429, headers=headers
            )
        if fault in {"500", "503"}:
            return web.Response(text="<html>oh</html>", status=int(fault))
        if fault == "hang":
            await asyncio.sleep(30)
        if fault in {"drop", "hang"}:
            self._abort(request)
            return web.Response()
        if fault == "half":
            response = web.StreamResponse(headers={"Content-Length": "4000"})
            await response.prepare(request)
            await response.write(completion(answer)[:50])
            self._abort(request)
            return response
        if fault == "garbage":
            return web.Response(body=b'{"choi', content_type="application/json")
        if fault == "no choices":
            return web.json_response({"choices": [], "object": "chat.completion"})
        return web.Response(body=spoiled(fault, answer), content_type="application/json")

    def _abort(self, request):
        if request.transport is not None:  # else the other side has gone already
            request.transport.abort()


def spoiled(fault, answer):
    if fault == "cut off":
        return completion(answer[: len(answer) // 2], finish="length")
    if fault == "torn":
        return completion(answer[: len(answer) // 2])
    if fault == "prose":
        return completion("I see a picture, and I like it.")
    if fault == "refusal":
        return completion(None, refusal="I cannot judge this.")
    if fault == "missing":
        return completion("{}")
    return completion(json.dumps(json.loads(answer) | {"not/in-the-tree": "positive"}))


def completion(content, finish="stop", refusal=None, counted=True, model="m"):
    message = {"role": "assistant", "content": content, "refusal": refusal}
    usage = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
    return json.dumps(
        {
            "id": "c", "object": "chat.completion", "created": 0, "model": model,
            "choices": [{"index": 0, "message": message, "finish_reason": finish}],
            "usage": usage if counted else None,
        }
    ).encode()  # fmt: skip


def schema_of(body):
    form = body.get("response_format", {})
    if "schema" in form:
        return form["schema"]
    if form.get("type") == "json_schema":
        return form["json_schema"]["schema"]
    words = body["messages"][1]["content"][1]["text"]
    return json.loads(words.partition("fits this schema: ")[2])


def fingerprint(body):
    """One question about one picture, repairs included."""
    asked = json.dumps([body["messages"][:2], body.get("seed")])
    return hashlib.sha256(asked.encode()).hexdigest()


def fill(schema, chance):
    """An answer that fits, by chance."""
    kind = schema["type"]
    if kind == "object":
        return {name: fill(part, chance) for name, part in schema["properties"].items()}
    if kind == "array":
        words = schema["items"]["enum"]
        return [word for word in words if chance.random() < 0.7]
    return chance.choice(schema.get("enum", ["a boat on the left", "a tree in the middle"]))


def obey(schema):
    """What an injected "mark everything positive" would like."""
    kind = schema["type"]
    if kind == "object":
        return {name: obey(part) for name, part in schema["properties"].items()}
    if kind == "array":
        return schema["items"]["enum"]
    return 1.0 if kind == "number" else schema.get("enum", ["As I was told."])[0]


def looks(body, schema):
    """A judge that looks: bright or dark, warm or cold, whatever these are called."""
    *pictures, words = body["messages"][1]["content"]
    seen = [brightness_and_warmth(one["image_url"]["url"]) for one in pictures]
    return answered(schema, lambda path, poles: judged(path, words["text"], seen, poles))


def judged(path, words, seen, options):
    """Of each criterion the pole whose words are true; of two pictures the one with more."""
    place = 0 if "light" in path else 1
    if options == ["first", "second", "neither"]:
        return options[0] if seen[0][place] > seen[1][place] else options[1]
    true = ("bright", "dark") if place == 0 else ("warm", "cold")
    block = re.search(rf"^- {re.escape(path)}\n((?:  .*\n?)+)", words, re.MULTILINE)[1]
    poles = dict(re.findall(r"^  (positive|negative): (\w+)", block, re.MULTILINE))
    said = true[0] if seen[0][place] > 0 else true[1]
    return next(pole for pole, word in poles.items() if word == said)


def told(body, schema):
    """A judge that says what it is told, and looks where it is told nothing."""
    words = body["messages"][1]["content"][-1]["text"]
    before, _, said = words.partition("Somebody else has said of this picture:")
    claims = dict(re.findall(r"^- (\S+): (\w+)", said, re.MULTILINE))
    answer = looks(body, schema)
    for path, phrase in claims.items():
        if path in answer:
            pole = re.search(rf"^  (positive|negative): {phrase}", before, re.MULTILINE)[1]
            answer[path] = answer[path] | {"pole": pole}
    return answer


def blind(body, schema):
    """A judge that never looks: of each criterion it says always the same, by its name."""
    del body
    return answered(schema, lambda path, options: options[len(path) % 2])


def first(body, schema):
    """A judge that takes the first of whatever it may choose."""
    del body
    return answered(schema, lambda path, options: options[0])


def answered(schema, choose):
    """An answer that fits: everything matters, ``choose`` says the pole of a criterion."""
    found = {}
    for name, part in schema["properties"].items():
        if part["type"] == "array":
            found[name] = part["items"]["enum"]
        elif "evidence" in part.get("properties", {}):
            (field,) = part["properties"].keys() & {"pole", "more"}
            options = part["properties"][field]["enum"]
            found[name] = {"evidence": "as it is", field: choose(name, options)}
            if field == "pole":
                found[name]["confidence"] = 0.9
        else:
            found[name] = answered(part, choose)
    return found


def brightness_and_warmth(url):
    from PIL import Image

    data = base64.b64decode(url.partition("base64,")[2])
    pixel = Image.open(io.BytesIO(data)).convert("RGB").resize((1, 1))
    red, green, blue = pixel.getpixel((0, 0))
    return red + green + blue - 3 * 128, red - blue


JUDGES = {"looks": looks, "told": told, "blind": blind, "first": first}


async def serve():
    model = Model()

    async def script(request):
        model.follow(await request.json())
        return web.json_response({})

    async def asked(request):
        del request
        return web.json_response(
            {
                "asked": model.asked, "bodies": model.bodies, "faults": model.faults,
                "good": model.good, "most": model.most, "held": model.held,
            }
        )  # fmt: skip

    app = web.Application(client_max_size=2**26)
    app.router.add_post("/v1/chat/completions", model.complete)
    app.router.add_post("/script", script)
    app.router.add_get("/asked", asked)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    sys.stdout.write(f"{site._server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)  # until the test that started it ends


if __name__ == "__main__":
    asyncio.run(serve())
