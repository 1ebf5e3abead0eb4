"""Cross-modal generalisation: a small decoder learns a task on one modality and is tested on another.

tasks.py      what tasks there are
protocol.py   what a task is; which clips it learns on and is tested on, and for how long
reading.py    what the decoder reads: a model's codes, or raw features (inputs.py: of one modality)
probe.py      the decoder, its losses, and how it learns
trial.py      a task with all that its probes see; what a probe answers
scores.py     the metrics, and what chance gets (parsing.py: LLP's of both modalities)
run.py        all of it to records (timelines.py: the events of single clips)
"""
