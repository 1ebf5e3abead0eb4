"""`python -m hdcid_cli` is `hdcid`; `torchrun -m hdcid_cli` starts it on several processes."""

from hdcid_cli.main import main

if __name__ == "__main__":
    main()
