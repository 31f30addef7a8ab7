"""Derived DICOM objects, built on highdicom."""
