import base64
import gzip
import hashlib
import json
import re

import numpy as np
import pytest

from bae_lens.report.assemble import page_html, page_script, page_style
from bae_lens.report.packing import pack, smallest

ARRAYS = {
    "a": np.arange(7, dtype=np.uint8),
    "b": np.array([[1.5, np.nan], [3.0, -2.0]], np.float32),
    "c": np.array([2**32 - 1], np.uint32),
}


def unpacked(block):
    """As the page does it."""
    content = gzip.decompress(base64.b64decode(block))
    size = int.from_bytes(content[:4], "little")
    header = json.loads(content[4 : 4 + size])
    kinds = {"Uint8Array": "<u1", "Uint16Array": "<u2", "Uint32Array": "<u4", "Int32Array": "<i4", "Float32Array": "<f4"}
    arrays = {}
    for name, place in header["arrays"].items():
        assert (4 + size + place["at"]) % 8 == 0
        flat = np.frombuffer(content, kinds[place["kind"]], place["length"], 4 + size + place["at"])
        arrays[name] = flat.reshape(place["shape"])
    return header["values"], arrays


def test_values_and_arrays_come_back_from_a_block():
    values, arrays = unpacked(pack({"text": "</script>\u2028é", "n": [1, None]}, ARRAYS))
    assert values == {"text": "</script>\u2028é", "n": [1, None]}
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], array)


def test_a_block_is_the_same_for_the_same_content():
    assert pack({"a": 1}, ARRAYS) == pack({"a": 1}, ARRAYS)


def test_other_types_and_numbers_that_are_none_are_refused():
    with pytest.raises(TypeError, match="'x' is float64"):
        pack({}, {"x": np.zeros(2)})
    with pytest.raises(ValueError, match="JSON"):
        pack({"x": float("nan")}, {})


@pytest.mark.parametrize(("most", "kind"), [(255, np.uint8), (256, np.uint16), (65535, np.uint16), (65536, np.uint32)])
def test_whole_numbers_take_the_narrowest_type(most, kind):
    found = smallest(np.array([0, most]))
    assert found.dtype == kind
    assert found.tolist() == [0, most]


def test_no_text_can_end_the_element_that_it_stands_in():
    hostile = ["</script><script>alert(1)</script>", "]]>", "<!--", "'\"><img src=x onerror=alert(1)>"]
    html = page_html({"strings": hostile}, {})
    assert not any(text in html for text in hostile)
    block = re.search(r'id="data">([^<]*)</script>', html)[1]
    assert re.fullmatch(r"[A-Za-z0-9+/=]+", block)
    assert unpacked(block)[0] == {"strings": hostile}
    assert html.lower().count("<script") == html.lower().count("</script") == 2
    assert "</script" not in page_script().lower()
    assert "<!--" not in page_script()
    assert "</style" not in page_style().lower()


def test_the_policy_allows_the_pages_own_script_and_style_by_hash_and_nothing_else():
    html = page_html({}, {})
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)[1]
    parts = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    script = re.search(r"<script>(.*?)</script>", html, re.DOTALL)[1]
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)[1]
    for kind, content in (("script-src", script), ("style-src", style)):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert parts[kind] == f"'sha256-{digest}'"
    assert parts["default-src"] == "'none'"
    assert "unsafe" not in policy
    assert "http" not in policy


def test_the_page_names_no_address_to_fetch_from_and_makes_no_html_of_text():
    html = re.sub(r'id="data">[^<]*<', "", page_html({}, {}))
    addresses = set(re.findall(r"https?://[^\"'\s)]+", html))
    assert addresses == {"http://www.w3.org/2000/svg"}
    for word in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "Function(",
        "fetch(",
        "XMLHttp",
        "@import",
        "url(",
    ):
        assert word not in html
