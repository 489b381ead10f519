"""The adapted layer against PEFT: training step, memory kept, rounding, merged inference, decoding.

Every ratio is of medians of training steps (forward, backward, optimizer) taken in turn.  On a CPU the clock
is the process's own CPU time on one thread, so that other programs on the machine do not count; on a GPU it
is wall time between synchronisations.
"""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import glora
from benchmarks.timing import interleaved, row
from glora import GLoRAConfig, presets
from paper_checks.statistics.threads import one_thread

ROUNDS = 15
RANK = 8
LAYERS = ("q", "k", "v", "proj", "fc1", "fc2")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Block(nn.Module):
    """The linear layers of a transformer block, with something cheap in the place of attention."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.q, self.k, self.v, self.proj = (nn.Linear(dim, dim) for _ in range(4))
        self.fc1, self.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """x (batch, tokens, dim) → the same shape."""
        x = x + self.proj(torch.sigmoid(self.q(x) * self.k(x)) * self.v(x))
        return x + self.fc2(nn.functional.gelu(self.fc1(x)))


def stack(dim: int, depth: int) -> nn.Module:
    """Blocks one after the other, with the same weights at every call."""
    torch.manual_seed(0)
    return nn.Sequential(*(Block(dim) for _ in range(depth))).to(DEVICE)


def ours(config: GLoRAConfig, dim: int, depth: int) -> nn.Module:
    """A stack with our layers, perturbed as by training."""
    model = stack(dim, depth)
    glora.attach(model, config)
    return _perturbed(model)


def pefts(config: Any, dim: int, depth: int) -> nn.Module:
    """A stack with PEFT's layers."""
    import peft

    return _perturbed(peft.get_peft_model(stack(dim, depth), config))


