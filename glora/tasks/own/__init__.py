"""A user's own rows and pictures as tasks: columns, classes and splits are given, or found and said."""
