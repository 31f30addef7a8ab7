"""The worker: a pre-contrast T1W and a FLAIR in, a synthetic contrast-enhanced T1 series out."""
