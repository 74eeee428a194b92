"""hsfuse: hyperspectral and multispectral image fusion with SRLF-Net."""

__version__ = "0.1.0"
