"""The layer that is explained when none is named, and the layout of its output."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
from torch import Tensor, nn
from torchvision.models import get_model

import gradcampp
from gradcampp.errors import InputError
from gradcampp.networks.capture import capture
from gradcampp.networks.layers import default_layer
from gradcampp.networks.layout import Layout, find, parse
from tests.networks import Cosine, InPlace, Last, Scored, Transformer

# What an expert names, with the size of the input and the maps there. Sources: Lerma & Lucas (2022) for VGG; the last
# convolutional maps before the pooled classifier (Selvaraju et al. 2017) for the others; for class-token transformers the
# normalisation before the last attention, as in the examples of pytorch-grad-cam for ViT and DeiT.
TORCHVISION = [
    ("vgg16", "features.29", 64, (512, 4, 4), "Keras block5_conv3 with its ReLU, the paper's"),
    ("alexnet", "features.11", 96, (256, 5, 5), "the last ReLU; features.12 pools"),
    ("squeezenet1_0", "features.12", 64, (512, 3, 3), "the last fire module; classifier.1 makes a map for each class"),
    ("resnet18", "layer4.1", 64, (512, 2, 2), "the last residual block, behind the addition and its ReLU"),
    ("resnext50_32x4d", "layer4.2", 64, (2048, 2, 2), "the same"),
    ("densenet121", "features.norm5", 64, (1024, 2, 2), "the last normalisation; its ReLU is a function in the head"),
    ("mobilenet_v2", "features.18", 64, (1280, 2, 2), "the last 1 x 1 convolution with its activation"),
    ("mobilenet_v3_small", "features.12", 64, (576, 2, 2), "the same"),
    ("mnasnet0_5", "layers.16", 64, (1280, 2, 2), "the same; torchvision has no container around it"),
    ("efficientnet_b0", "features.8", 64, (1280, 2, 2), "the same"),
    ("regnet_y_400mf", "trunk_output.block4", 64, (440, 2, 2), "the last stage"),
    ("shufflenet_v2_x0_5", "conv5.2", 64, (1024, 2, 2), "the ReLU of the last convolution"),
    ("googlenet", "inception5b", 64, (1024, 2, 2), "the last inception module, not one of its branches"),
    ("inception_v3", "Mixed_7c", 107, (2048, 2, 2), "the same; valid convolutions, so that no stride divides the image"),
    ("convnext_tiny", "features.7.2", 64, (768, 2, 2), "the last block"),
    ("swin_t", "permute", 64, (768, 2, 2), "the normalised last maps before the average, with the channels in front"),
    ("swin_v2_t", "permute", 64, (768, 2, 2), "the same"),
    ("maxvit_t", "blocks.3", 224, (512, 7, 7), "the last stage"),
    ("vit_b_16", "encoder.layers.encoder_layer_11.ln_1", 64, (768, 4, 4), "behind the last attention patches are not read"),
]
TIMM = [
    ("resnet18", "layer4.1", 64, (512, 2, 2), "the last residual block"),
    ("swin_tiny_patch4_window7_224", "norm", 224, (768, 7, 7), "channels last: (B, 7, 7, 768)"),
    ("vit_tiny_patch16_224", "blocks.11.norm1", 224, (192, 14, 14), "the norm before the last attention"),
    ("deit_tiny_distilled_patch16_224", "blocks.11.norm1", 224, (192, 14, 14), "two tokens lead"),
    ("mixer_s32_224", "norm", 224, (512, 7, 7), "no class token: an average reads all patches"),
    ("convnext_atto", "stages.3", 64, (320, 2, 2), "the last stage"),
    ("efficientnet_b0", "bn2", 64, (1280, 2, 2), "the normalisation and activation of the last convolution"),
    ("mobilenetv3_small_050", "blocks.5.0", 64, (288, 2, 2), "conv_head comes behind the pooling"),
    ("vit_tiny_r_s16_p8_224", "blocks.11.norm1", 224, (192, 7, 7), "a convolutional stem, whose maps are larger"),
]


def made(package: str, name: str) -> nn.Module:
    torch.manual_seed(0)
    if package == "timm":
        module: nn.Module = timm.create_model(name, pretrained=False)
        return module
    options = {"image_size": 64} if name == "vit_b_16" else {}
    slow = {"init_weights": False} if name in ("googlenet", "inception_v3", "vgg16") else {}
    return get_model(name, weights=None, **options, **slow)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("package", "name", "layer", "size", "shape", "_reason"),
    [pytest.param("torchvision", *row, id=f"torchvision {row[0]}") for row in TORCHVISION]
    + [pytest.param("timm", *row, id=f"timm {row[0]}") for row in TIMM],
)
def test_the_default_layer_is_the_one_that_an_expert_names(
    package: str, name: str, layer: str, size: int, shape: tuple[int, ...], _reason: str
) -> None:
    module = made(package, name)
    images = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1))
    assert default_layer(module, images) == layer
    if name == "vit_b_16":
        nn.init.normal_(module.heads[-1].weight)  # type: ignore[index, union-attr]  # torchvision's head begins at zero
    captured = capture(module, layer, images.expand(8, -1, -1, -1), torch.arange(8))
    assert tuple(captured.activations.shape) == (8, *shape)
    assert captured.gradients["pre"].any() or name == "mixer_s32_224"  # timm's Mixer has a head that begins at zero


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_gradients_at_tokens_are_those_of_the_logits(name: str) -> None:
    module = made("timm", name).double().eval()
    images, labels = torch.randn(2, 3, 224, 224, dtype=torch.float64), torch.tensor([3, 5])
    layer = default_layer(module, images)
    kept: list[Tensor] = []
    with module.get_submodule(layer).register_forward_hook(lambda _m, _i, output: kept.append(output)):
        logits = module(images.requires_grad_())
    (expected,) = torch.autograd.grad(logits.gather(1, labels[:, None]).sum(), kept)
    captured = capture(module, layer, images.detach(), labels)
    for found, whole in ((captured.activations, kept[0].detach()), (captured.gradients["pre"], expected)):
        if name.startswith("vit"):  # token 1 + 14 i + j is the patch in row i and column j
            by_hand = torch.stack([torch.stack([whole[:, 1 + 14 * i + j] for j in range(14)], 2) for i in range(14)], 2)
        else:
            by_hand = torch.stack([whole[..., k] for k in range(768)], 1)
        torch.testing.assert_close(found, by_hand, rtol=1e-10, atol=1e-14)  # float64, the same operations


def test_a_row_of_the_image_is_a_row_of_the_maps() -> None:
    """What stands in one patch is in its unit, in networks whose layers do not mix patches before the layer."""
    torch.manual_seed(0)
    for module, layer in ((Transformer(3), "blocks.0.norm1"), (Transformer(0, linear=True), "blocks.0.norm1"), (Last(), "norm")):
        images = torch.zeros(1, 3, 32, 32)
        changed = images.clone()
        changed[..., 8:16, 24:32] = 1  # the patch in row 1 and column 3 of 8 x 8 pixels
        maps = [capture(module, layer, one, torch.tensor([0])).activations for one in (images, changed)]
        rows, columns = (maps[0] - maps[1]).abs().sum((0, 1)).nonzero().T
        unit = 32 // maps[0].shape[2]
        assert {(int(i) * unit // 8, int(j) * unit // 8) for i, j in zip(rows, columns, strict=True)} == {(1, 3)}


@pytest.mark.parametrize("leading", [0, 1, 2, 5])
@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("size", [(32, 32), (32, 64)])
@pytest.mark.parametrize("width", [12, 16, 32])  # 16 and 32 could be numbers of patches, too
def test_transformers_of_ones_own(leading: int, linear: bool, size: tuple[int, int], width: int) -> None:
    torch.manual_seed(0)
    module, images = Transformer(leading, size, width, linear), torch.zeros(1, 3, *size)
    layer = default_layer(module, images)
    assert layer == ("blocks.1.norm1" if leading else "norm")
    captured = capture(module, layer, images, torch.tensor([0]))
    assert captured.layout == Layout("tokens", leading, (size[0] // 8, size[1] // 8))
    assert captured.gradients["pre"].any()


def test_behind_the_last_attention_of_a_class_token_there_is_nothing_to_explain() -> None:
    module = Transformer()
    for layer in ("blocks.1", "blocks.1.norm2", "norm"):
        with pytest.raises(
            InputError, match=f"layer '{layer}': the scores take nothing from its tokens of the image.*last attention"
        ):
            capture(module, layer, torch.zeros(1, 3, 32, 32), torch.tensor([0]))


def test_channels_last_are_told_from_channels_first_where_one_size_does_not() -> None:
    captured = capture(Last(), "norm", torch.zeros(1, 3, 32, 32), torch.tensor([0]))  # (1, 8, 8, 8)
    assert captured.layout == Layout("channels-last")
    assert capture(Last(), "conv", torch.zeros(1, 3, 32, 32), torch.tensor([0])).layout == Layout("channels-first")
    assert default_layer(Last(), torch.zeros(1, 3, 32, 32)) == "norm"


def at_other_sizes(shape: Callable[[int, int], tuple[int, ...]], size: tuple[int, int], fixed: bool = False) -> Layout | None:
    """What is found for an output of this shape, as a function of height and width."""
    return find(shape(*size), size, lambda: [], lambda other: None if fixed else shape(*other))


def test_two_sizes_tell() -> None:
    first, last = Layout("channels-first"), Layout("channels-last")
    assert at_other_sizes(lambda h, w: (1, 7, h // 32, w // 32), (224, 224)) == first
    assert at_other_sizes(lambda h, w: (1, h // 32, w // 32, 7), (224, 224)) == last
    assert at_other_sizes(lambda h, w: (1, 8, (h - 43) // 32, (w - 43) // 32), (299, 299)) == first  # inception
    assert at_other_sizes(lambda h, w: (1, h // 16, w // 64, 5), (128, 256)) == last  # other strides down than across
    assert at_other_sizes(lambda h, w: (1, h * w // 1024, 1024), (224, 224)) == Layout("tokens", 0, (7, 7))
    assert at_other_sizes(lambda h, w: (1, 5 + h * w // 256, 1024), (192, 256)) == Layout("tokens", 5, (12, 16))
    # neither: attention between all places, channels in front of tokens, maps of one size, windows, axes that change together
    assert at_other_sizes(lambda h, w: (1, 3, h * w // 256 + 1, h * w // 256 + 1), (224, 224)) is None
    assert at_other_sizes(lambda h, w: (1, 768, h * w // 1024), (224, 224)) is None
    assert at_other_sizes(lambda h, w: (1, 6, 6, 6), (224, 224)) is None
    assert at_other_sizes(lambda h, w: (1, 3, 4, h // 16, w // 16), (224, 224)) is None
    assert at_other_sizes(lambda h, w: (1, 12, 197, 197), (224, 224), fixed=True) is None
    # of fixed size: only where one reading covers the image with whole patches
    assert at_other_sizes(lambda h, w: (1, 197, 768), (224, 224), fixed=True) == Layout("tokens", 1, (14, 14))
    assert at_other_sizes(lambda h, w: (1, 197, 1024), (224, 224), fixed=True) is None  # 1024 = 32 x 32
    assert at_other_sizes(lambda h, w: (1, 7, 7, 7), (224, 224), fixed=True) is None


def test_a_layout_is_asked_for_or_given_and_refused_where_it_does_not_fit() -> None:
    torch.manual_seed(0)
    module, images, label = Transformer(1, width=16, linear=True), torch.zeros(1, 3, 32, 32), torch.tensor([0])
    for part in (*module.blocks, module):  # without normalisation nothing says that not the 16 channels are 4 x 4 tokens
        for name in ("norm1", "norm2") if part is not module else ("norm",):
            setattr(part, name, nn.Tanh())
    with pytest.raises(InputError, match=r"layer 'blocks.0' returns \(1, 17, 16\): which axes.*--layout channels-first"):
        capture(module, "blocks.0", images, label)
    with pytest.raises(InputError, match=r"layer 'blocks.1.value' returns \(1, 17, 16\): which axes.*--layout channels-first"):
        default_layer(module, images)
    assert default_layer(module, images, layout="tokens:1:4x4") == "blocks.1.norm1"
    captured = capture(module, "blocks.0", images, label, "tokens:1:4x4")
    assert tuple(captured.activations.shape) == (1, 16, 4, 4)
    assert str(captured.layout) == "tokens:1:4x4"
    for given in ("tokens:0:4x4", "channels-last"):
        with pytest.raises(InputError, match=rf"\(1, 17, 16\): --layout {given} does not fit"):
            capture(module, "blocks.0", images, label, given)
    for wrong in ("tokens", "tokens:1", "tokens:1:0x4", "nchw", "tokens:-1:4x4", ""):
        with pytest.raises(InputError, match=f"--layout {wrong}: expected channels-first, channels-last or tokens:LEADING"):
            parse(wrong)
    network = gradcampp.load(module, "blocks.0", layout="tokens:1:4x4", resize=32, crop=32)
    assert network.place == "blocks.0 (tokens:1:4x4, row by row)"  # an order that shapes do not tell
    assert gradcampp.load("mini").place == "features.block4_relu3"
    assert tuple(network.capture(torch.rand(2, 3, 32, 32), torch.tensor([0, 1])).activations.shape) == (2, 16, 4, 4)
    assert gradcampp.load(Last(), resize=32, crop=32).layout == Layout("channels-last")


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        ("classifier.2", r"\(1, 3, 1, 1\): one unit a map says nothing about places"),
        ("classifier", r"\(1, 3\): no feature maps; name a layer before"),
        ("classifier.9", "unknown layer 'classifier.9'; the nearest: classifier"),
    ],
)
def test_layers_that_have_no_places_are_refused(layer: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        gradcampp.load(Scored(), layer)


def test_parts_of_an_image_in_the_batch_are_no_maps() -> None:
    class Windows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 3)

        def forward(self, images: Tensor) -> Tensor:
            windows = torch.cat(images.chunk(2, 3))  # (2 B, 3, 16, 8)
            logits: Tensor = self.head(sum(self.conv(windows).mean((2, 3)).chunk(2)))
            return logits

    with pytest.raises(InputError, match=r"layer 'conv' returns \(2, 4, 16, 8\) for 1 images; expected one row an image"):
        capture(Windows(), "conv", torch.zeros(1, 3, 16, 16), torch.tensor([0]))
    with pytest.raises(InputError, match="no feature maps that its scores depend on"):
        default_layer(Windows(), torch.zeros(1, 3, 16, 16))


def softmax(module: nn.Module) -> nn.Module:
    return nn.Sequential(module, nn.Softmax(1))


class Gated(nn.Module):
    """The last layer with maps is the gate beside the path."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gate, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 1, 1), nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        maps = torch.relu(self.conv(images))
        logits: Tensor = self.head((maps * self.gate(maps).sigmoid()).mean((2, 3)))
        return logits


