"""What is learned from a sample: the scale, the penalty, and the accuracy to expect."""
