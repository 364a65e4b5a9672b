"""What reads bad input, and what must hold of it.

A target reads one case. It returns True where the case was taken, False where it was refused
by an error that people can act upon; anything else that it raises is a fault. What is taken
must be what was written, and must be taken again, equal, from what it is written as.
"""

import asyncio
import contextlib
import functools
import io
import json
import random
import re
import shutil
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from PIL import Image, ImageCms
from pydantic import BaseModel

from atelier import connections, images
from atelier.annotators import human, label_studio
from atelier.annotators.inspection import Limits
from atelier.annotators.recorded import Recorded
from atelier.annotators.vlm import client, prompts
from atelier.config.annotation import VLMParams
from atelier.config.profile import read_profile, read_study, read_switch
from atelier.criteria import annotations, dataset, pairs, wording
from atelier.criteria import tree as trees
from atelier.criteria.annotations import Judgement, Record
from atelier.errors import AtelierError, ImageError
from atelier.reading import yaml_values
from atelier.reports import criteria_page
from tasks.commands import data_unpack
from tests.conftest import PROFILE, TOY_CRITERIA
from tests.faults import mutations
from tests.model_server import completion, fill, spoiled

ROOT = Path(__file__).parents[2]
PARAMS = ROOT / "params"
LARGEST_PIXELS = 1_000_000
LONGEST_MESSAGE = 20_000  # characters; the longest honest ones list many mistakes
_HASH = "a" * 64


@dataclass(frozen=True)
class Target:
    """What reads cases.

    Attributes:
        seeds: Sound cases, and some unsound ones, to start from.
        check: Reads a case, in a folder of its own.
        value: A sound value, of which hypothesis makes others; None: bytes alone are tried.
        write: Makes a case of a value.
    """

    seeds: Callable[[], list[bytes]]
    check: Callable[[bytes, Path], bool]
    value: Callable[[], Any] | None = None
    write: Callable[[Any], bytes] = field(default=mutations.as_yaml)


def _refused(error: Exception) -> bool:
    """A refusal is one paragraph, or a list, of a bearable length that can be printed."""
    text = str(error)
    assert text.strip(), "a refusal without a word"
    assert len(text) <= LONGEST_MESSAGE, f"a refusal of {len(text)} characters"
    text.encode(errors="strict")
    return False


def _as_written(read: Any, written: Any, where: str = "") -> None:
    """Assert that a model holds what was in the file.

    ``"1e-4"`` may be a number, and a SHA-256 may be in capital letters.
    """
    if isinstance(read, dict):
        assert isinstance(written, dict), where
        for key, value in written.items():
            assert key in read, f"{where}.{key} was lost"
            _as_written(read[key], value, f"{where}.{key}")
    elif isinstance(read, list):
        written = written if isinstance(written, list) else [written]  # annotate.recorded
        assert len(read) == len(written), where
        for place, pair in enumerate(zip(read, written, strict=True)):
            _as_written(*pair, f"{where}.{place}")
    elif isinstance(read, bool) or isinstance(written, bool):
        assert read is written or (read in (0, 1) and isinstance(read, bool)), where
    elif isinstance(read, int | float) and isinstance(written, str):
        assert float(written) == read, where
    elif isinstance(written, str) and re.fullmatch(r"[0-9a-fA-F]{64}", written):
        assert read == written.lower(), where
    else:
        assert read == written, f"{where}: {written!r} became {read!r}"


def _again(
    model: BaseModel, values: Any, read: Callable[[Path], BaseModel], path: Path
) -> bool:
    dumped = model.model_dump(mode="json")
    _as_written(dumped, values)
    path.write_bytes(mutations.as_yaml(dumped))
    assert read(path) == model
    return True


def _yaml_target(read: Callable[[Path], Any]) -> Callable[[bytes, Path], bool]:
    def check(case: bytes, folder: Path) -> bool:
        path = folder / "case.yaml"
        path.write_bytes(case)
        try:
            model = read(path)
        except AtelierError as error:
            return _refused(error)
        return _again(model, yaml_values(case.decode()), read, path)

    return check


def _switch(case: bytes, folder: Path) -> bool:
    path = folder / "profile.yaml"
    path.write_bytes(case)
    try:
        name = read_switch(path)
    except AtelierError as error:
        return _refused(error)
    assert (folder / f"{name}.yaml").resolve().parent == folder.resolve()
    assert name == yaml_values(case.decode())["profile"]
    return True