@pytest.mark.parametrize(
    ("factory", "layer"),
    [
        pytest.param(Cosine, "conv2", id="a cosine head, and a first layer with as many channels as classes"),
        pytest.param(lambda: Scored(8), "features.4", id="as many classes as the first layer has channels"),
        pytest.param(lambda: Scored(6), "features.4", id="as many classes as the last layer has channels"),
        pytest.param(lambda: softmax(Scored(6)), "0.features.4", id="maps of classes behind which a softmax stands"),
        pytest.param(lambda: nn.Sequential(Scored(6), nn.LogSoftmax(1)), "0.features.4", id="or its logarithm"),
        pytest.param(lambda: nn.Sequential(Scored(6), nn.Sigmoid()), "0.features.4", id="or sigmoids"),
        pytest.param(
            lambda: nn.Sequential(Scored(6), nn.Linear(6, 6)), "0.classifier.1", id="maps that a layer mixes are not classes"
        ),
        pytest.param(Gated, "conv", id="a gate is no feature"),
        pytest.param(InPlace, "after", id="written into"),
    ],
)
def test_a_coincidence_of_numbers_misleads_nobody(factory: Callable[[], nn.Module], layer: str) -> None:
    torch.manual_seed(0)
    assert default_layer(factory(), torch.zeros(1, 3, 16, 16)) == layer


def test_a_resnet_of_64_classes_with_a_cosine_head() -> None:
    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.centres = nn.Parameter(torch.randn(64, 512))

        def forward(self, features: Tensor) -> Tensor:
            return nn.functional.normalize(features) @ nn.functional.normalize(self.centres).mT

    module = get_model("resnet18", weights=None)
    module.fc = Head()
    assert default_layer(module, torch.zeros(1, 3, 64, 64)) == "layer4.1"


def test_networks_without_feature_maps_are_refused() -> None:
    for module in (nn.Sequential(nn.Flatten(), nn.Linear(48, 3)), nn.Sequential(nn.Flatten(), nn.ReLU())):
        with pytest.raises(InputError, match="no feature maps"):
            default_layer(module, torch.zeros(1, 3, 4, 4))
