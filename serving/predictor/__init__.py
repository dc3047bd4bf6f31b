"""The embedded predictor: one model on the CPU or one GPU behind vLLM's completion protocol, prompts as token ids."""