def _criteria(case: bytes, folder: Path) -> bool:
    path = folder / "case.yaml"
    path.write_bytes(case)
    try:
        tree = trees.parse(path)
    except AtelierError as error:
        return _refused(error)
    leaves = tree.leaves()
    former = [alias for leaf in leaves.values() for alias in leaf.aliases]
    assert len({*former, *leaves}) == len(former) + len(leaves), "an alias is of two"
    for leaf in leaves.values():
        assert all(tree.criterion(alias) is leaf for alias in leaf.aliases)
    shown = criteria_page.html(tree)
    assert shown.count("<script") == 1, "words of the tree became a script"
    ElementTree.fromstring(label_studio.interface(tree))
    list(wording.objections(tree))
    return _again(tree, yaml_values(case.decode()), trees.parse, path)


def _rows(kind: type[BaseModel]) -> Callable[[bytes, Path], bool]:
    def check(case: bytes, folder: Path) -> bool:
        path = folder / "rows.jsonl"
        path.write_bytes(case)
        try:
            rows = annotations.read(path, kind)
        except AtelierError as error:
            return _refused(error)
        for row, line in zip(rows, case.decode().splitlines(), strict=False):
            if len(rows) == len(case.decode().splitlines()):
                _as_written(row.model_dump(), json.loads(line))
        path.write_text(annotations.lines(rows), encoding="utf-8")
        assert annotations.read(path, kind) == rows
        return True

    return check


@functools.cache
def _starter() -> trees.Tree:
    return trees.parse(PARAMS / "criteria" / "starter.yaml")


def _recorded(case: bytes, folder: Path) -> bool:
    path = folder / "recorded.jsonl"
    path.write_bytes(case)
    tree = _starter()
    try:
        recorded = Recorded.read([path], tree, Limits(1, LARGEST_PIXELS, None))
    except AtelierError as error:
        return _refused(error)
    leaves = tree.leaves()
    for said in recorded.said.values():
        assert said
        assert all(one.criterion in leaves for one in said)
        assert len({(one.criterion, one.annotator) for one in said}) == len(said)
    return True


def _judgements(case: bytes, folder: Path, name: str) -> bool:
    path = folder / name
    path.write_bytes(case)
    tree = _starter()
    known = {"a.png": _HASH, _HASH: _HASH}
    try:
        if name.endswith(".json"):
            found = label_studio.read(path, tree, known).judgements
        else:
            found = human.read_csv(path, tree, known, "ann").judgements
    except AtelierError as error:
        return _refused(error)
    kept = folder / "kept.jsonl"
    kept.write_text(annotations.lines(found), encoding="utf-8")
    assert annotations.read(kept, Judgement) == found
    assert all(one.criterion in tree.leaves() and one.image == _HASH for one in found)
    return True


def _captions(case: bytes, folder: Path, name: str) -> bool:
    data = folder / "data"
    data.mkdir(exist_ok=True)
    for file in ("a.png", "b é.png"):
        (data / file).touch()
    (data / name).write_bytes(case)
    try:
        found = dataset.find(data, name)
    except AtelierError as error:
        return _refused(error)
    finally:
        (data / name).unlink()
    assert {entry.file for entry in found.entries} <= {"a.png", "b é.png"}
    rows = [
        annotations.Image(
            image=_HASH,
            file=one.file,
            width=1,
            height=1,
            caption=one.caption,
            artwork=one.artwork,
        )
        for one in found.entries
    ]
    kept = folder / "kept.jsonl"
    kept.write_text(annotations.lines([*rows, *found.quarantined]), encoding="utf-8")
    kept.write_text(annotations.lines(rows), encoding="utf-8")
    assert annotations.read(kept, annotations.Image) == rows
    return True


def _caption_file(case: bytes, folder: Path) -> bool:
    """Read a text beside a picture; it is a caption, or sets its picture aside."""
    data = folder / "data"
    data.mkdir(exist_ok=True)
    for file in ("a.png", "b.png", "b.txt"):
        (data / file).write_text("a boat")
    (data / "a.txt").write_bytes(case)
    found = dataset.find(data, None)
    captions = {entry.file: entry.caption for entry in found.entries}
    reasons = {one.file for one in found.quarantined}
    assert captions["b.png"] == "a boat"
    assert ("a.png" in captions) != ("a.png" in reasons)
    kept = folder / "kept.jsonl"
    kept.write_text(annotations.lines(found.quarantined), encoding="utf-8")
    return "a.png" in captions


