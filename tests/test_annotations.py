"""Annotation readers: the data sets' own files, and what is odd in them."""

import pickle
import zipfile

import h5py
import numpy as np
import pytest

from hdcid_cli.core.errors import InputError
from hdcid_cli.tasks.annotations import ave, ave2avvp, llp, own, ucf2vgg, ucf51, vggsound
from hdcid_cli.tasks.annotations.clips import AnnotatedClip, AnnotatedEvent, divide, segment_labels

AVE = "Bark&aaaaaaaaaaa&good&0&10\nCat&bbbbbbbbbbb&good&3&5\nBark&ccccccccccc&good&0&0\n"


def write(folder, **files):
    """`write(folder, ave__Annotations_txt="...")`: two underscores are a slash, the last one a dot."""
    for name, text in files.items():
        path = folder / ".".join(name.replace("__", "/").rsplit("_", 1))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def splits(annotations):
    return {clip.id: clip.split for clip in annotations.clips}


# --- AVE ---


@pytest.mark.parametrize(
    "start",
    ["", "Category&VideoID&Quality&StartTime&EndTime\n", "\ufeffCategory&VideoID&Quality&StartTime&EndTime\r\n"],
)
def test_ave_reads_the_same_with_and_without_header(tmp_path, start):
    annotations = ave.read(write(tmp_path, ave__Annotations_txt=start + AVE))
    assert annotations.classes == ("Bark", "Cat")
    assert [(clip.id, clip.label) for clip in annotations.clips] == [
        ("aaaaaaaaaaa", 0),
        ("bbbbbbbbbbb", 1),
        ("ccccccccccc", 0),
    ]
    labels = segment_labels(annotations.clips, 2, 10)
    assert labels[1].argmax(1).tolist() == [2, 2, 2, 1, 1, 2, 2, 2, 2, 2]
    assert labels[2, :, -1].all()  # an empty interval is background


def test_ave_splits_come_from_order_files_set_files_or_a_table(tmp_path):
    expected = {"aaaaaaaaaaa": "test", "bbbbbbbbbbb": "train", "ccccccccccc": "val"}
    by_order, by_sets, by_table = (write(tmp_path / name, Annotations_txt=AVE) for name in ("order", "sets", "table"))
    for split, row in (("test", 0), ("train", 1), ("val", 2)):
        with h5py.File(by_order / f"{split}_order.h5", "w") as file:
            file["order"] = [row]
        (by_sets / f"{split}Set.txt").write_text(AVE.splitlines()[row] + "\n")
    write(
        by_table,
        split_csv="category,video_id,split\nBark,aaaaaaaaaaa,test\nCat,bbbbbbbbbbb,train\nBark,ccccccccccc,validation\n",
    )
    for folder in (by_order, by_sets, by_table):
        assert splits(ave.read(folder)) == expected


