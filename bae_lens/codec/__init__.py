"""Compressing activations (A.5): a BAE's codes at their entropy in a file, the radius and the residual as one likes.

summary = bae_lens.codec.compress(bae, "acts/", "acts.baez")
with bae_lens.codec.open("acts.baez") as z:
    vectors = z[1_000_000:1_000_512]
"""

from bae_lens.codec.compress import Summary, compress, decompress
from bae_lens.codec.container import DamagedFileError
from bae_lens.codec.reader import BaezFile
from bae_lens.codec.settings import CodecSettings

open = BaezFile

__all__ = ["BaezFile", "CodecSettings", "DamagedFileError", "Summary", "compress", "decompress", "open"]
