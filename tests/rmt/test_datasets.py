import os
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from rmt.datasets import AMAZON, Domain, load_amazon

GOOD = {"fts": np.random.default_rng(0).random((6, 400)), "labels": np.array([[0], [1], [0], [1], [1], [0]])}


def write_folder(folder: Path, **changes: object) -> Path:
    for stem in AMAZON.values():
        savemat(folder / f"{stem}.mat", GOOD)
    content = {key: value for key, value in {**GOOD, **changes}.items() if value is not None}
    if changes:
        savemat(folder / "dvd.mat", content)
    return folder


def test_reads_four_domains_and_turns_labels_into_signs(tmp_path):
    domains = load_amazon(write_folder(tmp_path))
    assert list(domains) == ["book", "dvd", "elec", "kitchen"]
    np.testing.assert_array_equal(domains["book"].labels, [1, -1, 1, -1, -1, 1])
    np.testing.assert_array_equal(domains["book"].features, GOOD["fts"])


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"fts": None}, "lacks the key 'fts'"),
        ({"labels": None}, "lacks the key 'labels'"),
        ({"fts": np.zeros((6, 399))}, r"fts of shape \(6, 399\)"),
        ({"fts": np.zeros((0, 400))}, r"fts of shape"),
        ({"labels": np.zeros((5, 1))}, r"6 rows but labels of shape \(5, 1\)"),
        ({"labels": np.array([[0], [1], [2], [0], [0], [0]])}, "labels other than 0 and 1"),
        ({"labels": np.zeros((6, 1))}, "labels other than 0 and 1"),
        ({"fts": np.full((6, 400), np.nan)}, "NaN or infinite features"),
        ({"fts": np.array(["a", "b"], dtype=object)}, "not numbers"),
    ],
)
def test_wrong_content_is_named_with_a_remedy(tmp_path, changes, found):
    with pytest.raises(ValueError, match=rf"dvd\.mat.*{found}.*replace it"):
        load_amazon(write_folder(tmp_path, **changes))


@pytest.mark.parametrize("content", [b"", b"not a mat file", b"MATLAB 5.0 MAT-file" + b"\0" * 200])
def test_unreadable_file_is_named_with_a_remedy(tmp_path, content):
    write_folder(tmp_path)
    (tmp_path / "kitchen.mat").write_bytes(content)
    with pytest.raises(ValueError, match=r"kitchen\.mat.*replace it"):
        load_amazon(tmp_path)


def test_missing_folder_and_missing_file(tmp_path):
    with pytest.raises(ValueError, match="does not exist; give the folder"):
        load_amazon(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"books\.mat.*does not exist; add"):
        load_amazon(tmp_path)


def test_domain_refuses_shapes_and_labels_that_do_not_fit():
    with pytest.raises(ValueError, match=r"\(3, 2\) and \(2,\)"):
        Domain("x", np.zeros((3, 2)), np.array([1.0, -1.0]))
    with pytest.raises(ValueError, match="both −1 and"):
        Domain("x", np.zeros((2, 2)), np.array([1.0, 1.0]))


def test_standardised_has_unit_variance_and_leaves_constant_features_at_zero():
    rng = np.random.default_rng(1)
    features = np.column_stack([rng.normal(3.0, 2.0, 50), np.full(50, 7.0)])
    domain = Domain("x", features, np.where(np.arange(50) % 2, 1.0, -1.0)).standardised()
    np.testing.assert_allclose(domain.features[:, 0].std(), 1.0)
    np.testing.assert_array_equal(domain.features[:, 1], 0.0)
    np.testing.assert_allclose(domain.signed_mean, (domain.labels[:, None] * domain.features).mean(axis=0))


@pytest.mark.skipif("ADAPT_SHARED" not in os.environ, reason="needs real data: set ADAPT_SHARED")
def test_real_amazon_reviews():
    domains = load_amazon(Path(os.environ["ADAPT_SHARED"]) / "data" / "amazon_review")
    assert [len(domain.labels) for domain in domains.values()] == [2000, 1999, 1998, 1999]
    assert abs(domains["book"].labels.mean()) < 0.01
