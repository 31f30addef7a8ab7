"""`python -m training prepare | split | fit RECIPE | maps RECIPE | evaluate | compare A B | export`."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from training.recipes import RECIPES

WEIGHTS = Path(__file__).resolve().parents[1] / "synthesis" / "weights"
DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
FINE, NO = 0, 1
#: Columns of a table that goes to a file.
WIDE = 140


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return the exit code."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    try:
        return int(options.run(options))
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return NO


def _prepare(options: argparse.Namespace) -> int:
    from training.data import GRID
    from training.prepare import cache_folder, prepare_lesions, prepare_patients, summary

    source, caches = options.source or options.data / "lgg", options.work / "cache"
    name = options.name or source.resolve().name + (f"-{options.size}" if options.size != GRID else "")
    cases = prepare_patients(source, cache_folder(caches, name), options.size)
    if not options.source:
        prepare_lesions(options.data / "lesions", caches / "lesions")
    print(summary(cases))
    return FINE if any(case.count for case in cases) else NO


def _split(options: argparse.Namespace) -> int:
    from training.data import FOLDS
    from training.splits import write_splits

    for path in write_splits([options.work / "cache" / name for name in options.caches], FOLDS):
        print(path)
    return FINE


def _fit(options: argparse.Namespace) -> int:
    from training.fit import Diverged, fit

    try:
        fit(RECIPES[options.recipe], options.work / "cache", _runs(options), options.resume, options.fold)
    except Diverged as error:
        print(error, file=sys.stderr)
        return NO
    return FINE


def _maps(options: argparse.Namespace) -> int:
    from training.fit import predict_maps

    recipe = RECIPES[options.recipe]
    predict_maps(recipe, options.work / "cache" / recipe.data, _runs(options))
    return FINE


def _evaluate(options: argparse.Namespace) -> int:
    from training.judging import judge_arms, judge_model, unet

    source, cache = options.source or options.data / "lgg", options.work / "cache" / options.cache
    segmentation, runs = RECIPES[options.segmentation], _runs(options)
    recipes = [RECIPES[name] for name in options.arms or ()]
    baseline = None
    if all(recipe.network != "unet" for recipe in recipes):
        try:
            baseline = unet(RECIPES[options.baseline], segmentation, runs)
        except (FileNotFoundError, ValueError) as error:
            logging.warning("No U-Net stands in the table: %s", error)
    if recipes:
        page = judge_arms(recipes, segmentation, source, cache, runs, options.out, baseline)
    else:
        page = judge_model(options.model, source, cache, options.out, baseline)
    print(page)
    return FINE


def _compare(options: argparse.Namespace) -> int:
    from rich.console import Console

    from training.compare import compare, read_arm, table, write_comparison

    found = compare(read_arm(options.a), read_arm(options.b))
    terminal = Console()
    (terminal if terminal.is_terminal else Console(width=WIDE)).print(table(found))
    if options.out:
        write_comparison(found, options.out)
    return FINE


def _export(options: argparse.Namespace) -> int:
    from training.judging import export
    from training.words import OURS, read_words

    synthesis, segmentation = RECIPES[options.synthesis], RECIPES[options.segmentation]
    if not options.words and synthesis.data != "lgg":
        raise ValueError(f"What is to be said of weights learnt from {synthesis.data}? --words FILE.json")
    export(
        options.name,
        synthesis,
        segmentation,
        options.source or options.data / "lgg",
        options.work / "cache",
        _runs(options),
        options.out,
        read_words(options.words) if options.words else OURS,
        RECIPES[options.baseline],
        (RECIPES[options.elsewhere[0]], RECIPES[options.elsewhere[1]]) if options.elsewhere else None,
    )
    return FINE


def _runs(options: argparse.Namespace) -> Path:
    return Path(options.work / "runs")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("build/training"), help="cache and runs lie here")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with lgg/ and lesions/")
    commands = parser.add_subparsers(required=True)

    def command(name: str, run: object, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text)
        added.set_defaults(run=run)
        return added

    prepare = command("prepare", _prepare, "exams to arrays; says which are refused, and why")
    prepare.add_argument(
        "source", type=Path, nargs="?", help="UCSF-PDGM, BraTS or DICOM; else lgg and lesions"
    )
    prepare.add_argument("--name", help="of the cache; else the folder's, and the size unless 120")
    prepare.add_argument("--size", type=int, choices=(120, 240), default=120, help="rows and columns")
    split = command("split", _split, "write who is trained on and who is judged")
    split.add_argument("caches", nargs="+")
    fit = command("fit", _fit, "train by a recipe")
    fit.add_argument("recipe", choices=sorted(RECIPES))
    fit.add_argument("--fold", type=int, help="hold these patients out")
    fit.add_argument("--resume", action="store_true", help="go on where the run stopped")
    maps = command("maps", _maps, "predict, out of fold, the tumour maps that condition the synthesis")
    maps.add_argument("recipe", choices=sorted(RECIPES))
    evaluate = command("evaluate", _evaluate, "judge on patients never seen; write a report")
    evaluate.add_argument("--model", default="default", help="weights that ship, cross-validated")
    evaluate.add_argument("--arms", nargs="+", choices=sorted(RECIPES), help="or runs, beside each other")
    evaluate.add_argument("--segmentation", default="small-outline", choices=sorted(RECIPES))
    evaluate.add_argument("--baseline", default="small-unet", choices=sorted(RECIPES), help="the U-Net")
    evaluate.add_argument("--source", type=Path, help="the exams, as for prepare; else lgg")
    evaluate.add_argument("--cache", default="lgg", help="of the training, for the mean uptake")
    evaluate.add_argument("--out", type=Path, default=Path("build/report"), help="folder of the report")
    compare = command("compare", _compare, "paired tests between two arms of reports")
    compare.add_argument("a", metavar="A", help="REPORT or REPORT:ARM")
    compare.add_argument("b", metavar="B")
    compare.add_argument("--out", type=Path, help="also as JSON")
    export = command("export", _export, "weights of all folds, and the card that vouches for them")
    export.add_argument("synthesis", choices=sorted(RECIPES))
    export.add_argument("segmentation", choices=sorted(RECIPES))
    export.add_argument("--baseline", default="small-unet", choices=sorted(RECIPES), help="the U-Net")
    export.add_argument(
        "--elsewhere",
        nargs=2,
        choices=sorted(RECIPES),
        metavar=("SYNTHESIS", "SEGMENTATION"),
        help="recipes that held an institution out: the card says how they did there",
    )
    export.add_argument("--name", default="small")
    export.add_argument("--source", type=Path, help="the exams, as for prepare; else lgg")
    export.add_argument("--words", type=Path, help="JSON of what the card says of the data (training.words)")
    export.add_argument("--out", type=Path, default=WEIGHTS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
