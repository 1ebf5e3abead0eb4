"""Segmentation: the pixels that a sound or a sentence names (AVSBench-S4; paper, Table 4 and Fig. 4).

avsbench.py    the data set's folders, pictures and masks
augment.py     mirrored and cropped training pictures
queries.py     codes of a clip to one query vector a frame
backbones.py   picture encoders (PVT-v2, ResNet) of transformers
tpavi.py       the block in which a query marks pixels
decoder.py     stages, fusion and head around it
settings.py    what may be chosen about its training
segmenter.py   all of that as one model, with its configuration
metrics.py     mIoU and F-score as AVSBench defines them
training.py    the loop, resumable at any step
directory.py   a trained segmenter on disk
evaluation.py  a trained segmenter on a split, and records of the result
overlay.py     pictures of what it found
predict.py     a user's own clip and query
"""
