"""The claims of the α-LoRA paper."""

NAME = "α-LoRA"
PAPER = "α-LoRA: Effective Fine-Tuning via Base Model Rescaling (arXiv 2510.21345)"

#: Theorems, then figures, then data, as in the paper; then what it leaves open, and networks.
ORDER = (
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
