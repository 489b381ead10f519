# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
# ---

# %% [markdown]
# # One layer for both papers
#
# A frozen linear layer $y = W_0 x + b_0$ is adapted by five support tensors:
#
# $$W_{\mathrm{eff}} = W_0 + W_0\odot A + B, \qquad b_{\mathrm{eff}} = b_0 + b_0\odot D + E + W_0 C.$$
#
# Each tensor is absent, a scalar, a vector or a product of two thin matrices. LoRA is $B$ alone; α-LoRA is $A = D = \alpha - 1$
# and $B$; the largest structure is GLoRA's. This notebook takes the layer apart and measures what its parts cost.

# %%
# %matplotlib inline
import os

import numpy as np
import torch
from IPython.display import display
from torch import nn

import glora
from glora import GLoRAConfig, presets
from rmt import plot

FAST = os.environ.get("NOTEBOOK_FAST") == "1"
torch.manual_seed(0)


def small_model():
    """Two layers whose weights can be looked at."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(24, 32), nn.GELU(), nn.Linear(32, 24))


def as_if_trained(model, size=0.3):
    """Move every trainable parameter."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += size * torch.randn_like(parameter)


# %% [markdown]
# ## Attach, and nothing changes
# An adapted model starts as the model it adapts, bit for bit. The report says which layers got which tensors.

# %%
model, x = small_model(), torch.randn(100, 24)
before = model(x)
report = glora.attach(model, GLoRAConfig(A="lora", B="lora", C="lora", D="vector", E="vector", rank=2))
print(report)
print("same output bits:", torch.equal(model(x), before))

# %% [markdown]
# ## The parts of the effective weight
# After training (here: random numbers) the weight is the sum of three parts with different structure: $W_0\odot A$ follows the
# pattern of $W_0$, $B$ does not.

# %%
as_if_trained(model)
layer = model[0]
adapter, w0 = layer.adapters["default"], layer.base.weight
with torch.no_grad():
    parts = {
        "$W_0$": w0,
        "$W_0 \\odot A$": w0 * adapter.A.dense(),
        "$B$": adapter.B.dense(),
        "$W_{\\mathrm{eff}}$": adapter.effective(layer.base)[0],
    }
figure, axes = plot.panels(4, width=2.6, height=3.0)
for axis, (name, matrix) in zip(axes.flat, parts.items(), strict=True):
    limit = matrix.abs().max()
    axis.imshow(matrix.numpy(), cmap="RdBu", vmin=-limit, vmax=limit)
    plot.name_axes(axis, "input", "output", name)
    axis.grid(False)
display(figure)

# %% [markdown]
# ## Merge, and back
# Merged weights are formed in float64 and rounded once. The original weights are kept, so unmerging restores every bit, even
# where $1 + A = 0$.

# %%
output, weights = model(x), w0.clone()
glora.merge(model)
print("largest difference of the output:", (model(x) - output).abs().max().item())
glora.unmerge(model)
print("every bit restored:", torch.equal(model[0].weight, weights), torch.equal(model(x), output))

# %% [markdown]
# ## The scale α
# In α-LoRA the tied tensor $A = D$ is read and set as $\alpha = 1 + A$. Replacing a trained α by $c\,\alpha$ moves the output
# away from what the adapter was trained with.

# %%
model = small_model()
glora.attach(model, presets.alpha_lora(rank=2, target=["0"]))
as_if_trained(model, 0.1)
trained, output = model[0].alpha, model(x)
factors = np.linspace(-0.5, 2.5, 13 if FAST else 61)
distance = []
for factor in factors:
    model[0].alpha = factor * trained
    distance.append(((model(x) - output).norm() / output.norm()).item())
figure, axes = plot.panels()
plot.line(axes[0, 0], factors, distance, label="‖y(cα) − y(α)‖ / ‖y(α)‖")
plot.name_axes(axes[0, 0], "c", "relative change of the output")
plot.legend(axes[0, 0])
display(figure)

# %% [markdown]
# ## The known methods are structures
# Parameters of each preset on the 48 linear layers of ViT-B/16 (a sketch on the meta device: no weights are made).


# %%
class Sketch(nn.Module):
    """The linear layers of ViT-B/16 in timm's form."""

    def __init__(self):
        super().__init__()
        shapes = {"qkv": (768, 2304), "proj": (768, 768), "fc1": (768, 3072), "fc2": (3072, 768)}
        self.blocks = nn.ModuleList(
            nn.ModuleDict({name: nn.Linear(*shape) for name, shape in shapes.items()}) for _ in range(12)
        )


with torch.device("meta"):
    vit = Sketch()
