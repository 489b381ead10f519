"""α-LoRA against LoRA on GLUE, with tuned learning rates and equal work for both.

Claim and rule stand in `paper_checks.studies.glue.comparison`, since other checks read this one's runs.
"""

from paper_checks.studies.glue.comparison import FAIR

CHECK = FAIR
