"""``python -m precomputed_store``: the command line, where no script is on the PATH."""

from precomputed_store.cli import main

if __name__ == "__main__":
    main(prog_name="precomputed")