def _pairs(case: bytes, folder: Path) -> bool:
    data = folder / "data"
    data.mkdir(exist_ok=True)
    records = []
    for file in ("a.png", "b.png"):
        (data / file).touch()
        records.append(Record(image=_HASH, file=file, caption="", positive=[], negative=[]))
    table = folder / "pairs.csv"
    table.write_bytes(case)
    try:
        found = pairs.from_table(table, records, data)
    except AtelierError as error:
        return _refused(error)
    assert found.pairs
    assert all({one.win, one.lose} == {0, 1} and one.caption for one in found.pairs)
    return True


@functools.cache
def _prompts() -> list[prompts.Prompt[Any]]:
    tree = _starter()
    names = list(prompts.groups(tree))
    return [
        prompts.activation(tree, names),
        prompts.closer(tree, names),
        prompts.judging(tree, list(tree.leaves())),
        prompts.describing(tree, "<script>a boat</script>"),
    ]


def _answer(case: bytes, folder: Path) -> bool:
    """Read an answer to each kind of prompt; what is taken must be what JSON holds."""
    del folder
    taken = False
    text = case.decode(errors="replace")
    for prompt in _prompts():
        try:
            said = prompts.read(prompt, text)
        except prompts.UnfitError as error:
            _refused(error)
            # It goes to the model again, in a request's body.
            json.dumps(str(error), ensure_ascii=False).encode()
            continue
        taken = True
        json.dumps(said, default=str, ensure_ascii=False).encode()
        if prompt.topic == "judging":
            assert set(said) == set(_starter().leaves())
    return taken


def _body(case: bytes, folder: Path) -> bool:
    """Read what a server sends in the place of a chat completion."""
    del folder

    server = _server()
    server._send = lambda body: _said(case)  # type: ignore[method-assign, assignment]
    try:
        reply = asyncio.run(server.complete(server.request([], {})))
    except (AtelierError, client.FailedError) as error:
        return _refused(error)
    if reply.unfit is None:
        with contextlib.suppress(prompts.UnfitError):
            prompts.read(_prompts()[0], reply.text)
    return True


