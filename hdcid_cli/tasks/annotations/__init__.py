"""Readers of the data sets' own annotation files, one module a data set.

All of them return `clips.Annotations`: which clips there are, in which split, and
what happens when. Whatever is odd in a file is kept as a sentence with its line.
"""
