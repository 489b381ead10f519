"""Discovery: every claim, in the order of the papers, by id and by group."""

import pytest

from paper_checks.core import RENAMED, all_checks, papers, select

CHECKS = all_checks()
ALPHA = [check for name, check in CHECKS.items() if name.startswith("alpha_lora.")]


def test_discovery_finds_the_claims_of_the_issue_in_the_order_of_the_paper():
    assert [check.id for check in ALPHA] == [
        f"alpha_lora.{name}"
        for name in (
            "arbitrary_source",
            "several_sources",
            "ridge_source",
            "figure1",
            "figure2",
            "histograms",
            "regression",
            "regularisation",
            "table1",
            "figure3",
            "digits",
            "digits_alpha_star",
            "universality",
            "beyond",
            "choose_alpha",
            "source_scaling",
            "choose_alpha_held_out",
            "real_curves",
            "suggested_alpha",
            "glue_fair",
            "glue_five",
            "glue_recipe",
            "glue_full",
            "glue_affine",
            "glue_alpha",
            "glue_sensitivity",
            "alpha_overhead",
        )
    ]


def test_select_by_id_by_group_and_unknown():
    assert [check.id for check in select(["alpha_lora.figure1"])] == ["alpha_lora.figure1"]
    assert len(select(["alpha_lora"])) == len(ALPHA)
    assert len(select([])) == len(CHECKS)
    assert [check.id for check in select(["glora.glue_fair"])] == ["alpha_lora.glue_fair"]
    assert set(RENAMED.values()) <= set(CHECKS)
    assert not set(RENAMED) & set(CHECKS)
    with pytest.raises(ValueError, match=r"no check is called 'alpha_lora.figure9'; known: alpha_lora"):
        select(["alpha_lora.figure9"])


def test_every_paper_has_a_name_and_checks():
    assert list(papers())[:2] == ["alpha_lora", "glora"]
    assert {name.partition(".")[0] for name in CHECKS} == set(papers())
    assert all("arXiv" in title for _, title in papers().values())