def test_ave_names_file_and_line_of_what_is_odd(tmp_path):
    folder = write(
        tmp_path,
        Annotations_txt=AVE + "Cat&ddddddddddd&good&7&2\nCat&bbbbbbbbbbb&good&3&5\n",
        split_csv="category,video_id,split\nCat,unknown,train\n",
    )
    path = folder / "Annotations.txt"
    assert ave.read(folder).problems == [
        f"{path}, line 3: the interval of Bark is empty (at 0 s); it is left out",
        f"{path}, line 4: the interval of Cat is reversed (7 to 2 s); it is left out",
        f"{path}, line 5: clip bbbbbbbbbbb was listed as Cat on line 2 already",
        f"{folder / 'split.csv'}, line 2: clip unknown is not in Annotations.txt",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Bark&x&good&0\n", "line 1: 'Bark&x&good&0' is not Category"),
        ("Bark&x&good&zero&10\n", "line 1: 'zero' is not a time"),
        ("Category&VideoID&Quality&StartTime&EndTime\n", "names no clips"),
    ],
)
def test_ave_file_that_cannot_be_read_is_one_sentence(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        ave.read(write(tmp_path, Annotations_txt=text))


def test_missing_annotations_say_which_file_belongs_where(tmp_path):
    with pytest.raises(InputError, match=r"has no Annotations.txt: put the annotation of AVE there"):
        ave.read(tmp_path)
    with pytest.raises(InputError, match="There is no folder"):
        ave.read(tmp_path / "nowhere")


def test_order_file_of_other_data_is_refused(tmp_path):
    write(tmp_path, Annotations_txt=AVE)
    with h5py.File(tmp_path / "train_order.h5", "w") as file:
        file["order"] = [0, 3]
    with pytest.raises(InputError, match="does not hold row numbers of the 3 lines"):
        ave.read(tmp_path)
    (tmp_path / "train_order.h5").write_text("text")
    with pytest.raises(InputError, match="is not a file of row numbers"):
        ave.read(tmp_path)


# --- LLP ---

LLP = "filename\tonset\toffset\tevent_labels\n"


def test_llp_official_and_combined_files_give_the_same_labels(tmp_path):
    official = write(
        tmp_path / "official",
        AVVP_Categories_txt="Dog\nSpeech\n",
        AVVP_eval_audio_csv=LLP + "x_0_10\t0\t2\tDog\nx_0_10\t1\t4\tSpeech\nx_0_10\t6\t7\tDog\ny_5_15\t0\t10\tSpeech\n",
    )
    combined = write(
        tmp_path / "combined",
        AVVP_Categories_txt="Dog\nSpeech\n",
        AVVP_eval_audio_checked_combined_csv=LLP + "x_0_10\t0,1,6\t2,4,7\tDog,Speech,Dog\ny_5_15\t0\t10\tSpeech\n",
    )
    one, other = llp.read(official, "audio"), llp.read(combined, "audio")
    assert [clip.id for clip in one.clips] == [clip.id for clip in other.clips] == ["x_0_10", "y_5_15"]
    labels = segment_labels(one.clips, 2, 10)
    assert (labels == segment_labels(other.clips, 2, 10)).all()
    assert labels[0].T.astype(int).tolist() == [
        [1, 1, 0, 0, 0, 0, 1, 0, 0, 0],
        [0, 1, 1, 1, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 1, 1, 0, 1, 1, 1],
    ]


def test_llp_names_what_is_odd_and_keeps_the_rest(tmp_path):
    rows = "x_0_10\t0,1,5\t2,4,5\tDog,Dog,Dog\ny_0_10\t3\t1\tDog\nz_0_10\t0\t1\tUnicorn\nx_0_10\t8\t9\tDog\n"
    folder = write(tmp_path, AVVP_Categories_txt="Dog\n", AVVP_eval_audio_checked_combined_csv=LLP + rows)
    annotations = llp.read(folder, "audio")
    assert [problem.split(", line ")[1] for problem in annotations.problems] == [
        "2: clip x_0_10: the interval of Dog, 1 to 4 s, overlaps another of the same class",
        "2: clip x_0_10: the interval of Dog is empty (at 5 s); it is left out",
        "3: clip y_0_10: the interval of Dog is reversed (3 to 1 s); it is left out",
        "4: there is no class 'Unicorn'; the event is left out",
        "5: clip x_0_10 was listed on line 2 already; its events are put together",
    ]
    labels = segment_labels(annotations.clips, 1, 10)
    assert labels[0, :, 0].tolist() == [1, 1, 1, 1, 0, 0, 0, 0, 1, 0]
    assert labels[1:, :, 1].all()


def test_llp_splits_come_from_the_official_lists(tmp_path):
    folder = write(
        tmp_path,
        AVVP_Categories_txt="Dog\n",
        AVVP_eval_visual_csv=LLP + "x_0_10\t0\t2\tDog\ny_0_10\t1\t4\tDog\nz_0_10\t1\t4\tDog\n",
        AVVP_val_pd_csv="filename\tevent_labels\nx_0_10\tDog\n",
        AVVP_test_pd_csv="filename\tevent_labels\ny_0_10\tDog\n",
    )
    annotations = llp.read(folder, "video")
    assert splits(annotations) == {"x_0_10": "val", "y_0_10": "test", "z_0_10": None}
    assert annotations.problems[0].endswith("line 4: clip z_0_10 is in none of the lists of splits")


def test_llp_lists_of_unequal_length_are_refused(tmp_path):
    folder = write(tmp_path, AVVP_Categories_txt="Dog\n", AVVP_eval_audio_csv=LLP + "x_0_10\t0,1\t2\tDog\n")
    with pytest.raises(InputError, match="line 2: 2 onsets, 1 offset and 1 event"):
        llp.read(folder, "audio")


# --- AVE to AVVP, UCF to VGGSound, VGGSound-AVEL ---


def test_shared_classes_are_found_by_name(tmp_path):
    folder = write(
        tmp_path,
        ave__Annotations_txt="Bark&a&good&0&10\nViolin, fiddle&b&good&0&1\nShofar&c&good&0&10\n",
        avvp__AVVP_Categories_txt="Speech\nViolin_fiddle\nDog\n",
        avvp__AVVP_eval_audio_csv=LLP + "x_0_10\t0\t2\tSpeech\nx_0_10\t3\t4\tDog\ny_0_10\t1\t4\tSpeech\n",
    )
    source, target = ave2avvp.read(folder, "audio")
    assert source.classes == target.classes == ("Violin_fiddle", "Dog")
    assert [(clip.id, clip.label) for clip in source.clips] == [("a", 1), ("b", 0)]
    assert [(clip.id, clip.events) for clip in target.clips] == [("x_0_10", [AnnotatedEvent(1, 3, 4)])]


def test_data_sets_that_share_videos_share_their_splits(tmp_path):
    folder = write(
        tmp_path,
        ave__Annotations_txt="Bark&a&good&0&10\nBark&b&good&0&10\n",
        ave2avvp__AVE_AVVP_Categories_txt="Dog\n",
        ave2avvp__AVE_AVVP_eval_audio_checked_csv=LLP + "a_0_10\t0\t2\tDog\nb_0_10\t3\t4\tDog\nc_0_10\t3\t4\tDog\n",
        split_csv="category,video_id,split\nDog,a,train\nDog,b,test\n",
    )
    source, target = ave2avvp.read(folder, "audio")
    assert [clip.split for clip in source.clips] == ["train", "test"]
    assert [clip.split for clip in target.clips] == ["train", "test", None]


def test_ucf_groups_stay_together_and_classes_are_paired_by_line(tmp_path):
    folder = write(
        tmp_path,
        ucf_vgg__UCF101sameVGGSound_txt="Skiing\nBowling\tbowling",
        ucf_vgg__VGGSoundsameUCF101_txt="skiing\nbowling impact",
        ucf_vgg__ucf2vggsound_csv="category,video_id\nBowling,v_Bowling_g08_c01\nBowling,v_Bowling_g08_c02\nSkiing,v_Skiing_g07_c01\n",
        ucf_vgg__vggsound2ucf_csv="category,video_id,split\nbowling impact,abc,test\n",
    )
    ucf, vgg = ucf2vgg.read_ucf(folder), ucf2vgg.read_vggsound(folder)
    assert ucf.classes == vgg.classes == ("skiing", "bowling impact")
    assert [(clip.label, clip.group, clip.split) for clip in ucf.clips] == [
        (1, "v_Bowling_g08", "train"),
        (1, "v_Bowling_g08", "train"),
        (0, "v_Skiing_g07", "test"),
    ]
    assert [(clip.id, clip.label, clip.split) for clip in vgg.clips] == [("abc", 1, "test")]


def test_vggsound_names_unknown_classes_and_repeated_clips(tmp_path):
    folder = write(
        tmp_path,
        VggsoundAVEL40kCategories_txt="zither\n",
        **{"vggsound-avel40k_csv": "category,video_id,split\nzither,a,train\nkazoo,b,val\nzither,a,test\n"},
    )
    annotations = vggsound.read(folder)
    assert splits(annotations) == {"a": "train"}
    assert [problem.split(", line ")[1] for problem in annotations.problems] == [
        "3: there is no class 'kazoo'; clip b is left out",
        "4: clip a was listed on line 2 already; this line is left out",
    ]


def test_vggsound_times_come_from_zipped_arrays_or_from_the_table(tmp_path):
    table = "category,video_id,split\nzither,a,train\nzither,b,val\nzither,c,val\n"
    folder = write(tmp_path, VggsoundAVEL40kCategories_txt="zither\n", **{"vggsound-avel40k_csv": table})
    assert vggsound.read(folder).timed.clips == []
    (folder / "labels").mkdir()
    for name, active in (("a", [0, 1, 1, 0, 0, 0, 0, 0, 0, 1]), ("b", [0] * 10)):
        with zipfile.ZipFile(folder / "labels" / f"{name}.zip", "w") as archive:
            archive.writestr(f"{name}.pkl", pickle.dumps(np.array(active, float)))
    annotations = vggsound.read(folder)
    assert [(clip.id, clip.events) for clip in annotations.timed.clips] == [
        ("a", [AnnotatedEvent(0, 1, 3), AnnotatedEvent(0, 9, 10)]),
        ("b", []),
    ]
    assert "line 4" in annotations.problems[0] and "c.zip is missing" in annotations.problems[0]

    (folder / "vggsound-avel40k.csv").write_text(
        "category,video_id,split,onset,offset\nzither,d,train,2,5\nzither,e,train,,\n"
    )
    assert [clip.events for clip in vggsound.read(write(folder)).clips] == [[AnnotatedEvent(0, 2, 5)], None]


# --- a user's own table ---


def test_own_table_localises_several_events_a_clip(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("id,split,label,onset,offset\na,train,dog,0.2,2.9\na,train,cat,1,3\nb,test,,,\n")
    annotations = own.read_localise(path)
    assert annotations.classes == ("cat", "dog")
    assert splits(annotations) == {"a": "train", "b": "test"}
    labels = segment_labels(annotations.clips, 2, 4)
    assert labels[0].T.astype(int).tolist() == [[0, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 1]]
    assert labels[1, :, -1].all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,label\na,dog\n", "has no column 'split'"),
        ("id,split,label\na,train\n", "line 2: 2 cells where the header has 3"),
        ("id,split,label\na,sometimes,dog\n", "line 2: there is no split 'sometimes'"),
        ("id,split,label\na,train,dog\na,test,dog\n", "line 3: clip a is in split test here and in train on line 2"),
        ("id,split,label\na,train,\n", "names no class"),
        ("", "is empty"),
    ],
)
def test_own_table_that_cannot_be_used_is_one_sentence(tmp_path, text, message):
    path = tmp_path / "mine.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        own.read_classify(path)


