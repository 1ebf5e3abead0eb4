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
        prompt: the sentence that stands for the class as text.
    """

    name: str
    nouns: tuple[str, ...]
    sounding: tuple[str, ...]
    moving: tuple[str, ...]
    prompt: str


KINDS = (
    Kind("bell", ("bell", "chime"), ("rings", "tolls"), ("swings", "sways"), "The clear ringing of a swinging bell"),
    Kind("rotor", ("rotor", "helicopter"), ("chops", "thumps"), ("spins", "whirls"), "The chopping noise of a spinning rotor"),
    Kind("siren", ("siren", "alarm"), ("wails", "howls"), ("flashes", "blinks"), "The wail of a flashing siren"),
    Kind("drum", ("drum", "tabla"), ("beats", "booms"), ("throbs", "pulses"), "The deep beat of a throbbing drum"),
    Kind("bird", ("bird", "sparrow"), ("chirps", "sings"), ("flies", "flutters"), "The bright chirping of a fluttering bird"),
    Kind("engine", ("engine", "motor"), ("roars", "rumbles"), ("shakes", "trembles"), "The low roar of a shaking engine"),
    Kind("rain", ("rain", "shower"), ("hisses", "patters"), ("falls", "pours"), "The steady hiss of falling rain"),
    Kind("flute", ("flute", "whistle"), ("plays", "pipes"), ("glides", "drifts"), "The soft notes of a gliding flute"),
    Kind("clock", ("clock", "watch"), ("ticks", "clicks"), ("turns", "runs"), "The regular ticking of a turning clock"),
    Kind("phone", ("phone", "telephone"), ("trills", "buzzes"), ("jitters", "shivers"), "The sharp trill of a jittering phone"),
    Kind("saw", ("saw", "chainsaw"), ("screeches", "grinds"), ("cuts", "saws"), "The harsh screech of a cutting saw"),
    Kind("fire", ("fire", "flame"), ("crackles", "snaps"), ("flickers", "burns"), "The dry crackle of a flickering fire"),
)
