"""The kinds of event of the world: what each is called, and the words that tell of it.

How a kind looks is in `pictures.LOOKS`, how it sounds in `sounds.VOICES`, under the same name.
"""

from typing import NamedTuple


class Kind(NamedTuple):
    """One class of events.

    Attributes:
        name: the label in every annotation file.
        nouns: what a caption may call the thing.
        sounding, moving: what a caption may say of it, heard and seen.
    """

    name: str
    nouns: tuple[str, ...]
    sounding: tuple[str, ...]
    moving: tuple[str, ...]

    @property
    def prompt(self) -> str:
        """The sentence that stands for the class as text.

        No caption has this form, but all its words except "that" are in captions: to the `hash` text backbone
        "ringing" is as far from "rings" as any other word, so only words met in pretraining mean anything.
        """
        return f"{article(self.nouns[0]).capitalize()} {self.nouns[0]} that {self.sounding[0]} and {self.moving[0]}"


def article(noun: str) -> str:
    return "an" if noun[0] in "aeiou" else "a"


KINDS = (
    Kind("bell", ("bell", "chime"), ("rings", "tolls"), ("swings", "sways")),
    Kind("rotor", ("rotor", "helicopter"), ("chops", "thumps"), ("spins", "whirls")),
    Kind("siren", ("siren", "alarm"), ("wails", "howls"), ("flashes", "blinks")),
    Kind("drum", ("drum", "tabla"), ("beats", "booms"), ("throbs", "pulses")),
    Kind("bird", ("bird", "sparrow"), ("chirps", "sings"), ("flies", "flutters")),
    Kind("engine", ("engine", "motor"), ("roars", "rumbles"), ("shakes", "trembles")),
    Kind("rain", ("rain", "shower"), ("hisses", "patters"), ("falls", "pours")),
    Kind("flute", ("flute", "whistle"), ("plays", "pipes"), ("glides", "drifts")),
    Kind("clock", ("clock", "watch"), ("ticks", "clicks"), ("turns", "runs")),
    Kind("phone", ("phone", "telephone"), ("trills", "buzzes"), ("jitters", "shivers")),
    Kind("saw", ("saw", "chainsaw"), ("screeches", "grinds"), ("cuts", "saws")),
    Kind("fire", ("fire", "flame"), ("crackles", "snaps"), ("flickers", "burns")),
)