def test_a_table_of_classes_is_not_taken_for_one_of_times(tmp_path):
    (tmp_path / "classify.csv").write_text("id,split,label\na,train,x\n")
    with pytest.raises(InputError, match=r"no table of labels .*localise\.csv: make it with .*label,onset,offset, or"):
        own.read_localise(tmp_path)
    (tmp_path / "times.csv").write_text("id,split,label,onset,offset\na,train,x,0,1\n")
    assert own.read_localise(tmp_path).source.name == "times.csv"


# --- division and segments ---


def test_division_keeps_groups_together_and_is_always_the_same():
    clips = [AnnotatedClip(f"{group}_{i}", group=f"{group}") for group in range(20) for i in range(3)]
    rest, aside = divide(clips)
    assert len(aside) == 12 and not {clip.group for clip in aside} & {clip.group for clip in rest}
    assert divide(clips[::-1])[1] == aside[::-1]
    assert divide(clips[:1]) == (clips[:1], [])  # nothing can be set aside


def test_segments_of_other_lengths_go_by_their_middle():
    clip = AnnotatedClip("x", events=[AnnotatedEvent(0, 1.0, 2.0)])
    assert segment_labels([clip], 1, 6, seconds=0.5)[0, :, 0].tolist() == [0, 0, 1, 1, 0, 0]
    assert segment_labels([clip], 1, 2, seconds=3.0)[0, :, 0].tolist() == [1, 0]


