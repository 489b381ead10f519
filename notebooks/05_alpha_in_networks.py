# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
# ---

# %% [markdown]
# # α in networks: what a trained scale does to a language model
#
# The theory has one number α before a frozen classifier. α-LoRA puts one before every row of the adapted weights,
# $W = \alpha\odot W_0 + BA$, and trains it apart from the adapter: every $T$ steps one step on a batch of its own
# (Algorithm 1). Whether that beats plain LoRA is a question of points of accuracy, so everything else has to be equal:
# the number of passes (α's are counted), the learning rates tried, the seeds, the examples. `paper_checks.studies.glue.study`
# holds these rules; this notebook shows what came out. Figures of a study that is not complete say so.

# %%
# %matplotlib inline
import os

import torch
from IPython.display import HTML, display

import glora
import glora.schedule
from glora.runs.settings import AlphaSettings
from glora.training.alpha import alpha_parameters
from glora.training.batches import BatchOrder, split_for_alpha
from paper_checks.report.notebook import show

FAST = os.environ.get("NOTEBOOK_FAST") == "1"

# %% [markdown]
# ## 1. The schedule
# α's examples are a part of the training examples on which the adapter never trains. The official code calls its α batches
# "validation" but draws them from the adapter's own examples; `source="overlap"` does the same.

# %%
for source in ("held_out", "overlap"):
    adapter, alpha = split_for_alpha(1000, AlphaSettings(source=source), seed=0)
    print(f"{source}: adapter {len(adapter)}, α {len(alpha)}, in both {len(set(adapter) & set(alpha))}")
print("first α batches:", [BatchOrder(alpha, 4, seed=0)[k] for k in range(3)])

# %% [markdown]
# How α is shared is one option of the method: one a row (the paper), one row vector for query, key and value, one a matrix, one a
# block, one for the whole model.


# %%
def block() -> torch.nn.ModuleDict:
    """Three layers with the names that sharing looks at."""
    return torch.nn.ModuleDict({name: torch.nn.Linear(8, 8) for name in ("query", "key", "value")})


for share in glora.schedule.SHARES:
    model = torch.nn.Sequential(block(), block())
    glora.attach(model, glora.presets.alpha_lora(rank=2, per_row=share in ("row", "qkv")))
    different = glora.schedule.share_alpha(model, share)
    print(f"{share}: {different} scales, {sum(p.numel() for p in alpha_parameters(model).values())} numbers")

# %% [markdown]
# ## 2. A toy, made and trained here
# A two-layer encoder that knows plain opinions learns what "not" does to them.

# %%
if not FAST:
    from paper_checks.demo.text import text

    display(HTML(text().body))

# %% [markdown]
# ## 3. The study: α-LoRA against LoRA on GLUE

# %%
show("alpha_lora.glue_fair", rows=True)

# %% [markdown]
# The same comparison by the recipe of the paper's code: nothing is tuned, and α's steps, fifty times as long as the
# adapter's, come on top. Whatever gain this shows and the table above does not belongs to the recipe rather than to α.

# %%
show("alpha_lora.glue_recipe", rows=True)

# %% [markdown]
# ## 4. What the trained α looks like
# The paper's trained scales have mean 1 and a spread that grows with the task. Is the pattern more than noise? Then two seeds
# should agree on it more than permuted rows do.

# %%
show("alpha_lora.glue_alpha", rows=True)

# %% [markdown]
# ## 5. Replacing α by aα + b
# The adapter was trained beside these scales; how much of a change does the model take?

# %%
show("alpha_lora.glue_affine", rows=True)

# %% [markdown]
# ## 6. Does it matter how α is trained?

# %%
show("alpha_lora.glue_sensitivity", rows=True)
