"""Write a study of the phantom: ``python -m synthesis.phantom OUT_DIR [--seed N] [--with-t1-post]``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from synthesis.phantom.study import write_study


def main() -> int:
    """Write the study and list its series."""
    parser = argparse.ArgumentParser(prog="python -m synthesis.phantom", description=__doc__)
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("--seed", type=int, default=1, help="another seed is another patient")
    parser.add_argument("--with-t1-post", action="store_true", help="add a T1W with contrast agent")
    parser.add_argument("--healthy", action="store_true", help="no tumour")
    arguments = parser.parse_args()
    study = write_study(
        arguments.out_dir,
        seed=arguments.seed,
        lesion=not arguments.healthy,
        with_t1_post=arguments.with_t1_post,
    )
    for series in study.series.values():
        print(f"{len(series.paths):4d} images  {series.description:16s} {series.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
