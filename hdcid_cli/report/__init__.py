"""Records to tables and pictures: what `hdcid report` computes, usable without the command line."""
