"""The codec as a part of the package."""

import subprocess
import sys


def test_importing_the_package_does_not_import_the_coder():
    code = (
        "import sys, bae_lens; print('constriction' in sys.modules); "
        "bae_lens.codec.CodecSettings; print('constriction' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert result.stdout.split() == ["False", "True"]
