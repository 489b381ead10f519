"""Five support tensors on one learning rate: their steps are measured on a batch before training."""

import torch

import glora

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.GELU(), torch.nn.Linear(32, 4))
config = glora.GLoRAConfig(A="vector", B="lora", C="vector", D="vector", E="vector", rank=4)
glora.attach(model, config)
x = torch.randn(64, 16)
for layer, steps in glora.balance(model, x).items():
    print(layer, {name: round(step, 2) for name, step in steps.items()})
before = model(x).detach()
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
torch.nn.functional.cross_entropy(model(x), torch.randint(4, (64,))).backward()
optimizer.step()
print(f"one step moved the outputs by {(model(x) - before).pow(2).mean().sqrt():.4f}")
print(glora.certify(model, x))
