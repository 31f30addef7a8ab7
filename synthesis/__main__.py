"""``python -m synthesis T1_DIR FLAIR_DIR OUT_DIR``: the worker's pipeline without network."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from synthesis.errors import RefusedInput, SynthesisError
from synthesis.job import SEG_FORMS, T1C_FORMS, Kind, Wanted

FINE, NO, WRONG_USAGE = 0, 1, 2
PREAMBLE_BYTES = 128


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0 when a series was made, 1 when not, 2 when it was called wrongly."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    try:
        wanted = Wanted(tuple(dict.fromkeys(asked.objects)), asked.t1c, asked.seg, asked.corner_text)
    except ValueError as error:
        parser.error(str(error))
    for folder in (asked.t1_dir, asked.flair_dir):
        if not folder.is_dir():
            print(f"{folder} is no folder.", file=sys.stderr)
            return WRONG_USAGE
    try:
        _make(asked, wanted)
    except SynthesisError as error:
        verb = "Declined" if isinstance(error, RefusedInput) else "Failed"
        print(f"{verb} ({error.code}): {error.sentence}", file=sys.stderr)
        return NO
    return FINE


def _make(asked: argparse.Namespace, wanted: Wanted) -> None:
    t1_paths, flair_paths = dicom_files(asked.t1_dir), dicom_files(asked.flair_dir)
    from synthesis import pipeline  # SimpleITK and torch take seconds: usage errors should not wait for them
    from synthesis.models.load import load_model

    model = load_model(asked.model, asked.device)
    print(f"model       {model.name} {model.version} on {model.device}, weights {model.digest[:12]}")
    made = pipeline.run(t1_paths, flair_paths, asked.out_dir, model, _progress(), wanted)
    for step, seconds in made.seconds.items():
        print(f"{step:<11} {seconds:6.2f} s")
    print(f"{'together':<11} {sum(made.seconds.values()):6.2f} s")
    for remark in made.remarks:
        print(f"- {remark}")
    if asked.montage:
        from synthesis.montage import save_montage

        save_montage(made.pictures, asked.montage)
        print(f"montage     {asked.montage}")
    print(f"{len(made.instances)} instances in {asked.out_dir}")


def dicom_files(folder: Path) -> list[Path]:
    """Return the DICOM files below a folder, told by their preamble."""
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and _is_dicom(path)]


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(PREAMBLE_BYTES)
        return file.read(4) == b"DICM" and path.name != "DICOMDIR"


def _progress() -> Callable[[str, float], None]:
    """Return what shows the progress: a bar on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        return lambda step, share: None

    def show(step: str, share: float) -> None:
        done = "█" * round(30 * share)
        print(f"\r{done:<30} {share:4.0%} {step:<11}", end="\r" if share < 1 else "\n", file=sys.stderr)

    return show


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m synthesis",
        description="Make a synthetic contrast-enhanced T1 series of a pre-contrast T1W and a FLAIR.",
    )
    parser.add_argument("t1_dir", type=Path, metavar="T1_DIR", help="DICOM files of the pre-contrast T1W")
    parser.add_argument("flair_dir", type=Path, metavar="FLAIR_DIR", help="DICOM files of the FLAIR")
    parser.add_argument("out_dir", type=Path, metavar="OUT_DIR", help="where the series goes")
    parser.add_argument("--model", default="default", metavar="NAME", help="weights in synthesis/weights")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    kinds = [kind.value for kind in Kind]
    parser.add_argument("--objects", nargs="+", default=kinds[:1], choices=kinds, help="what to make")
    parser.add_argument("--t1c", default=T1C_FORMS[0], choices=T1C_FORMS, help="form of the T1C")
    parser.add_argument("--seg", default=SEG_FORMS[0], choices=SEG_FORMS, help="form of the segmentation")
    parser.add_argument("--corner-text", action="store_true", help='burn "synthetic" into the T1C')
    parser.add_argument("--montage", type=Path, metavar="FILE.png", help="also draw a picture of the result")
    return parser


if __name__ == "__main__":
    sys.exit(main())
