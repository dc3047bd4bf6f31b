"""Training: one loop (`loop`), three objectives (`objectives`), and the stages `pretrain`, `sft` and `dpo`."""
