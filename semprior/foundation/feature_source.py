"""The source of the VFM's features in a run: the bank, or the model itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from semprior.foundation.feature_bank import FeatureBank
from semprior.foundation.vfm import VFM


class Features:
    """Features of crops and of whole images, for the teacher.

    With a bank, crops are cut from the features of the whole image. This is an approximation, since context and padding
    differ from those of the crop alone. Without a bank, the VFM runs on every crop, as published.

    Args:
        vfm: the frozen model; None if no stage is modulated, and then there are no maps.
        bank: of the run's images, in the order of their indices; None to run the VFM each time.
        order: position in the bank of each image; None if the images are those of the bank, in their order.
    """

    def __init__(self, vfm: VFM | None, bank: FeatureBank | None, order: Sequence[int] | None = None) -> None:
        self.vfm = vfm
        self.bank = bank
        self.order = None if order is None else np.asarray(order)

    def of(self, order: Sequence[int]) -> Features:
        """The features of some of the images: those with the indices `order`, which become 0, 1, ..."""
        return Features(self.vfm, self.bank, order if self.order is None else self.order[np.asarray(order)])

    def _places(self, indices: Sequence[int] | np.ndarray) -> Sequence[int] | np.ndarray:
        return indices if self.order is None else self.order[np.asarray(indices)]

    def crops(
        self, indices: np.ndarray, rows: np.ndarray, columns: np.ndarray, side: int, grey: Tensor
    ) -> list[Tensor]:
        """Maps of crops before augmentation.

        Args:
            indices: (B,) of the images.
            rows: (B,) upper edge of each crop, pixels.
            columns: (B,) left edge.
            side: of the crops, pixels.
            grey: (B,1,side,side) uint8, the crops.

        Returns:
            K maps (B,C_k,side/16,side/16) on the device of `grey`: float16 from the bank, else float32.
        """
        if self.vfm is None:
            return []
        if self.bank is None:
            return self.vfm(grey.float() / 255)
        return [maps.to(grey.device) for maps in self.bank.crop(self._places(indices), rows, columns, side)]

    def whole(self, indices: Sequence[int] | None, grey: Tensor) -> list[Tensor]:
        """Maps of whole images, padded to a multiple of 32, or of tiles, from the VFM; grey (B,1,H,W) in 0..1."""
        del indices
        return [] if self.vfm is None else self.vfm(grey)

    def from_bank(self, indices: Sequence[int] | None, grey: Tensor) -> list[Tensor]:
        """As `whole`, for images of the run, from the bank if it has them. A tile has no indices."""
        if self.vfm is None or self.bank is None or indices is None:
            return self.whole(indices, grey)
        corner, size = np.zeros(len(indices), np.int64), (grey.shape[-2], grey.shape[-1])
        return [maps.to(grey.device) for maps in self.bank.crop(self._places(indices), corner, corner, size)]
