"""Adapt a PyTorch model, train the adapter, keep it in a small file, and merge it for inference."""

import tempfile

import torch

import glora

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.GELU(), torch.nn.Linear(32, 4))
print(glora.attach(model, glora.presets.alpha_lora(rank=4, target=["0"], modules_to_save=["2"])))
x, labels = torch.randn(256, 16), torch.randint(4, (256,))
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
for _ in range(50):
    loss = torch.nn.functional.cross_entropy(model(x), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(f"loss {loss:.3f}, mean scale of the frozen rows {glora.alphas(model)['0'].mean():.3f}")
with tempfile.TemporaryDirectory() as folder:
    glora.save(model, folder)  # the trained numbers alone
plain = glora.merged_copy(model)
print(f"merged, differs by {(plain(x) - model(x)).abs().max():.1e}")
