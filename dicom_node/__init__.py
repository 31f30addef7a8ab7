"""The node: receives brain MR studies, chooses T1W and FLAIR, and returns a synthetic T1C series."""
