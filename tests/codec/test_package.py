"""The codec as a part of the package."""

import subprocess
import sys


def test_importing_the_package_does_not_import_the_coder():
    code = (
        "import sys, bae_lens; assert 'constriction' not in sys.modules; "
        "assert bae_lens.codec.CodecSettings; assert 'constriction' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
