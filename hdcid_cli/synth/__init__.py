"""The small audio-visual world of `hdcid synth`: videos with sound, and the truth about them.

world.py         what happens in which clip: a plan made from the seed alone
classes.py       the kinds of event: their names and words
pictures.py      a plan to frames and masks
sounds.py        a plan to a sound track
media.py         frames and samples to mp4 and WAV files
annotations.py   a plan to the data sets' own annotation files
make.py          all of it to a folder, by several processes, resumable
"""