# --- the real files ---


def test_ave2avvp_labels_equal_the_published_ones(shared):
    folder = shared / "annotations"
    source, target = ave2avvp.read(folder, "audio")
    with (
        h5py.File(folder / "ave_avvp" / "ave_avvp_order.h5") as order,
        h5py.File(folder / "ave_avvp" / "ave_avvp_labels.h5") as labels,
    ):
        expected = labels["avadataset"][:][order["order"][:]]
    assert (segment_labels(source.clips, 12, 10) == expected).all()
    assert len(target.clips) == 1085


def test_ave_noisy_labels_are_those_of_clips_without_events(shared):
    with h5py.File(shared / "ave_features" / "labels_noisy.h5") as file:
        published = file["avadataset"][:]
    clips = [AnnotatedClip(str(row)) for row in range(len(published))]
    assert (segment_labels(clips, 28, 10).max(1) == published).all()


def test_real_ave_has_the_published_splits(shared):
    annotations = ave.read(shared / "annotations")
    sizes = [sum(clip.split == name for clip in annotations.clips) for name in ("train", "val", "test")]
    assert (len(annotations.classes), sizes) == (28, [3339, 402, 402])
    assert len(annotations.problems) == 1 and "line 27: the interval of Church bell is empty" in annotations.problems[0]


