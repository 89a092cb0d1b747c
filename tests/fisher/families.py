"""The smallest practical member of each family of timm: name and what is made smaller, by arguments of its constructor."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from anchored.compat import prepare_torchvision

prepare_torchvision()

import timm  # noqa: E402
from timm.models import metaformer, mlp_mixer, nest, volo  # noqa: E402
from timm.models.coat import CoaT  # noqa: E402
from timm.models.convmixer import ConvMixer  # noqa: E402
from timm.models.focalnet import FocalNet  # noqa: E402
from timm.models.gcvit import GlobalContextVit  # noqa: E402
from timm.models.mvitv2 import MultiScaleVit, MultiScaleVitCfg  # noqa: E402
from timm.models.nextvit import NextViT  # noqa: E402
from timm.models.resnetv2 import ResNetV2  # noqa: E402


@dataclass(frozen=True)
class Family:
    """A module of timm, and one model of it without its head."""

    module: str
    make: str | Callable[..., nn.Module]
    options: dict[str, Any] = field(default_factory=dict)
    sized: bool = False
    pixels: int = 64
    note: str = ""

    @property
    def label(self) -> str:
        return f"{self.module} {self.note}".strip()

    def model(self) -> nn.Module:
        options = self.options | ({"img_size": self.pixels} if self.sized else {})
        if isinstance(self.make, str):
            return timm.create_model(self.make, pretrained=False, num_classes=0, **options)
        return self.make(num_classes=0, **options)


SMALL_VIT = {"embed_dim": 32, "depth": 2, "num_heads": 2}
SHARED_BIAS = {"use_rel_pos_bias": False, "use_shared_rel_pos_bias": True}
SMALL_SWIN = {"embed_dim": 16, "depths": (2, 2), "num_heads": (2, 2), "window_size": 4}
SMALL_MIXER = {"num_blocks": 2, "embed_dim": 16, "mlp_ratio": 4}
ONES = (1, 1, 1, 1)
NARROW = (16, 24, 32, 40)
HEADS = (2, 2, 2, 2)
mvit = functools.partial(
    MultiScaleVit, MultiScaleVitCfg(depths=(1, 1, 1, 1), embed_dim=(16, 32, 48, 64), num_heads=HEADS, stride_kv_adaptive=(2, 2))
)

FAMILIES = [
    Family("beit", "beit_base_patch16_224", SMALL_VIT, sized=True),
    Family("beit", "beit_base_patch16_224", SMALL_VIT | SHARED_BIAS, sized=True, note="shared"),
    Family("byobnet", "test_byobnet"),
    Family("cait", "cait_xxs24_224", SMALL_VIT, sized=True),
    Family("coat", CoaT, {"embed_dims": (32,) * 4, "patch_size": 4, "serial_depths": ONES, "parallel_depth": 1}, True),
    Family("convit", "convit_tiny", {"embed_dim": 16, "depth": 2, "local_up_to_layer": 1, "num_heads": 2}, True),
    Family("convmixer", ConvMixer, {"dim": 16, "depth": 2}),
    Family("convnext", "test_convnext"),
    Family("convnext", "test_convnext3", note="v2"),
    Family(
        "crossvit",
        "crossvit_tiny_240",
        {"embed_dim": [24, 48], "depth": [[1, 1, 0]], "num_heads": [2, 2], "mlp_ratio": [2, 2, 1]},
        sized=True,
        pixels=120,
    ),
    Family("cspnext", "cspnext_tiny", {"widen_factor": 0.125}),
    Family("davit", "davit_tiny", {"depths": ONES, "embed_dims": (16, 32, 48, 64), "num_heads": HEADS}),
    Family("deit", "deit_tiny_distilled_patch16_224", SMALL_VIT, sized=True),
    Family("densenet", "densenet121", {"growth_rate": 8, "block_config": (2, 2, 2, 2)}),
    Family("dla", "dla46x_c"),
    Family("dpn", "dpn48b", {"k_sec": ONES}),
    Family("edgenext", "edgenext_xx_small", {"depths": (1, 1, 2, 1), "dims": NARROW}),
    Family(
        "efficientformer_v2", "efficientformerv2_s0", {"depths": (1, 1, 2, 2), "embed_dims": (16, 24, 32, 48), "num_vit": 1}, True
    ),
    Family("efficientnet", "test_efficientnet"),
    Family("efficientvim", "efficientvim_m1", {"embed_dim": (32, 48, 64), "depths": (1, 1, 1)}, pixels=128),
    Family("efficientvit_mit", "efficientvit_b0", {"depths": (1, 1, 1, 1, 1)}),
    Family("efficientvit_msra", "efficientvit_m0", {"embed_dim": [32, 48, 64], "depth": [1, 1, 1]}, True, 128),
    Family("eva", "vit_tiny_patch16_dinov3_qkvb", SMALL_VIT, sized=True),
    Family("eva", "eva02_tiny_patch14_224", SMALL_VIT, sized=True, pixels=56, note="02"),
    Family("fasternet", "fasternet_t0", {"embed_dim": 16, "depths": ONES}),
    Family("fastvit", "fastvit_sa12", {"layers": ONES, "embed_dims": (16, 32, 32, 64)}),
    Family("focalnet", FocalNet, {"depths": ONES, "embed_dim": 8, "layerscale_value": 0.1}),
    Family("gcvit", GlobalContextVit, {"depths": ONES, "embed_dim": 8, "num_heads": HEADS, "img_size": 64, "layer_scale": 0.1}),
    Family("ghostnet", "ghostnet_050"),
    Family("hgnet", "hgnetv2_b0"),
    Family("hiera", "hiera_tiny_224", {"embed_dim": 16, "stages": ONES}, sized=True),
    Family("inception_next", "inception_next_atto", {"depths": ONES, "dims": NARROW}),
    Family("lcnetv2", "lcnetv2_small", {"depths": ONES}),
    Family("levit", "levit_128s", {"embed_dim": (32, 48, 64), "depth": (1, 1, 1), "num_heads": (2, 2, 2)}, True, 128),
    Family("lowformer", "lowformer_b0", {"width_list": [8, 16, 32, 48, 64], "depth_list": [0, 1, 1, 1, 1]}),
    Family("mambaout", "test_mambaout"),
    Family("maxxvit", "test_maxvit", sized=True),
    Family("maxxvit", "test_coatnet", sized=True, note="coatnet"),
    Family(
        "metaformer",
        metaformer.MetaFormer,
        {
            "depths": ONES,
            "dims": NARROW,
            "token_mixers": [metaformer.SepConv, metaformer.SepConv, metaformer.Pooling, metaformer.Pooling],
            "layer_scale_init_values": 0.1,
        },
    ),
    Family("mlp_mixer", mlp_mixer.MlpMixer, {"num_blocks": 2, "embed_dim": 16}, True),
    Family(
        "mlp_mixer",
        mlp_mixer.MlpMixer,
        SMALL_MIXER | {"block_layer": mlp_mixer.ResBlock, "norm_layer": mlp_mixer.Affine},
        True,
        note="resmlp",
    ),
    Family(
        "mlp_mixer",
        mlp_mixer.MlpMixer,
        SMALL_MIXER | {"block_layer": mlp_mixer.SpatialGatingBlock, "mlp_layer": timm.layers.GatedMlp},
        True,
        note="gmlp",
    ),
    Family("mobilenetv3", "mobilenetv3_small_050"),
    Family("mobilevit", "mobilevitv2_050"),
    Family("mvitv2", mvit, sized=True),
    Family("naflexvit", "naflexvit_base_patch16_gap", SMALL_VIT),
    Family("nest", nest.Nest, {"embed_dims": (16, 32, 48), "num_heads": (2, 2, 2), "depths": (1, 1, 1)}, True),
    Family("nextvit", NextViT, {"in_chans": 3, "stem_chs": (8, 8, 8), "depths": (1, 1, 5, 1)}),
    Family("nfnet", "test_nfnet"),
    Family("pit", "pit_ti_distilled_224", {"base_dims": [16, 16, 16], "depth": [1, 1, 1], "heads": [2, 2, 2]}, True),
    Family("pvt_v2", "pvt_v2_b0", {"depths": ONES, "embed_dims": (16, 32, 40, 64)}),
    Family("qwen3_vit", "qwen3_vit_88m", SMALL_VIT),
    Family(
        "rdnet",
        "rdnet_tiny",
        {
            "num_init_features": 16,
            "growth_rates": (8, 8, 8, 8),
            "num_blocks_list": ONES,
            "is_downsample_block": (None, True, True, True),
            "block_type": ("Block", "Block", "BlockESE", "BlockESE"),
        },
    ),
    Family("regnet", "regnety_004"),
    Family("repghost", "repghostnet_050"),
    Family("repvit", "repvit_m1", {"embed_dim": (16, 24, 32, 48), "depth": ONES}),
    Family("res2net", "res2next50", {"layers": ONES, "channels": NARROW}),
    Family("resnest", "resnest14d", {"stem_width": 8, "channels": NARROW}),
    Family("resnet", "test_resnet"),
    Family("resnetv2", ResNetV2, {"layers": ONES, "channels": (128, 128, 128, 128), "stem_chs": 32}),
    Family("rexnet", "rexnet_100", {"width_mult": 0.5}),
    Family("shvit", "shvit_s1", {"embed_dim": (32, 48, 64), "depth": (1, 1, 1), "partial_dim": (16, 16, 16)}),
    Family("sknet", "skresnet18", {"layers": ONES, "channels": (16, 24, 32, 40)}),
    Family("starnet", "starnet_s050"),
    Family("swiftformer", "swiftformer_xs", {"layers": ONES, "embed_dims": NARROW}),
    Family("swin_transformer", "swin_tiny_patch4_window7_224", SMALL_SWIN, True),
    Family("swin_transformer_v2", "swinv2_tiny_window8_256", SMALL_SWIN, True),
    Family("swin_transformer_v2_cr", "swinv2_cr_tiny_224", SMALL_SWIN, True),
    Family(
        "tiny_vit",
        "tiny_vit_5m_224",
        {"embed_dims": [16, 32, 48, 64], "depths": [1, 1, 1, 1], "num_heads": [2, 2, 2, 2], "window_sizes": [4, 4, 4, 2]},
    ),
    Family("tnt", "tnt_s_patch16_224", {"embed_dim": 32, "inner_dim": 8, "depth": 2, "num_heads_outer": 2}, True),
    Family("tresnet", "tresnet_m", {"layers": ONES, "width_factor": 0.25}),
    Family("twins", "twins_svt_small", {"embed_dims": [16, 32, 32, 64], "num_heads": HEADS, "depths": ONES}, True),
    Family("visformer", "visformer_tiny", {"embed_dim": 48, "depth": (1, 1, 1)}, True),
    Family("vision_transformer", "test_vit", SMALL_VIT, sized=True),
    Family("vision_transformer", "vit_base_patch16_siglip_224", SMALL_VIT, sized=True, note="siglip"),
    Family("vision_transformer", "vit_base_patch16_clip_224", SMALL_VIT, sized=True, note="clip"),
    Family("vision_transformer_hybrid", "vit_tiny_r_s16_p8_224", SMALL_VIT, sized=True),
    Family("vision_transformer_relpos", "vit_srelpos_small_patch16_224", SMALL_VIT, sized=True),
    Family("vision_transformer_sam", "samvit_base_patch16_224", SMALL_VIT | {"global_attn_indexes": [1]}, True),
    Family("volo", volo.VOLO, {"layers": ONES, "embed_dims": (16, 32, 32, 32), "num_heads": HEADS}, True),
    Family("vovnet", "ese_vovnet19b_slim_dw"),
    Family("xcit", "xcit_nano_12_p8_224", SMALL_VIT, sized=True),
]

# Families that hooks refuses, and what it says.
REFUSED = [
    (Family("csatv2", "csatv2"), "the loss of image 0 reaches rows of other images"),
    (
        Family("sequencer", "sequencer2d_s", {"layers": ONES, "embed_dims": [16, 24, 24, 24], "hidden_sizes": [4, 6, 6, 6]}, True),
        "stages.0.blocks.0.rnn_tokens.rnn_v.weight_ih_l0 (lstm)",
    ),
]
