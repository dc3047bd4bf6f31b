"""The embedded predictor: one model on the CPU or a GPU, served in vLLM's protocol with prompts as token ids."""
