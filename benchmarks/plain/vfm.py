"""The frozen ViT, run on every crop (method, section 2)."""

import timm
import torch
from torch import Tensor, nn

PUBLISHED_VFM = "vit_small_plus_patch16_dinov3"


class PlainViT:
    """A timm ViT with random weights in eval mode; its maps are the patch embedding and every block.

    Random weights cost the same time as trained ones. (timm starts DINOv3's layer scale at 1e-5, so that every map of a
    random model is nearly the patch embedding: good for a stopwatch, not for telling the order of maps.)
    """

    def __init__(self, name: str = PUBLISHED_VFM, seed: int = 0, device: str = "cpu") -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model: nn.Module = timm.create_model(name, pretrained=False, num_classes=0)
        self.model.eval().requires_grad_(False).to(device)
        self.mean = torch.tensor([0.485, 0.456, 0.406], device=device).view(1, 3, 1, 1)
        self.std = torch.tensor([0.229, 0.224, 0.225], device=device).view(1, 3, 1, 1)

    @torch.no_grad()
    def __call__(self, grey: Tensor) -> list[Tensor]:
        """Crops before augmentation, (B, 1, H, W) float32 in 0..1, to 13 maps (B, 384, H/16, W/16) float32."""
        x = (grey.expand(-1, 3, -1, -1) - self.mean) / self.std
        seen: list[Tensor] = []
        handles = [
            part.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
            for part in [self.model.patch_embed, *self.model.blocks]
        ]
        try:
            last = self.model.forward_features(x)  # all tokens after the final norm
        finally:
            for handle in handles:
                handle.remove()
        batch, rows, columns, width = seen[0].shape
        maps = [seen[0].permute(0, 3, 1, 2)]
        for tokens in [*seen[1:-1], last]:
            patches = tokens[:, self.model.num_prefix_tokens :]
            maps.append(patches.reshape(batch, rows, columns, width).permute(0, 3, 1, 2))
        return [values.contiguous() for values in maps]
