#!/usr/bin/env python3
"""A model that Adder saved opens unchanged in transformers and gives the same logits and loss.

  bench/check_transformers.py --adder build/release/bin/adder --model out/shakespeare/model

Needs torch, transformers and safetensors; only this comparison does, never the build. Exits 1 when
the largest difference of the logits over their largest magnitude exceeds --tolerance.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--adder", required=True, help="the binary")
    parser.add_argument("--model", required=True, help="a directory that Adder saved")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--len", type=int, default=48)
    parser.add_argument("--tolerance", type=float, default=1e-5)
    return parser.parse_args()


def adder_answers(arguments, ids):
    from safetensors.torch import load_file, save_file

    with tempfile.TemporaryDirectory() as folder:
        save_file({"input_ids": ids}, f"{folder}/ids")
        subprocess.run(
            [arguments.adder, "logits", "--model", arguments.model, "--input", f"{folder}/ids",
             "--output", f"{folder}/out", "--dtype", "f64"], check=True)
        return load_file(f"{folder}/out")


def main():
    arguments = parse()
    import torch
    from transformers import AutoModelForCausalLM

    model, report = AutoModelForCausalLM.from_pretrained(
        arguments.model, output_loading_info=True, dtype=torch.float64)
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report[kind]:
            sys.exit(f"transformers: {kind}: {report[kind]}")
    torch.manual_seed(0)
    ids = torch.randint(0, model.config.vocab_size, (arguments.batch, arguments.len))
    with torch.no_grad():
        theirs = model(input_ids=ids, labels=ids)
    ours = adder_answers(arguments, ids)
    off = ((ours["logits"] - theirs.logits).abs().max() / theirs.logits.abs().max()).item()
    loss = abs(ours["loss"].item() / theirs.loss.item() - 1)
    print(f"{Path(arguments.model)}: {type(model).__name__}, logits differ by {off:.1e}, "
          f"loss by {loss:.1e} (relative; at most {arguments.tolerance:.0e})")
    sys.exit(0 if max(off, loss) <= arguments.tolerance else 1)


if __name__ == "__main__":
    main()
