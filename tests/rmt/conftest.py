import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # tests import `cases` and `cases_beyond`, which lie beside it
