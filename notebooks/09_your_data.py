# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
# ---

# %% [markdown]
# # Your own data, from a file to labels
#
# A table of texts and a folder of pictures become tasks: `glora init` looks at them and writes a run file, `glora tune` trains,
# `glora predict` labels what is new and needs nothing but the adapter and its base model. Everything here is made on the spot:
# sentences of a few words, and scikit-learn's digits as PNG files. Put your own files and a pretrained model in their place.

# %%
# %matplotlib inline
import csv
import os
import tempfile
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from glora.runs.config import read
from glora.tasks.own.look import look, toml
from glora.tuning.predict import Predictor
from glora.tuning.tune import tune
from paper_checks.demo import vision
from paper_checks.demo.tiny_text import reviews, save_model

FAST = os.environ.get("NOTEBOOK_FAST") == "1"
home = Path(tempfile.mkdtemp())

# %% [markdown]
# ## Texts
# A file as people have it: a semicolon between the cells, names instead of numbers as labels. The model is a tiny random BERT,
# which bears a higher rate than a pretrained model does; there, leave the rate as `init` writes it.

# %%
with (home / "films.csv").open("w", newline="") as file:
    table = csv.writer(file, delimiter=";")
    table.writerow(["text", "verdict"])
    for row in reviews(200 if FAST else 600, seed=0):
        table.writerow([row["sentence"], ("unpleasant", "pleasant")[row["label"]]])
save_model(home / "bert")

seen = look(home / "films.csv", str(home / "bert"), label="verdict")
for name, fact in seen.seen.items():
    print(f"{name:<8} {fact.replace(str(home), '…')}")

# %% [markdown]
# The run file, as `glora init films.csv --model bert --label verdict` writes it:

# %%
run_file = home / "films.toml"
run_file.write_text(toml(seen, str(home / "runs/films")))
print(run_file.read_text().replace(str(home), "…"))

# %%
warnings.filterwarnings("ignore", "a step of 1")  # the random BERT's biases are 0, and D scales biases
result = tune(read(run_file, ["training.lr=1e-2", f"training.epochs={2 if FAST else 10}", "training.patience=0"]))
print({name: round(value, 1) for name, value in result["test"].items()}, "on rows that were held back")

# %% [markdown]
# ## Pictures
# A folder of folders, one a class. The parts are cut by a seed, every class in each, copies of a picture together. The model
# is a tiny ViT that was trained on the digits 0–4; the new task is 5–9.

# %%
images, digits = load_digits(return_X_y=True)
chosen = [i for i in np.random.default_rng(0).permutation(len(digits)) if digits[i] >= 5][: 300 if FAST else 700]
new, known = chosen[-12:], chosen[:-12]
for i in known:
    folder = home / "digits" / str(digits[i])
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray((images[i].reshape(8, 8) * 15.9).astype(np.uint8)).save(folder / f"{i}.png")
vision.pretrain(home / "vit", vision.write_digits(home / "source", classes=range(5)), epochs=2 if FAST else 20)

seen = look(home / "digits", str(home / "vit"))
for name, fact in seen.seen.items():
    print(f"{name:<8} {fact.replace(str(home), '…')}")

# %% [markdown]
# GLoRA with balanced steps, at the rate that LoRA would have. After training, the adapter's folder knows the classes, the side
# of the pictures and where its base lies.

# %%
run_file = home / "digits.toml"
run_file.write_text(toml(seen, str(home / "runs/digits")))
changes = ["task.side=16", "task.normalisation=half", "training.head_lr=1e-2", "training.lr=3e-3"]
result = tune(read(run_file, [*changes, f"training.epochs={2 if FAST else 12}"]))
print(f"{result['test']['accuracy']:.1f} % of held-back pictures, {result['parameters']:,} trained parameters")
print(sorted(path.name for path in (home / "runs/digits/adapter").iterdir()))

# %% [markdown]
# ## New ones
# `glora predict runs/digits new/ --csv` does the same. A file that is no picture is marked, and the others are labelled.

# %%
(home / "new").mkdir()
for i in new:
    Image.fromarray((images[i].reshape(8, 8) * 15.9).astype(np.uint8)).save(home / "new" / f"{i}.png")
(home / "new" / "broken.png").write_bytes(b"not a picture")

answers = list(Predictor(home / "runs/digits")([home / "new"]))
good = [answer for answer in answers if answer.error is None]
print(next(f"{Path(a.source).name}: {a.error}".replace(str(home), "…") for a in answers if a.error))
figure, axes = plt.subplots(2, 6, figsize=(9, 3.6), layout="constrained")
for axis, answer in zip(axes.flat, good, strict=True):
    number = int(Path(answer.source).stem)
    axis.imshow(images[number].reshape(8, 8), cmap="gray_r")
    right = answer.label == str(digits[number])
    axis.set_title(f"{answer.label}, {answer.probabilities[answer.label]:.0%}", color="black" if right else "crimson")
    axis.axis("off")
figure.suptitle("label and its probability; red where the picture shows another digit")
plt.show()
