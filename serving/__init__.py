"""The servers: the predictor, which runs the model, and the transformer, which packs prompts and answers editors."""
