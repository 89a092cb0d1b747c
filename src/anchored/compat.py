"""One repair for CPU-only builds of torch: declare two operators so that `import torchvision` works.

torchvision's wheel is compiled against CUDA libraries. Beside a torch without CUDA its extension does not load, and
torchvision then registers fake kernels for operators that were never declared. Declaring the schemas is enough for
everything used here (transforms, timm's models); compiled operators such as `nms` stay unavailable.
"""

_library = None


def prepare_torchvision() -> None:
    """Declares `torchvision::nms` and `qnms` where torch has no CUDA build; call before importing torchvision or timm."""
    global _library
    import torch

    if _library is not None or torch.version.cuda is not None or torch.version.hip is not None:
        return
    _library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        _library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
