"""What keeps texts about the code equal to the code."""
