import pytest
import torch

from atelier.errors import ParamsError
from atelier.models import attention
from tests.atelier.conftest import tiny


def predicted(painter):
    source = torch.Generator().manual_seed(0)
    noisy = torch.randn(2, *painter.latent_shape(32), generator=source)
    condition = painter.encode_texts(["a sea", "a hill"])
    with torch.no_grad():
        return painter.predict(noisy, torch.tensor([0.3, 0.7]), condition)


@pytest.mark.parametrize("family", ["flux", "flux2_klein"])
def test_another_kernel_predicts_the_same_but_for_roundings(family):
    usual, other = tiny(family), tiny(family)

    attention.attend_by(other.network, "math")

    torch.testing.assert_close(predicted(other), predicted(usual), atol=1e-4, rtol=1e-4)


def test_a_network_that_asks_torch_alone_is_refused():
    with pytest.raises(ParamsError, match="UNet2DConditionModel lets torch choose"):
        attention.attend_by(tiny("sdxl-epsilon").network, "math")


def test_a_kernel_whose_package_is_not_here_is_refused_by_name():
    with pytest.raises(ParamsError, match=r"model.attention 'flash-3' is not to be had"):
        attention.attend_by(tiny("flux").network, "flash-3")
