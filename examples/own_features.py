"""Fine-tune a linear source on a few samples of your own: scale and penalty come from the sample alone."""

import numpy as np

import rmt

rng = np.random.default_rng(0)
p, source = 50, rng.standard_normal(50)  # features, and weights that somebody else trained
direction = 0.3 * (0.8 * source + 0.6 * rng.standard_normal(p))  # what separates your classes: related, not equal


def sample(n):
    """Features (n, p) and labels ±1; put your own here."""
    labels = rng.choice([-1, 1], n)
    return labels[:, None] * direction + rng.standard_normal((n, p)), labels


X, y = sample(40)
model = rmt.AlphaRidgeClassifier(source=source).fit(X, y)
print(f"scale {model.alpha_[0]:.2f}, penalty {model.gamma_:.3g}, expected accuracy {model.predicted_accuracy_:.3f}")
X_test, y_test = sample(5000)
print(f"accuracy on fresh samples {np.mean(model.predict(X_test) == y_test):.3f}")
