"""Fuzzing of the codec: vectors are compressed and come back, or are refused in words, and no half of a file stays."""

import tempfile
from pathlib import Path

import torch
from fuzzing import NONSENSE, TENSORS, calls, fields, refining_bae, small_bae
from hypothesis import given
from hypothesis import strategies as st

from bae_lens import codec
from bae_lens.codec.settings import MODES, PROBABILITIES

SETTINGS = {
    "mode": st.sampled_from(MODES),
    "probabilities": st.sampled_from(PROBABILITIES),
    "norm_bits": st.sampled_from([0, 8, 16]),
    "target_fvu": st.none() | st.floats(0.01, 1),
    "target_cosine": st.none() | st.floats(0.5, 0.99),
    "threshold": st.floats(-1, 0),
    "packed": st.booleans(),
    "block_vectors": st.integers(1, 50),
    "fit_vectors": st.integers(1, 50),
    "bae_inside": st.booleans(),
}
BOUNDS = st.one_of(st.none(), st.integers(-50, 50), NONSENSE)


FEW = st.lists(st.sampled_from(sorted(SETTINGS)), max_size=3, unique=True).flatmap(
    lambda names: st.fixed_dictionaries({name: st.one_of(SETTINGS[name], SETTINGS[name], NONSENSE) for name in names})
)
"""Of all fields, one that is nonsense would nearly always be among them."""


@given(
    FEW | fields(codec.CodecSettings, SETTINGS),
    st.integers(1, 60).map(lambda rows: torch.randn(rows, 4, generator=torch.Generator().manual_seed(rows))) | TENSORS,
    st.sampled_from([small_bae, refining_bae]),
    st.tuples(BOUNDS, BOUNDS),
)
def test_vectors_are_compressed_and_come_back_or_are_refused(values, x, make, bounds):
    settings, bae = calls(codec.CodecSettings, **values), make()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.baez"
        summary = None if settings is None else calls(codec.compress, bae, x, path, settings, progress=False)
        assert (summary is None) == (not path.exists())
        if summary is None:
            return
        calls(codec.open, path)
        with codec.open(path, bae) as file:
            assert file[:].shape == x.shape
            calls(file.__getitem__, bounds[0])
            part = calls(file.__getitem__, slice(*bounds))
            codes = calls(file.codes, slice(*bounds))
            assert (part is None) == (codes is None)
            if settings.mode == "code" and codes is not None and make is small_bae:
                assert torch.equal(codes, bae.encode(x[slice(*bounds)].float()).ne(0).short())
        calls(codec.decompress, path, Path(folder) / "acts", bae, progress=False)
        assert (Path(folder) / "acts" / "manifest.json").exists()
