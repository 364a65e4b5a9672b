"""The agent against ``transformers serve``, an OpenAI-compatible server that is not ours.

It serves two tiny LLaVAs: one of random weights, whose rubbish is to be refused, and one whose
weights are set to say one sentence, which is to be taken.
"""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
import yaml

from atelier import images
from atelier.annotators.vlm.agent import Agent, criteria_name
from atelier.annotators.vlm.response_cache import Response, ResponseCache
from atelier.annotators.vlm.walk import VLMRequest
from atelier.config.annotation import VLMParams
from atelier.criteria.tree import Tree
from atelier.errors import AnnotationError
from atelier.reporting import silent

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
NOTHING_MATTERS = '{"kind": {}, "matters": []}'
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{% for part in m.content %}"
    "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
CRITERIA = """
domain: toy
version: "1"
literature: {}
criteria:
  edges: {positive: calm edges, negative: harsh edges, positive_means: Soft.,
          negative_means: Hard., applies: any, sources: []}
"""
# Without torchvision, whose builds cannot always read pictures, pillow reads them.
SERVE = (
    "import sys; sys.modules['torchvision'] = None; "
    "from transformers.cli.transformers import main; main()"
)


def save_model(folder, says=None):
    """A LLaVA that says nothing sensible, or always ``says``, in transformers' layout."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import (
        CLIPVisionConfig,
        GenerationConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    bytewise = Tokenizer(models.BPE({letter: n for n, letter in enumerate(letters)}, []))
    bytewise.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytewise.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bytewise, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    roles = ["<image>", "<system>", "<user>", "<assistant>"]
    tokenizer.add_special_tokens({"additional_special_tokens": roles})
    tokenizer.add_tokens([says or "unsaid"])
    number = tokenizer.convert_tokens_to_ids
    ends = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    small = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=CLIPVisionConfig(
                hidden_size=32, image_size=32, patch_size=16, **small
            ),
            text_config=LlamaConfig(
                vocab_size=len(tokenizer),
                hidden_size=64,
                max_position_embeddings=16384,
                **small,
                **ends,
            ),
            image_token_index=number("<image>"),
            vision_feature_layer=-1,
            tie_word_embeddings=False,
        )
    ).eval()
    if says is not None:
        with torch.no_grad():
            for layer in model.model.language_model.layers:
                layer.self_attn.o_proj.weight.zero_()
                layer.mlp.down_proj.weight.zero_()
            words, head = model.get_input_embeddings().weight, model.lm_head.weight
            head.zero_()
            head[number(says)] = words[number("<assistant>")] * 1000
            head[tokenizer.eos_token_id] = words[number(says)] * 1000
    model.generation_config = GenerationConfig(do_sample=False, **ends)
    model.save_pretrained(folder)
    LlavaProcessor(
        CLIPImageProcessorPil(
            size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
        ),
        tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        chat_template=TEMPLATE,
        image_token="<image>",
        num_additional_image_tokens=1,
    ).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Where transformers serves any model that a request names."""
    pytest.importorskip("transformers.cli.serve", reason="transformers has no server here")
    from transformers.utils.import_utils import is_serve_available

    if not is_serve_available():
        pytest.skip("transformers[serving] is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("serve") / "log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE, "serve", "--host", "127.0.0.1", "--port", str(port)],
            stdout=out,
            stderr=out,
            env=os.environ | {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""},
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process, log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(30)


def wait_for(address, process, log):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(600):
        assert process.poll() is None, log.read_text()
        try:
            opener.open(address, timeout=5).close()
        except (urllib.error.URLError, TimeoutError):
            time.sleep(0.5)
        else:
            return
    raise AssertionError(log.read_text())


@pytest.fixture
def open_agent(tmp_path, server):
    """A function that opens an agent that asks ``model`` at the server."""

    agents = []

    def open_agent(model, **changes):
        values = {
            "base_url": server,
            "model": model,
            "key_variable": None,
            "answers": "plain",
            "activation": "at_once",
            "concurrency": 2,
            "timeout_seconds": 300.0,
            "tries": 1,
            "longest_wait_seconds": 1.0,
            "pixels": 32,
            "criteria_per_call": 30,
            "votes": 1,
            "temperature": 0.0,
            "max_tokens": 24,
            "max_tokens_name": "max_tokens",
            "write_captions": False,
            "image_tokens": 4,
            "prompt_price": 1.0,
            "completion_price": 10.0,
            "cost_cap": None,
        }
        agents.append(make_agent(tmp_path, values | changes))
        return agents[-1]

    yield open_agent
    for agent in agents:
        agent.cache.__exit__(None, None, None)


def make_agent(tmp_path, values):
    tree = Tree.model_validate(yaml.safe_load(CRITERIA))
    cache = ResponseCache(tmp_path / "answers.jsonl", criteria_name(tree))
    return Agent(tree, VLMParams.model_validate(values), cache, largest_pixels=10**6)


def look(paint, folder, count):
    files = [paint(folder / f"{seed}.png", seed) for seed in range(count)]
    return [VLMRequest(images.sha256(file), file, None) for file in files]


def answers(agent):
    lines = agent.cache.path.read_text().splitlines()
    return [Response.model_validate_json(line) for line in lines]


@pytest.mark.parametrize("changes", [{}, {"max_tokens_name": "max_completion_tokens"}])
def test_an_answer_that_fits_is_taken_and_its_tokens_are_counted(
    open_agent, paint, tmp_path, changes
):
    model = save_model(tmp_path / "fixed", says=NOTHING_MATTERS)
    agent = open_agent(model, **changes)
    requests = look(paint, tmp_path, 3)

    assert agent.consult(requests, silent) == {}

    assert [agent.recall(one).criteria for one in requests] == [0, 0, 0]
    taken = answers(agent)
    assert [one.text for one in taken] == [NOTHING_MATTERS] * 3
    assert {one.unfit for one in taken} == {None}
    words = agent._prices.of_prompts([agent.walker.activation]).prompt_tokens
    assert all(one.prompt_tokens > words for one in taken)  # it counts bytes, we guess words
    assert all(1 <= one.completion_tokens <= 2 for one in taken)


@pytest.mark.parametrize("answers_by", ["plain", "json_schema"])
def test_rubbish_is_refused_and_set_aside_with_what_was_said(
    open_agent, paint, tmp_path, answers_by
):
    model = save_model(tmp_path / "random")
    agent = open_agent(model, answers=answers_by)
    requests = look(paint, tmp_path, 3)

    failed = agent.consult(requests, silent)

    assert failed.keys() == {one.image for one in requests}
    assert all("no usable answer to 'activation'" in reason for reason in failed.values())
    said = answers(agent)
    assert len(said) >= 3
    assert all(one.unfit and one.completion_tokens for one in said)


def test_a_model_that_is_not_there_is_no_answer(open_agent, paint, tmp_path):
    agent = open_agent("nobody/knows-it")

    failed = agent.consult(look(paint, tmp_path, 1), silent)

    assert "the server answered" in next(iter(failed.values()))


def test_a_server_that_cannot_be_reached_is_named(open_agent, paint, tmp_path):
    agent = open_agent("any", base_url="http://127.0.0.1:9/v1")

    with pytest.raises(AnnotationError, match=r"127.0.0.1:9/v1; .*connection failed"):
        agent.consult(look(paint, tmp_path, 10), silent)
