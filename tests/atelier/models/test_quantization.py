import importlib.util

import pytest
import torch

from atelier.errors import ParamsError
from atelier.models import adapters, quantization
from atelier.models.loading import load
from tests.atelier.conftest import NETWORKS

torchao = pytest.mark.skipif(
    importlib.util.find_spec("torchao") is None, reason="torchao is not installed"
)


def predict(painter):
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, *painter.latent_shape(32), generator=generator)
    return painter.predict(
        latents, torch.tensor([0.3, 0.6]), painter.encode_texts(["a sea", "a sea"])
    )


@torchao
@pytest.mark.parametrize("how", ["int8", "fp8"])
@pytest.mark.filterwarnings("ignore")  # torchao's own, of kernels for devices that are not here
def test_a_base_in_8_bits_predicts_nearly_the_same_and_carries_a_lora(
    painter, family, lora, model_params, tmp_path, how
):
    painter.pipeline().save_pretrained(tmp_path)
    params = model_params.model_copy(
        update={"family": NETWORKS[family].kind, "source": str(tmp_path), "quantise": how}
    )

    small = load(params)
    adapters.add(small.network, "theta", lora, seed=0)

    kinds = {type(p).__name__ + type(p.data).__name__ for p in small.network.parameters()}
    assert any({"int8": "Int8", "fp8": "Float8"}[how] in kind for kind in kinds)
    whole = predict(painter)
    with adapters.use(small.network, None):
        assert 0 < (predict(small) - whole).norm() < 0.05 * whole.norm()
    with adapters.learning(small.network, "theta"):
        predict(small).square().mean().backward()
    gradients = [p.grad for p in adapters.weights(small.network, "theta").values()]
    assert sum(gradient.abs().sum() for gradient in gradients if gradient is not None) > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_4_bits_ask_for_a_device():
    with pytest.raises(ParamsError, match=r"model.quantise 'nf4' needs a CUDA device"):
        quantization.config("nf4", torch.float32)


def test_an_absent_package_is_named(monkeypatch):
    monkeypatch.setattr(quantization.importlib.util, "find_spec", lambda name: None)

    with pytest.raises(ParamsError, match=r"needs the package torchao: `pip install"):
        quantization.config("int8", torch.float32)
