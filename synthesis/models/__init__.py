"""The two networks and their weights: MPR-ViT finds the tumour, TA-ViT synthesises, given where it is."""
