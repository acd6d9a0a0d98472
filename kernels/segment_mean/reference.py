"""segment_mean in torch: shares of each group's weight, then one scattered sum."""

import torch
from torch import Tensor


def segment_mean(data: Tensor, weight: Tensor, group: Tensor, num_groups: int) -> Tensor:
    slot = torch.where(group < 0, num_groups, group)  # the last slot takes what is dropped
    total = weight.new_zeros(num_groups + 1).index_add(0, slot, weight)
    share = weight / total[slot]  # exactly 1 in a group of one
    rows = data.float() * share[:, None]
    rows = rows.masked_fill((weight == 0)[:, None], 0.0)
    mean = rows.new_zeros(num_groups + 1, data.shape[1]).index_add(0, slot, rows)
    mean = mean.masked_fill((total == 0)[:, None], torch.nan)
    return mean[:num_groups].to(data.dtype)
