"""The claims of the α-LoRA paper."""

#: Theorems, then figures, then data, as in the paper; then what it leaves open, and networks.
ORDER = (
    "arbitrary_source",
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
    "choose_alpha",
    "choose_alpha_held_out",
    "real_curves",
    "suggested_alpha",
    "glue_fair",
    "glue_recipe",
    "glue_full",
    "glue_affine",
    "glue_alpha",
    "glue_sensitivity",
    "alpha_overhead",
)
