"""α-LoRA against LoRA on GLUE by the recipe of the paper's code: one untuned learning rate, α's work on top."""

from __future__ import annotations

from collections.abc import Sequence

from paper_checks.core import SMALL, Context
from paper_checks.studies.glue.comparison import FAIR, GlueFair
from paper_checks.studies.glue.study import Study


class GlueRecipe(GlueFair):
    """See the module's docstring; what remains of the gain under fair conditions is `glue_fair`."""

    id = "alpha_lora.glue_recipe"
    claim = "α-LoRA beats LoRA on every GLUE task (the paper's recipe: one learning rate, α's passes not counted)."
    short = "α-LoRA beats LoRA on GLUE by the paper's recipe."
    scale = "MiniLM-L6 (paper: RoBERTa-base)"
    words = SMALL
    rule = (
        "As alpha_lora.glue_fair, same tasks, seeds and examples, but both methods take the official code's learning "
        "rate (1e-4, nothing tuned), α batches are training examples of the adapter too, and α's passes come on "
        "top of the adapter's. Three epochs in place of ten or more."
    )
    needs = ("data/glue", "models/minilm-l6", "about 40 minutes of one CPU core")
    baseline, claimed = "lora_recipe", "alpha_recipe"
    study = Study(tasks=FAIR.study.tasks, methods=(baseline, claimed))

    def cells(self, context: Context) -> Sequence[str]:
        return self.study.cells()[:1] if context.quick else self.study.cells()


CHECK = GlueRecipe()
