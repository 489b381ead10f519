"""``make demo``: a page made on the spot, with one part a paper and every check at small size."""