def _perturbed(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.01 * torch.randn_like(parameter)
    return model


def _lora(targets: tuple[str, ...] = LAYERS) -> Any:
    import peft

    return peft.LoraConfig(r=RANK, target_modules=list(targets))


def _glora(a_b: str = "lora", c: str = "lora", d_e: str = "vector") -> Any:
    import peft

    return peft.GloraConfig(r=RANK, target_modules=list(LAYERS), config_A_B=a_b, config_C=c, config_D_E=d_e)


def clock() -> float:
    """Seconds: CPU time of this process, or wall time after the GPU has finished."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def training_step(model: nn.Module, x: Tensor) -> Callable[[], None]:
    """Forward, backward and one AdamW step."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)

    def step() -> None:
        model(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def kept_bytes(model: nn.Module, x: Tensor) -> dict[int, tuple[int, tuple[int, ...]]]:
    """Bytes and shape of every storage kept for the backward pass that is no parameter."""
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, tuple[int, tuple[int, ...]]] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = (storage.nbytes(), tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = model(x)
    del output
    return kept


# (ours, PEFT's GLoRA nearest to it): the most expensive structures without an element-wise low-rank A.
NOT_LOW_RANK = {
    "A vector, B C lora, D E vector": (
        {"A": "vector", "B": "lora", "C": "lora", "D": "vector", "E": "vector"},
        ("lora", "lora", "vector"),
    ),
    "A scalar, B vector, C vector, D E scalar": (
        {"A": "scalar", "B": "vector", "C": "vector", "D": "scalar", "E": "scalar"},
        ("vector", "vector", "constant"),
    ),
    "B C lora, D E vector": ({"B": "lora", "C": "lora", "D": "vector", "E": "vector"}, ("lora", "lora", "vector")),
    "A (matrix product) B C lora": (
        {"A": "lora", "B": "lora", "C": "lora", "a_product": "matmul"},
        ("lora", "lora", "constant"),
    ),
}


def steps(name: str, dim: int, depth: int, batch: int, tokens: int) -> list[dict[str, Any]]:
    """Training-step ratios on one model."""
    x = torch.randn(batch, tokens, dim, device=DEVICE, requires_grad=True)
    size = (dim, depth)
    q_v = r"\.(q|v)$"
    models = {
        "peft lora": pefts(_lora(), *size),
        "lora": ours(presets.lora(RANK), *size),
        "alpha": ours(presets.alpha_lora(RANK), *size),
        "recompute": ours(presets.alpha_lora(RANK, recompute=True), *size),
        "peft qv": pefts(_lora(("q", "v")), *size),
        "alpha qv": ours(presets.alpha_lora(RANK, q_v), *size),
        "glora": ours(GLoRAConfig(A="lora", B="lora", C="lora", rank=RANK), *size),
    }
    for key, (fields, nearest) in NOT_LOW_RANK.items():
        models[key] = ours(GLoRAConfig(rank=RANK, **fields), *size)
        models[f"peft {nearest}"] = pefts(_glora(*nearest), *size)
    times = interleaved(*(training_step(m, x) for m in models.values()), rounds=ROUNDS, clock=clock)
    seconds = dict(zip(models, times, strict=True))
    bar = "peft ('lora', 'lora', 'constant')"
    rows = [
        row(f"{name}: LoRA / PEFT LoRA", seconds["lora"] / seconds["peft lora"], at_most=1.05),
        row(f"{name}: α-LoRA / PEFT LoRA", seconds["alpha"] / seconds["peft lora"], at_most=1.05),
        row(f"{name}: α-LoRA recomputing / PEFT LoRA", seconds["recompute"] / seconds["peft lora"]),
        row(f"{name}: α-LoRA / PEFT LoRA, q and v only", seconds["alpha qv"] / seconds["peft qv"]),
        row(f"{name}: GLoRA A B C lora / PEFT GLoRA", seconds["glora"] / seconds[bar], at_most=0.70),
    ]
    for key, (_, nearest) in NOT_LOW_RANK.items():
        ratio = seconds[key] / seconds[f"peft {nearest}"]
        rows.append(row(f"{name}: {key} / PEFT GLoRA", ratio, at_most=0.55))
    rows.append(row(f"{name}: PEFT LoRA, seconds a step", seconds["peft lora"]))
    return rows


def memory(dim: int = 768, batch: int = 8, tokens: int = 197) -> list[dict[str, Any]]:
    """Bytes kept for the backward pass on one block, against PEFT LoRA's."""
    x = torch.randn(batch, tokens, dim, device=DEVICE, requires_grad=True)

    def total(model: nn.Module) -> int:
        return sum(size for size, _ in kept_bytes(model, x).values())

    lora = total(pefts(_lora(), dim, 1))
    frozen = presets.alpha_lora(RANK, train_alpha=False, alpha=0.9)
    rest = GLoRAConfig(B="lora", C="lora", D="vector", E="vector", rank=RANK)
    rows = [
        row(f"bytes kept: {label} / PEFT LoRA", total(ours(config, dim, 1)) / lora, at_most=1.05)
        for label, config in (
            ("LoRA", presets.lora(RANK)),
            ("α-LoRA, α frozen", frozen),
            ("α-LoRA recomputing", presets.alpha_lora(RANK, recompute=True)),
            ("B C lora, D E vector", rest),
        )
    ]
    outputs = 4 * batch * tokens * dim * (5 + 4)  # every layer's output, float32
    extra = total(ours(presets.alpha_lora(RANK), dim, 1)) - total(ours(presets.lora(RANK), dim, 1))
    rows.append(row("bytes kept: trained α, in outputs of its layers", extra / outputs, at_most=1.01))
    shapes = [s for _, s in kept_bytes(ours(presets.glora(RANK), dim, 1), x).values()]
    weights = sum(s in ((dim, dim), (dim, 4 * dim), (4 * dim, dim)) for s in shapes)
    rows.append(row("weight-sized tensors kept: GLoRA, element-wise low-rank A", weights, at_most=0))
    return rows


def rounding(dim: int = 768, tokens: int = 256) -> list[dict[str, Any]]:
    """Forward error in bfloat16 against float64, as a multiple of PEFT GLoRA's with the same numbers."""
    import peft

    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(dim, dim))
    theirs = _perturbed(peft.get_peft_model(base, peft.GloraConfig(r=RANK, target_modules=["0"])))
    layer = theirs.base_model.model[0]
    mine = nn.Sequential(nn.Linear(dim, dim))
    mine.load_state_dict({key: layer.base_layer.state_dict()[key[2:]] for key in ("0.weight", "0.bias")})
    glora.attach(mine, GLoRAConfig(A="lora", B="lora", C="lora", D="scalar", E="scalar", rank=RANK))
    with torch.no_grad():
        for name in "ABCDE":
            path, tensor = getattr(layer, f"glora_{name}")["default"], getattr(mine[0].adapters["default"], name)
            for part, other in (("left", "Xd"), ("right", "Xu"), ("value", "X")):
                if hasattr(tensor, part):
                    getattr(tensor, part).copy_(getattr(path, other))
    x = torch.randn(tokens, dim).bfloat16()
    mine[0].base.bfloat16()
    layer.base_layer.bfloat16()
    exact = glora.merged_copy(copy.deepcopy(mine).double())(x.double())
    error, their_error = ((m(x).double() - exact).norm() for m in (mine, theirs))
    return [row("bfloat16 forward error / PEFT GLoRA's", float(error / their_error), at_most=1.0)]


def inference(dim: int = 768, batch: int = 8, tokens: int = 197) -> list[dict[str, Any]]:
    """Merged inference against the base model, and unmerged decoding of one token against PEFT GLoRA."""
    with torch.no_grad():
        base, merged = stack(dim, 1).eval(), ours(presets.glora(RANK), dim, 1).eval()
        glora.merge(merged)
        x = torch.randn(batch, tokens, dim, device=DEVICE)
        plain, fast = interleaved(lambda: base(x), lambda: merged(x), rounds=4 * ROUNDS, clock=clock)
        one = torch.randn(1, 1, dim, device=DEVICE)
        models = [ours(presets.glora(RANK), dim, 1).eval(), pefts(_glora(), dim, 1).eval(), base]
        decode = interleaved(*((lambda m=m: m(one)) for m in models), rounds=4 * ROUNDS, clock=clock)
    return [
        row("merged inference / base, distance from 1", abs(fast / plain - 1), at_most=0.02),
        row("decoding one token: GLoRA unmerged / PEFT GLoRA", decode[0] / decode[1]),
        row("decoding one token: GLoRA unmerged / base", decode[0] / decode[2]),
    ]


def measure() -> list[dict[str, Any]]:
    """The layer's bars."""
    with one_thread(DEVICE == "cpu"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [
            *steps("ViT-S width, 2 blocks, batch 16", dim=384, depth=2, batch=16, tokens=197),
            *steps("768-wide block, batch 8", dim=768, depth=1, batch=8, tokens=197),
            *memory(),
            *rounding(),
            *inference(),
        ]
