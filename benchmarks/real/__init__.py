"""What is estimated of real pairs, for which there is no truth: against assumed values, and from halves of a scene."""
