"""sb-train: continual pre-training and distillation of SpikingBrain checkpoints, with sb_convert.reference as the model."""
