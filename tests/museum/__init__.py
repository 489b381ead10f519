"""The museum: public reports of adapters that fail silently, each replayed as a user would meet it."""
