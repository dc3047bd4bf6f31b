"""What answers an editor: the predictor with the model, the transformer before it, both on one machine."""
