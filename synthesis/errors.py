"""The errors of the worker, on one screen. Each carries a short code and a sentence for people."""

from __future__ import annotations


class SynthesisError(Exception):
    """What the worker can say about a job that it could not do."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence


class RefusedInput(SynthesisError):
    """The study cannot be used (not a head, a slice missing, no pixel data). The job ends DECLINED."""


class UnusableModel(SynthesisError):
    """Weights that are absent, damaged, or never trained. The job ends FAILED."""
