"""The sceptic's first minute: the rule of a claim, the figures behind it, and what they say."""

from paper_checks.core import all_checks

check = all_checks()["alpha_lora.figure1"]
print(check.claim, "\n")
print("Rule:", check.rule, "\n")
outcome = check.recall()  # from the committed cells; `paper-checks run` computes them afresh
print(f"{outcome.verdict}: {outcome.summary}")
for row in outcome.rows[:4]:
    print(f"  {row.name}: paper {row.paper}, ours {row.ours:.4g} ± {row.error}")
records = check.records()
print(len(records), "cells, seeds", sorted({record["seed"] for record in records.values()}))
