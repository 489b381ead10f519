# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What a GLoRA search finds
#
# GLoRA gives every linear layer five support tensors and lets a search decide which of their structures a task
# needs: $4\cdot4\cdot3\cdot3\cdot3 = 432$ choices a layer. A *supernet* holds them all with shared weights, evolution
# compares subnets on validation images within a budget of parameters, and the winner is trained afresh.
#
# Here a tiny vision transformer that was pretrained on the digits 0–4 learns 5–9, so that everything runs in a minute
# on a laptop. `configs/glora_vtab.toml` is the same at the paper's size.

# %%
# %matplotlib inline
import os
import tempfile
from pathlib import Path

import torch
from IPython.display import display

import glora
from glora import plot
from glora.engines.evolution import Evolution
from glora.engines.knapsack import Knapsack
from glora.engines.random import Random
from glora.search.loop import search
from glora.searching import SearchRun
from paper_checks.demo.vision import digits_config, pretrain, write_digits
from paper_checks.report.notebook import show

FAST = os.environ.get("NOTEBOOK_FAST") == "1"
torch.set_num_threads(1)
folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## A pretrained model and a task
#
# `write_digits` writes scikit-learn's digits in the layout of VTAB-1K; `glora.tasks.vision.image_folder` reads any folder of that
# layout, few-shot lists, or one folder a class.

# %%
source = write_digits(folder / "0-4", classes=range(5))
target = write_digits(folder / "5-9", classes=range(5, 10), validation=200)
accuracy = pretrain(folder / "vit", source, epochs=2 if FAST else 20)
print(f"{accuracy:.1f} % on the digits 0–4")

# %% [markdown]
# ## The supernet
#
# "vector" is column 0 and "scalar" entry (0, 0) of the same low-rank factor, as in the official code. Each training
# step draws one subnet.

# %%
run = SearchRun(digits_config(folder / "run", target, folder / "vit", epochs=2 if FAST else 30))
supernet = run.supernet()
print(supernet.report)
print(f"\n10^{supernet.space.log10_size:.0f} subnets")

# %% [markdown]
# ## Three searches of the same supernet
#
# All see validation images only (anything else is an error) and the same budget: at most 3,000 parameters and at
# most 5 % fewer. Candidates are merged into the weights, asked the hardest images first, and dropped once they cannot
# be selected any more.

# %%
budget, size = run.method.budget, 30 if FAST else 150
engines = {
    "evolution": Evolution(supernet.space, budget, generations=size // 15 - 1, population=15, parents=5,
                           mutations=7, crossovers=7),
    "random": Random(supernet.space, budget, total=size),
    "knapsack": Knapsack(supernet.space, budget, design=size - 5, rounds=5),
}  # fmt: skip
found = {name: search(supernet, run.task, engine) for name, engine in engines.items()}
for name, result in found.items():
    figures = result.summary()
    print(
        f"{name:<10} {figures['validation_accuracy']:.1f} % on validation, {figures['parameters']:,} parameters, "
        f"{figures['images']:,} of {figures['images_of_plain_evaluation']:,} images asked"
    )

# %%
display(plot.progress(found["evolution"]))

# %% [markdown]
# ## What was found
#
# The subnet is a configuration like any other: `glora.attach` takes it, and its JSON is a page long.

# %%
best = found["evolution"].best.genome
config = supernet.config(best)
model = run.task.build_model(0)
report = glora.attach(model, config)
display(plot.structures(report))

# %% [markdown]
# ## Inherited or retrained
#
# Inherited weights are exactly the supernet's slices. For the final figure the subnet is trained afresh on training and
# validation images; test images are looked at once for each.

# %%
inherited = run.task.build_model(0)
supernet.extract(best, inherited)
print(f"inherited  {run.task.metrics(glora.merged_copy(inherited), 'test')['accuracy']:.1f} % on test")
run.search(supernet)
retrained = run.retrain()
print(f"retrained  {retrained['test']['accuracy']:.1f} % on test, {retrained['parameters']:,} parameters with the head")

# %% [markdown]
# ## On real images
#
# The same steps with a pretrained ViT-S/14 on two tasks in the layout of VTAB-1K, at one budget for all methods, are a study
# whose cells are stored with the project. It asks three questions: does the searched GLoRA beat LoRA, does the search beat a
# random subnet, and where do the parameters go? An incomplete study says so.

# %%
show("glora.vtab", rows=True)

# %%
show("glora.vtab_search", rows=True)

# %%
show("glora.vtab_layers", rows=True)

# %%
show("glora.vtab_corruptions", rows=True)
