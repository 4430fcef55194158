"""`python -m bae_lens` is `bae-lens`."""

import sys

from bae_lens.cli import main

sys.exit(main())
