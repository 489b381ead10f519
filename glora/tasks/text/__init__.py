"""Tasks on texts: sentences with classes, instructions, multiple choice."""
