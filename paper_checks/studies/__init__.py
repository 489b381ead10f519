"""What several checks share: data, protocols, published formulas. No module here is a check."""
