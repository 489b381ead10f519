"""The transfers between Amazon's four domains that several checks share."""

from __future__ import annotations

from paper_checks.core import Context
from paper_checks.studies.real_data import DomainPair
from rmt.datasets import load_amazon

#: The pairs on which the rule was developed; each domain is once source and once target.
DEVELOPMENT = ("book-dvd", "dvd-elec", "elec-kitchen", "kitchen-book")


def amazon_pair(context: Context, source: str, target: str) -> DomainPair:
    """A transfer between two standardised Amazon domains."""
    domains = load_amazon(context.folder("data", "amazon_review"))
    return DomainPair(domains[source].standardised(), domains[target].standardised())
