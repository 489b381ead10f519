"""Building a wheel: the folder ``configs`` goes into the package as ``glora/configs`` (see `glora.runs.shipped`)."""

import shutil
from pathlib import Path

from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """The usual step, and then the run files; a checkout installed with -e reads them where they are."""

    def run(self) -> None:
        """Copy the packages, then the run files."""
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib, "glora", "configs")
            shutil.copytree("configs", target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
