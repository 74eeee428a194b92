"""Training: references -> random scene draws or patches -> SRLF-Net -> weights with a card."""

from hsfuse.training.config import TrainConfig, load_config
from hsfuse.training.loop import train

__all__ = ["TrainConfig", "load_config", "train"]
