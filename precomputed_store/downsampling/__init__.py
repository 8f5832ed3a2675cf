"""One scale from the finer one before it. Pure, numpy only.

Coarse voxel ``i`` stands for the fine voxels ``[i * f, (i + 1) * f)`` of the absolute grid,
whatever the `voxel_offset`: all blocks of a volume see the same windows.
"""

from precomputed_store.downsampling.blocks import METHODS, Method, downsample
from precomputed_store.downsampling.windows import coarse_box, fine_box

__all__ = ["METHODS", "Method", "coarse_box", "downsample", "fine_box"]
