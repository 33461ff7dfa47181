"""Reference numbers of training, on the small models of ../models, by Transformers, TRL and PEFT.

    python make_train.py [grads] [sft] [lora] [dpo] [ppo]

writes the named parts (all without a name) beside itself; each part's file says what it writes. On
the CPU, in float32 with eager attention, dropout off, two threads: the numbers of two runs agree
to about 1e-6. GPT-2's dropout is off here although its config.json has it on. Texts of numbers
are Python's shortest that read back to the same double.
"""

import argparse
import importlib

PARTS = ["grads", "sft", "lora", "dpo", "ppo"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS) + "; all")
    args = parser.parse_args()
    for part in args.parts or PARTS:
        if part not in PARTS:
            parser.error(f"unknown part {part}; expected one of {', '.join(PARTS)}")
        importlib.import_module(part).make()


if __name__ == "__main__":
    main()