def test_real_llp_row_with_several_events(shared):
    """Line 96: `Ishr8cHsJkc_180_190`, onsets 5,7,1,3,8,5,7, offsets 6,8,2,4,10,6,8,
    Speech,Speech,Dog,Dog,Dog,Speech,Speech.
    """
    annotations = llp.read(shared / "annotations", "audio")
    row = [clip.id for clip in annotations.clips].index("Ishr8cHsJkc_180_190")
    labels = segment_labels(annotations.clips[row : row + 1], 25, 10)[0]
    speech, dog = (annotations.classes.index(name) for name in ("Speech", "Dog"))
    assert np.flatnonzero(labels[:, speech]).tolist() == [5, 7]
    assert np.flatnonzero(labels[:, dog]).tolist() == [1, 3, 8, 9]
    assert np.flatnonzero(labels[:, -1]).tolist() == [0, 2, 4, 6]


def test_real_llp_official_and_combined_files_agree(shared):
    """The combined files are a checked edition: all but a few clips are the same."""
    folder = shared / "annotations" / "avvp"
    classes = llp.read(folder, "video").classes
    official, combined = (llp.read_events(folder / name, classes) for name in reversed(llp.FILES["video"]))
    ours = {clip.id: segment_labels([clip], 25, 10) for clip in official.clips}
    same = [np.array_equal(ours[clip.id], segment_labels([clip], 25, 10)) for clip in combined.clips if clip.id in ours]
    assert len(same) > 1600 and np.mean(same) > 0.99


def test_other_real_annotations_are_read_whole(shared):
    folder = shared / "annotations"
    assert [len(ucf2vgg.read_ucf(folder).clips), len(ucf2vgg.read_vggsound(folder).clips)] == [2003, 4813]
    found = vggsound.read(folder)
    assert (len(found.clips), len(found.classes), found.problems) == (40801, 141, [])


def test_ucf51_is_ucf101s_own_split_without_the_classes_that_have_no_sound(tmp_path):
    folder = tmp_path / "ucf51" / "ucfTrainTestlist"
    folder.mkdir(parents=True)
    train = ["Archery/v_Archery_g08_c01.avi 3", "Biking/v_Biking_g08_c01.avi 11", "", "Archery/v_Archery_g08_c01.avi 3"]
    (folder / "trainlist01.txt").write_text("\r\n".join(train))
    (folder / "testlist01.txt").write_text("HandstandPushups/v_HandStandPushups_g01_c02.avi\n")
    found = ucf51.read(tmp_path)
    assert [(clip.id, clip.split, clip.group, found.classes[clip.label]) for clip in found.clips] == [
        ("v_Archery_g08_c01", "train", "v_Archery_g08", "Archery"),
        ("v_HandStandPushups_g01_c02", "test", "v_HandStandPushups_g01", "HandstandPushups"),
    ]
    assert len(found.classes) == 51 and len(found.problems) == 1 and "line 4" in found.problems[0]
    (folder / "Categories.txt").write_text("HandstandPushups\nArchery\n")
    assert ucf51.read(tmp_path).classes == ("HandstandPushups", "Archery")
    (folder / "trainlist01.txt").write_text("v_Archery_g08_c01.avi 3\n")
    with pytest.raises(InputError, match=r"trainlist01.txt, line 1: 'v_Archery_g08_c01.avi 3' is not CLASS/CLIP.avi"):
        ucf51.read(tmp_path)
