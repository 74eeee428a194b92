"""Network building blocks: the selective scan, the SS2D block and SRLF-Net on top of them."""
