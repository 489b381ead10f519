"""Faults put into the code on purpose, one at a time: does a verdict flip, does a test fail?

`plan` finds the sites and draws from them, `plant` puts a fault into loaded code, `studies` are the questions to the
verdicts, `worker` asks one kind of mutants, ``python -m mutants`` runs the workers and counts.
"""
