"""`python -m training prepare`: exams and lesions to arrays, by the code that inference uses.

`exams` says which files belong to which exam, `dicom` and `nifti` read one, `patient` checks it and brings
the target to the model grid, `run` does so for a folder, `cache` holds what comes of it. An exam that would
teach something wrong is refused, with a code and a sentence in ``cases.json``; it does not stop the others.
"""

from training.prepare.cache import Case, cache_folder, read_cases
from training.prepare.exams import Exam, find_exams
from training.prepare.lesions import prepare_lesions
from training.prepare.patient import Facts, Patient, facts_of, labels_on_grid, target_on_grid
from training.prepare.run import prepare_patients, read_exam, read_patient, summary

__all__ = [
    "Case",
    "Exam",
    "Facts",
    "Patient",
    "cache_folder",
    "facts_of",
    "find_exams",
    "labels_on_grid",
    "prepare_lesions",
    "prepare_patients",
    "read_cases",
    "read_exam",
    "read_patient",
    "summary",
    "target_on_grid",
]
