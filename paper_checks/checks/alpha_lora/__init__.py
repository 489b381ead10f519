"""The claims of the α-LoRA paper."""

#: Theorems, then figures, then data, as in the paper.
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
    "universality",
)