def _environment(case: bytes, folder: Path) -> bool:
    """Read what others set: a proxy, certificates, a key, a header."""
    del folder
    text = case.decode(errors="replace").replace("\0", "")
    wait = client._retry_after({"retry-after": text})
    assert wait is None or 0 <= wait < float("inf")
    taken = True
    for variable in ("HTTP_PROXY", "all_proxy", "SSL_CERT_FILE", "HF_ENDPOINT", "FAULTS_KEY"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(variable, text)
            try:
                connections.refuse_environment()
                connections.refuse_address("HF_ENDPOINT")
                client._key("FAULTS_KEY" if variable == "FAULTS_KEY" else None)
            except AtelierError as error:
                taken = _refused(error)
    return taken


def _settings_of_others() -> list[bytes]:
    return [
        b"http://127.0.0.1:9", b"socks5://me:secret@h:1", b"http://[::1", b"h:port", b"/no",
        b"2.5", b"Wed, 21 Oct 2015 07:28:00 GMT", b"Sat, 01 Jan 10000 00:00:00 GMT", b"sk-1",
    ]  # fmt: skip


@functools.cache
def _server() -> client.Client:
    return client.Client(_vlm())


async def _said(case: bytes) -> str:
    return case.decode(errors="replace")


@functools.cache
def _vlm() -> VLMParams:
    values = yaml.safe_load((PARAMS / "paintings.yaml").read_text())["annotate"]["vlm"] or {}
    sound = {
        "base_url": "http://127.0.0.1:9/v1", "model": "m", "key_variable": None,
        "answers": "plain", "activation": "at_once", "concurrency": 1, "timeout_seconds": 5.0,
        "tries": 1,
        "longest_wait_seconds": 1.0, "pixels": 32, "criteria_per_call": 9, "votes": 1,
        "temperature": 0.0, "max_tokens": 99, "max_tokens_name": "max_tokens",
        "write_captions": True, "image_tokens": 1, "prompt_price": 0.0, "completion_price": 0.0,
        "cost_cap": None,
    }  # fmt: skip
    return VLMParams.model_validate({**values, **sound})


@functools.cache
def _network() -> Any:
    """A small FLUX without weights, for which LoRAs are read."""
    import torch
    from diffusers import FluxPipeline, FluxTransformer2DModel

    from atelier.models.files.lora_files import Target

    with torch.device("meta"):
        network = FluxTransformer2DModel(
            in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=16, pooled_projection_dim=16,
            axes_dims_rope=(4, 6, 6),
        )  # fmt: skip
    return Target("transformer", network, FluxPipeline)


def _lora(case: bytes, folder: Path) -> bool:
    """Read a LoRA; what is taken is finite, and of layers that there are."""
    from atelier.models.files import lora_files

    path = folder / "lora.safetensors"
    path.write_bytes(case)
    try:
        found = lora_files.read(path, _network())
    except AtelierError as error:
        return _refused(error)
    for name, (a, b, scale) in found.layers().items():
        module = _network().network.get_submodule(name)
        assert (b @ a).shape == module.weight.shape
        assert (scale * (b @ a)).isfinite().all()
    return True


def _loras() -> list[bytes]:
    """A layer in the layouts of several trainers."""
    import safetensors.torch
    import torch

    a, b = torch.ones(2, 32), torch.ones(32, 2)
    to_q, flat = "transformer_blocks.0.attn.to_q", "lora_unet_double_blocks_0_img_attn_proj"
    layouts = [
        {f"{prefix}{to_q}.lora_A.weight": a, f"{prefix}{to_q}.lora_B.weight": b}
        for prefix in ("transformer.", "diffusion_model.", "base_model.model.", "")
    ]
    layouts.append(
        {f"{flat}.lora_down.weight": a, f"{flat}.lora_up.weight": b, f"{flat}.alpha": a[0, 0]}
    )
    config = {f"transformer.{key}": value for key, value in {"r": 2, "lora_alpha": 4}.items()}
    headers = [{}, {"lora_adapter_metadata": json.dumps(config)}]
    return [
        safetensors.torch.save({key: one.clone() for key, one in layout.items()}, header)
        for layout in layouts
        for header in headers
    ]


def _peft_config(case: bytes, folder: Path) -> bool:
    """Read the config beside a LoRA of peft; what is taken gives finite layers."""
    import safetensors.torch
    import torch

    from atelier.models.files import lora_files

    to_q = "base_model.model.transformer_blocks.0.attn.to_q"
    halves = {f"{to_q}.lora_A.weight": torch.ones(2, 32)}
    halves[f"{to_q}.lora_B.weight"] = torch.ones(32, 2)
    path = folder / "adapter_model.safetensors"
    path.write_bytes(safetensors.torch.save(halves))
    (folder / "adapter_config.json").write_bytes(case)
    try:
        found = lora_files.read(path, _network())
    except AtelierError as error:
        return _refused(error)
    assert all((scale * (b @ a)).isfinite().all() for a, b, scale in found.layers().values())
    return True


def _unpack(case: bytes, folder: Path, name: str) -> bool:
    """Unpack a data set; each row becomes a picture's file inside the folder, or is counted."""
    source, out = folder / name, folder / "out"
    source.write_bytes(case)
    shutil.rmtree(out, ignore_errors=True)
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(io.StringIO()):
            data_unpack.run(source, out, None, None)
    except AtelierError as error:
        assert not out.exists()
        return _refused(error)
    table = (out / data_unpack.TABLE).read_text(encoding="utf-8")
    rows = [json.loads(line) for line in table.splitlines()]
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert {row["file_name"] for row in rows} == files - {data_unpack.TABLE}
    assert f"holds {len(rows)} pictures" in said.getvalue()
    assert {path.name for path in folder.iterdir()} <= {name, "out", "case"}
    return True


def _packed(kind: str) -> Callable[[], list[bytes]]:
    """Data sets of a few rows as Hugging Face packs them."""

    def seeds() -> list[bytes]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        content = io.BytesIO()
        Image.effect_noise((8, 8), 60).save(content, "PNG")
        png = content.getvalue()
        images_ = [{"bytes": png, "path": f"{n}.png"} for n in range(3)]
        images_ += [{"bytes": png, "path": "../0.png"}, {"bytes": None, "path": None}]
        texts = ["a sea", "a b\u00e9ach", None, "", "a sea"]
        tables = [
            pa.table({"image": images_, "text": texts}),
            pa.table({"img": [png, None], "caption": [["a", "b"], []], "artwork": [1, None]}),
        ]
        made = []
        for table in tables:
            stream = io.BytesIO()
            if kind == "parquet":
                pq.write_table(table, stream)
            else:
                with pa.ipc.new_stream(stream, table.schema) as writer:
                    writer.write_table(table)
            made.append(stream.getvalue())
        return made

    return seeds


def _picture(case: bytes, folder: Path) -> bool:
    """Read a picture by a suffix that need not be its own."""
    path = folder / ("case.png", "case.jpg", "case", "case.tif")[len(case) % 4]
    path.write_bytes(case)
    try:
        height, width = images.size_of(path, LARGEST_PIXELS)
        assert 0 < height * width <= LARGEST_PIXELS
    except ImageError as error:
        _refused(error)
    try:
        picture = images.read(path, LARGEST_PIXELS)
    except ImageError as error:
        return _refused(error)
    assert picture.mode == "RGB"
    assert 0 < picture.width * picture.height <= LARGEST_PIXELS
    assert images.square(picture, 32).shape == (32, 32, 3)
    assert images.png(images.square(picture, 32)).startswith(b"\x89PNG")
    return True


def _files(*patterns: str) -> Callable[[], list[bytes]]:
    return lambda: [
        file.read_bytes() for pattern in patterns for file in sorted(PARAMS.glob(pattern))
    ]


def _small_criteria() -> list[bytes]:
    nested = """
domain: toy
version: "1"
literature: {book: "A book, 1900"}
vocabulary: {medium: [oil, ink], genre: [portrait]}
criteria:
  light: {name: Light, about: How it falls., branches: {
    clear: &c {positive: clear light, negative: dull light, positive_means: Bright., measure:
      {name: brightness, positive_at: 0.6, negative_at: 0.3}, negative_means: Grey.,
      applies: [oil], sources: [book], aliases: [light/bright, bright]},
    soft: {<<: *c, positive: soft light, negative: hard light, aliases: [light/mild]}}}
"""
    return [TOY_CRITERIA.encode(), nested.encode()]


def _judged(count: int = 3) -> list[dict[str, Any]]:
    leaves = list(_starter().leaves())
    poles = ("positive", "negative")
    return [
        {
            "image": f"{number:064x}",
            "criterion": leaves[number % len(leaves)],
            "pole": poles[number % 2],
            "annotator": "ann",
            "confidence": 0.5,
        }
        for number in range(count)
    ]


def _record() -> list[dict[str, Any]]:
    first, second, *_ = _starter().leaves()
    return [
        {
            "image": _HASH, "file": "a.png", "caption": "a sea", "positive": [first],
            "negative": [second], "confidence": {first: 0.7},
        }
    ]  # fmt: skip


def _studio() -> list[dict[str, Any]]:
    leaf = next(iter(_starter().leaves())).replace("/", ".")
    result = {"type": "choices", "from_name": leaf, "value": {"choices": ["positive"]}}
    annotation = {
        "completed_by": {"email": "a@b.c"},
        "was_cancelled": False,
        "result": [result],
    }
    data = {"image": "/a.png", "file": "a.png", "sha256": _HASH}
    return [{"id": 1, "data": data, "annotations": [annotation]}]


def _table_seeds(*rows: Sequence[str]) -> Callable[[], list[bytes]]:
    text = "\n".join(",".join(row) for row in rows) + "\n"
    return lambda: [text.encode(), ("\ufeff" + text.replace("\n", "\r\n")).encode()]


def _labels_csv() -> list[bytes]:
    leaf = next(iter(_starter().leaves()))
    rows = f"file,criterion,pole,annotator,confidence\na.png,{leaf},positive,ann,0.5\n"
    return [rows.encode(), f"image,criterion,pole\n{_HASH},{leaf},negative\n".encode()]


def _sound_answers() -> list[Any]:
    return [fill(prompt.schema, random.Random(0)) for prompt in _prompts()]


def _answers() -> list[bytes]:
    sound = [json.dumps(one) for one in _sound_answers()]
    faults = ("cut off", "torn", "prose", "missing", "wrong label")
    wrong = [
        json.loads(spoiled(fault, one))["choices"][0]["message"]["content"]
        for fault in faults
        for one in sound
    ]
    fenced = [f"```json\n{one}\n```" for one in sound] + ["```" + "\n" * 4000 + "x"]
    thought = [f"<think>{{}} or {one}?</think>\nHere: {one} {{fine}}" for one in sound]
    return [one.encode() for one in [*sound, *fenced, *wrong, *thought, f"<think>{sound[0]}"]]


def _bodies() -> list[bytes]:
    return [completion(answer.decode()) for answer in _answers()[:4]] + [
        spoiled("refusal", "{}"),
        completion(None),
        b"",
        b"<html>oh</html>",
        b'{"choices": []}',
        *map(mutations.as_json, _odd_completions()),
    ]


def _odd_completions() -> list[Any]:
    """Sound answers beside fields that are not as they should be."""
    plain = json.loads(completion(json.dumps(_sound_answers()[0])))
    message = plain["choices"][0]["message"]
    parts = [{"type": "thinking", "thinking": []}, {"type": "text", "text": message["content"]}]
    changes = [
        {"usage": {}, "model": None},
        {"usage": {"prompt_tokens": -1, "completion_tokens": "7"}, "model": []},
        {"choices": [{"message": message | {"content": parts}, "finish_reason": 7}]},
        {"choices": [{"message": {"content": None, "reasoning_content": "calm"}}]},
    ]
    return [plain | change for change in changes]


def pictures() -> list[bytes]:
    """Return a picture in each format, mode and variant that Pillow can write, small."""
    Image.init()
    noise = Image.effect_noise((40, 30), 60)
    colour = Image.merge("RGB", (noise, noise.rotate(90).resize((40, 30)), noise))
    modes = {
        mode: colour.convert(mode)
        for mode in (
            "RGB",
            "L",
            "1",
            "P",
            "RGBA",
            "LA",
            "CMYK",
            "YCbCr",
            "LAB",
            "HSV",
            "I",
            "F",
        )
        if mode not in {"LAB", "LA"}
    }
    modes |= {
        "LA": colour.convert("RGBA").convert("LA"),
        "I;16": noise.convert("I").convert("I;16"),
    }
    modes |= {
        "1xN": colour.resize((1, 500)),
        "Nx1": colour.resize((500, 1)),
        "dot": colour.resize((1, 1)),
    }
    exif = Image.Exif()
    exif[0x0112] = 6
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    made = []
    for kind in sorted(Image.SAVE):
        for name, picture in modes.items():
            for more in ({}, {"exif": exif.tobytes()}, {"icc_profile": srgb}):
                if more and name not in {"RGB", "CMYK", "L"}:
                    continue
                made += _saved(picture, kind, more)
    for kind in ("GIF", "PNG", "WEBP", "TIFF", "AVIF"):
        frames = [colour.rotate(angle) for angle in (0, 90, 180)]
        made += _saved(frames[0], kind, {"save_all": True, "append_images": frames[1:]})
    large = Image.new("RGBA", (1000, 1000), (9, 99, 199, 99))  # as many pixels as are let in
    for kind in ("PNG", "WEBP", "JPEG2000", "AVIF"):
        made += _saved(large, kind, {})
    made += _saved(large, "TIFF", {"compression": "tiff_deflate"})
    made += _saved(large.convert("CMYK"), "JPEG", {"icc_profile": srgb})
    palette = colour.quantize(16)
    made += _saved(palette, "PNG", {"transparency": 3})
    for compression in ("tiff_lzw", "tiff_deflate", "jpeg", "packbits", "group4"):
        made += _saved(
            modes["1" if compression == "group4" else "RGB"],
            "TIFF",
            {"compression": compression},
        )
    made += _saved(colour, "JPEG", {"progressive": True})
    made.append(b"")
    made += [_claiming(65535, 65535), _claiming(2**31 - 1, 2**31 - 1), _claiming(0, 0)]
    made.append(_claiming(30_000, 30_000, whole=True))  # 900 megapixels in 110 kilobytes
    return made


def _saved(picture: Image.Image, kind: str, more: dict[str, Any]) -> list[bytes]:
    content = io.BytesIO()
    try:
        picture.save(content, kind, **more)
    except Exception:
        return []  # this format has no such mode
    return [content.getvalue()]


def _claiming(width: int, height: int, whole: bool = False) -> bytes:
    """A PNG of one bit a pixel whose header promises what follows only if it is ``whole``."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = height if whole else 0
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(bytes(1 + (width + 7) // 8)) for _ in range(rows))
    chunks = (head, b"IDAT" + data + packer.flush(), b"IEND")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in chunks
    )


TARGETS = {
    "profile": Target(
        lambda: [PROFILE.encode()], _yaml_target(read_profile), lambda: yaml.safe_load(PROFILE)
    ),
    "shipped profiles": Target(
        _files(
            "starter.yaml",
            "paintings.yaml",
            "flux.yaml",
            "sd3.yaml",
            "sdxl.yaml",
            "chroma.yaml",
            "z-image.yaml",
            "flux2-klein.yaml",
            "qwen-image.yaml",
        ),
        _yaml_target(read_profile),
    ),
    "profile.yaml": Target(
        lambda: [b"profile: starter\n"], _switch, lambda: {"profile": "starter"}
    ),
    "study.yaml": Target(
        _files("study.yaml"),
        _yaml_target(read_study),
        lambda: yaml.safe_load((PARAMS / "study.yaml").read_text()),
    ),
    "criteria": Target(
        lambda: [*_small_criteria(), (PARAMS / "criteria" / "starter.yaml").read_bytes()],
        _criteria,
        lambda: yaml.safe_load(_small_criteria()[1]),
    ),
    "judgements": Target(
        lambda: [mutations.as_json_lines(_judged())],
        _rows(Judgement),
        _judged,
        mutations.as_json_lines,
    ),
    "records": Target(
        lambda: [mutations.as_json_lines(_record())],
        _rows(Record),
        _record,
        mutations.as_json_lines,
    ),
    "recorded labels": Target(
        lambda: [mutations.as_json_lines(_judged())],
        _recorded,
        _judged,
        mutations.as_json_lines,
    ),
    "labels table": Target(_labels_csv, functools.partial(_judgements, name="labels.csv")),
    "Label Studio's export": Target(
        lambda: [mutations.as_json(_studio())],
        functools.partial(_judgements, name="export.json"),
        _studio,
        mutations.as_json,
    ),
    "captions.csv": Target(
        _table_seeds(("file", "caption", "artwork"), ("a.png", '"a sea, a boat"', "one")),
        functools.partial(_captions, name="captions.csv"),
    ),
    "captions.jsonl": Target(
        lambda: [b'{"file": "a.png", "caption": "a sea", "artwork": "one"}\n'],
        functools.partial(_captions, name="captions.jsonl"),
        lambda: [{"file": "a.png", "caption": "a sea", "artwork": "one"}],
        mutations.as_json_lines,
    ),
    "metadata.jsonl": Target(
        lambda: [b'{"file_name": "a.png", "text": "a sea"}\n'],
        functools.partial(_captions, name="metadata.jsonl"),
        lambda: [{"file_name": "a.png", "text": "a sea"}],
        mutations.as_json_lines,
    ),
    "caption files": Target(
        lambda: ["a sea, a b\u00e9ach\n".encode(), b"a sea\na lake"], _caption_file
    ),
    "pairs table": Target(
        _table_seeds(
            ("file_win", "file_lose", "caption"), ("a.png", "b.png", '"a sea, a boat"')
        ),
        _pairs,
    ),
    "model's answers": Target(
        _answers, _answer, lambda: _sound_answers()[2], mutations.as_json
    ),
    "server's bodies": Target(
        _bodies, _body, lambda: json.loads(_bodies()[0]), mutations.as_json
    ),
    "LoRAs of other trainers": Target(_loras, _lora),
    "configs of peft": Target(
        lambda: [mutations.as_json({"r": 2, "lora_alpha": 4, "peft_type": "LORA"})],
        _peft_config,
        lambda: {"r": 2, "lora_alpha": 4, "use_rslora": False, "alpha_pattern": {"to_q": 3}},
        mutations.as_json,
    ),
    "parquet data sets": Target(
        _packed("parquet"), functools.partial(_unpack, name="train.parquet")
    ),
    "Arrow data sets": Target(_packed("arrow"), functools.partial(_unpack, name="train.arrow")),
    "environment and headers": Target(_settings_of_others, _environment),
    "pictures": Target(pictures, _picture),
}
