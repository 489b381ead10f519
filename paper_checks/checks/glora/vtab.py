"""Does GLoRA beat LoRA at equal parameters? The study on real images, at a CPU's size.

Claim and rule stand in `paper_checks.studies.vision.comparison`, since the study at a GPU's size has the same.
"""

from paper_checks.studies.vision.comparison import VtabStudy

CHECK = VtabStudy()
