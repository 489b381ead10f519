"""Faults put into the code on purpose, one at a time: does a verdict flip, does a test fail?"""