RANKS = (2, 4, 8, 16)
METHODS = {"LoRA": presets.lora, "α-LoRA": presets.alpha_lora, "GLoRA": presets.glora}
figure, axes = plot.panels()
for colour, (name, preset) in zip(plot.COLOURS, METHODS.items(), strict=False):
    millions = [glora.count_parameters(preset(rank), vit).trainable / 1e6 for rank in RANKS]
    plot.line(axes[0, 0], RANKS, millions, colour=colour, label=name)
for colour, (name, config) in zip(
    plot.COLOURS[3:], {"SSF": presets.ssf(), "BitFit": presets.bitfit()}.items(), strict=False
):
    millions = glora.count_parameters(config, vit).trainable / 1e6
    plot.line(axes[0, 0], RANKS, [millions] * len(RANKS), colour=colour, label=name)
plot.name_axes(axes[0, 0], "rank", "parameters, millions", "ViT-B/16, all linear layers")
plot.legend(axes[0, 0])
display(figure)
print(glora.count_parameters(presets.glora(4), vit))

# %% [markdown]
# ## Steps: how far one learning rate moves the output
# A step of Adam moves every number by the learning rate. What that does to the layer's output depends on the tensor; a
# measured factor on each (its *step*, `glora.balance`) makes it what LoRA of rank 4 does. Inputs as after a GELU.

# %%
from glora.layer import steps

base = torch.nn.Linear(1536, 384)
inputs = torch.nn.functional.gelu(torch.randn(500, 1536))
moments, rows = None, {}
for fields in (
    {"A": "lora", "B": "lora", "C": "lora", "D": "vector", "E": "vector", "rank": 4},
    {"A": "vector", "B": "vector", "C": "vector"},
):
    adapter = glora.layer.adapter.Adapter.create(glora.LayerConfig(**fields), base)
    moments = steps.measured(adapter.op, base, inputs)
    for tensor, factor in steps.factors(adapter, base, moments).items():
        moved = steps.own(adapter, base, tensor, fields[tensor], moments)
        rows[f"{tensor} {fields[tensor]}"] = moved / steps.reference(moments), factor * moved / steps.reference(moments)
figure, axes = plot.panels(width=5.0, height=2.8)
raw, balanced = np.array(list(rows.values())).T
axes[0, 0].barh(list(rows), raw, color=plot.GREY, label="as they are")
axes[0, 0].plot(balanced, list(rows), "o", color=plot.COLOURS[0], label="with steps")
axes[0, 0].set_xscale("log")
axes[0, 0].invert_yaxis()
plot.name_axes(axes[0, 0], "first step / LoRA's", "")
plot.legend(axes[0, 0])
display(figure)

# %% [markdown]
# ## What the parts cost
# CPU time of a training step (one thread, medians of interleaved steps) and bytes kept for the backward pass, on one
# 384-wide block, relative to the frozen model. Only an element-wise low-rank $A$ costs a third matrix product; a trained
# vector $A$ keeps one output, or recomputes it.

# %%
from benchmarks import glora_layer as bench
from benchmarks.timing import interleaved

DIM, DEPTH, ROUNDS = 384, 1, 2 if FAST else 15
x = torch.randn(2 if FAST else 8, 197, DIM, requires_grad=True)
CONFIGS = {
    "LoRA": presets.lora(8),
    "α-LoRA": presets.alpha_lora(8),
    "α-LoRA, recomputing": presets.alpha_lora(8, recompute=True),
    "SSF": presets.ssf(),
    "GLoRA, A as matrix product": presets.glora(8, a_product="matmul"),
    "GLoRA": presets.glora(8),
}
models = {name: bench.ours(config, DIM, DEPTH) for name, config in CONFIGS.items()}
frozen = bench.stack(DIM, DEPTH).requires_grad_(False)
threads = torch.get_num_threads()
torch.set_num_threads(1)
baseline, *seconds = interleaved(
    lambda: frozen(x).square().mean().backward(),
    *(bench.training_step(model, x) for model in models.values()),
    rounds=ROUNDS,
    clock=bench.clock,
)
torch.set_num_threads(threads)
kept = [sum(size for size, _ in bench.kept_bytes(m, x).values()) for m in (frozen, *models.values())]
figure, axes = plot.panels(2, width=5.0, height=2.8)
for axis, values, title in (
    (axes[0, 0], np.array(seconds) / baseline, "training step / frozen"),
    (axes[0, 1], np.array(kept[1:]) / kept[0], "bytes kept / frozen"),
):
    axis.barh(list(models), values, color=plot.COLOURS[0])
    axis.invert_yaxis()
    plot.name_axes(axis, title, "")
display(figure)
for name, step, size in zip(models, seconds, kept[1:], strict=True):
    print(f"{name:<28}{step / baseline:6.2f} × the time  {size / kept[0]:6.2f} × the bytes")
