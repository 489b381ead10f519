"""The theorist's first minute: the best scale of a frozen source, predicted and then simulated."""

import rmt

setting = rmt.Transfer(p=400, n=200, N=5000, mu=1.5, mu_perp=1.0, beta=0.8, gamma=1.0, gamma_source=1.0)
score = rmt.theory(setting)
print(
    f"best scale {score.alpha_star:.3f}, accuracy there {score.best_accuracy:.4f}, at α = 1 {score.accuracy(1.0):.4f}"
)
print(f"the scale exceeds 1 as long as the penalty is below {rmt.gamma_one(setting):.2f}")

simulation = rmt.simulate(setting, draws=500, seed=0)
print(simulation.compare(score, alpha=[0.0, 1.0, 2.0]))
