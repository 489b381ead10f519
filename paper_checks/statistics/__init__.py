"""Statistics that several studies share: paired differences, intervals, rates, timings."""
