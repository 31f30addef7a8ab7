"""`python -m training prepare | fit RECIPE | maps RECIPE | evaluate | export`."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path

import torch

from training.recipes import RECIPES

WEIGHTS = Path(__file__).resolve().parents[1] / "synthesis" / "weights"
DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("build/training"), help="cache and runs lie here")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with lgg/ and lesions/")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("prepare", help="DICOM and patches to arrays")
    fit_parser = commands.add_parser("fit", help="train by a recipe")
    fit_parser.add_argument("recipe", choices=sorted(RECIPES))
    fit_parser.add_argument("--resume", action="store_true", help="go on where the run stopped")
    maps_parser = commands.add_parser("maps", help="predict the tumour maps that condition the synthesis")
    maps_parser.add_argument("recipe", choices=sorted(RECIPES))
    evaluate_parser = commands.add_parser("evaluate", help="figures of the held-out patients")
    evaluate_parser.add_argument("--model", default="default")
    export_parser = commands.add_parser("export", help="weights and card for synthesis/weights")
    export_parser.add_argument("synthesis", choices=sorted(RECIPES))
    export_parser.add_argument("segmentation", choices=sorted(RECIPES))
    export_parser.add_argument("--name", default="small")
    export_parser.add_argument("--out", type=Path, default=WEIGHTS)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    cache, runs = options.work / "cache", options.work / "runs"
    try:
        _run(options, cache, runs)
    except (FileExistsError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _run(options: argparse.Namespace, cache: Path, runs: Path) -> None:
    if options.command == "prepare":
        from training.prepare import prepare_lesions, prepare_patients

        prepare_patients(options.data / "lgg", cache / "lgg")
        prepare_lesions(options.data / "lesions", cache / "lesions")
    elif options.command == "fit":
        from training.fit import fit

        fit(RECIPES[options.recipe], cache, runs, options.resume)
    elif options.command == "maps":
        from training.fit import network, predict_maps

        net = network(RECIPES[options.recipe])
        net.load_state_dict(torch.load(runs / f"{options.recipe}.pt", weights_only=True)["average"])
        predict_maps(net, cache / "lgg")
    elif options.command == "evaluate":
        from synthesis.models.load import load_model
        from training.data import split
        from training.evaluate import evaluate

        print(json.dumps(evaluate(options.data / "lgg", split()[1], load_model(options.model)), indent=1))
    elif options.command == "export":
        from training.export import export

        chosen = RECIPES[options.synthesis], RECIPES[options.segmentation]
        export(options.data / "lgg", cache, runs, options.out, options.name, *chosen)


if __name__ == "__main__":
    sys.exit(main())
