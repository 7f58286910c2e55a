"""Names, tones, captions and splits of the emoji set: pure functions, no pictures."""

import hashlib
import re
from dataclasses import dataclass

STYLES = ("google", "twitter", "fluent")
TONES = {
    "1F3FB": "light",
    "1F3FC": "medium-light",
    "1F3FD": "medium",
    "1F3FE": "medium-dark",
    "1F3FF": "dark",
}
TEMPLATES = (
    "{subject} in {style} style",
    "a {style} style emoji of {subject}",
    "{style} {subject}",
    "{subject}, drawn as {style} emoji",
    "an emoji of {subject} in the style of {style}",
)

SPLITS = ("train", "validation", "heldout_style", "heldout_tone")
# Part of every hash below. A new value is a new set of splits: raise the builder's
# version with it.
SPLIT_SEED = 2022
VALIDATION_BELOW = 0.05
HELDOUT_STYLE_BELOW = 0.10
HELDOUT_TONE_BELOW = 0.20

# emoji.json calls both 1F935 and its male form "MAN IN TUXEDO"; Unicode calls the
# first one so.
RENAMED = {"1F935": "person in tuxedo"}

# Names that share a picture to the last pixel in at least one of the three sets. They
# go to the same split, or a held-out picture would be in training under another name.
TWINS = (
    ("australia flag", "heard & mcdonald islands flag"),
    ("british indian ocean territory flag", "diego garcia flag"),
    ("cat face", "smiling cat face with open mouth"),
    ("france flag", "clipperton island flag", "st. martin flag"),
    ("norway flag", "bouvet island flag", "svalbard & jan mayen flag"),
    ("saudi arabia flag", "sark flag"),
    ("spain flag", "ceuta & melilla flag"),
    ("united states flag", "u.s. outlying islands flag"),
    ("woman", "woman with blond hair"),
)
_FIRST_TWIN = {name: twins[0] for twins in TWINS for name in twins}


@dataclass(frozen=True)
class Emoji:
    """One emoji in one skin tone; each style may have a picture of it."""

    code: str  # code points, e.g. "1F44B-1F3FD"
    name: str  # without tone, e.g. "waving hand sign"
    tone: str  # "", "medium skin tone" or "light and dark skin tones"
    category: str
    synonyms: tuple
    image: str  # file name in the Google and Twitter packages


def normal_code(code):
    """The code point sequence by which the three sets are matched.

    Fluent's file names leave out or add the variation selector FE0F and the cancel tag
    E007F, pad with zeros or not, and join tags by underscores.

    >>> normal_code("0023-FE0F-20E3")
    '23-20e3'
    """
    parts = code.lower().replace("_", "-").split("-")
    return "-".join(p.lstrip("0") for p in parts if p not in ("fe0f", "e007f"))


def tidy_name(name):
    """A name of emoji.json as a person would write it.

    >>> tidy_name("RED APPLE")
    'red apple'
    >>> tidy_name("FAMILY: MAN, WOMAN, BOY")
    'family of man, woman and boy'
    >>> tidy_name("MAN: RED HAIR")
    'man with red hair'
    """
    name = " ".join(name.lower().split())
    name = re.sub(r"\boclock\b", "o'clock", name)
    name = re.sub(
        r"cjk unified ideograph-([0-9a-f]+)",
        lambda match: f"ideograph {chr(int(match[1], 16))}",
        name,
    )
    head, colon, rest = name.partition(": ")
    if not colon:
        return name
    if head == "keycap":
        return f"keycap {rest}"
    if rest == "bald":
        return f"bald {head}"
    if head in ("man", "woman", "person"):
        return f"{head} with {rest}"
    first, comma, last = rest.rpartition(", ")
    return f"{head} of {first} and {last}" if comma else f"{head} of {rest}"


def tone_text(modifiers):
    """Words for the modifiers of a skin variation.

    >>> tone_text("1F3FD"), tone_text("1F3FB-1F3FF")
    ('medium skin tone', 'light and dark skin tones')
    """
    words = list(dict.fromkeys(TONES[part] for part in modifiers.split("-")))
    return " and ".join(words) + (" skin tone" if len(words) == 1 else " skin tones")


def parse(entries):
    """All emoji of the parsed `emoji.json`, one for each skin tone, in file order.

    `short_names`, the tags of emoji.json, become synonyms, unless they are the name or
    could mean another emoji ("cat" is a tag of CAT FACE and the name of CAT).
    """
    names = [RENAMED.get(e["unified"]) or tidy_name(e["name"]) for e in entries]
    tags = [
        [re.sub(r"[-_]+", " ", tag).strip() for tag in e["short_names"]]
        for e in entries
    ]
    taken = set(names)
    for own in tags:
        # "cat2" is only a number after another emoji's tag.
        taken |= {re.sub(r"\d$", "", tag) for tag in own if re.search(r"[a-z]\d$", tag)}
    emojis = []
    for entry, name, own in zip(entries, names, tags, strict=True):
        synonyms = tuple(
            tag
            for tag in dict.fromkeys(own)
            if tag not in taken and not re.search(r"[a-z]\d$", tag)
        )
        forms = [("", entry), *(entry.get("skin_variations") or {}).items()]
        for modifiers, form in forms:
            emojis.append(
                Emoji(
                    code=form["unified"],
                    name=name,
                    tone=tone_text(modifiers) if modifiers else "",
                    category=entry["category"],
                    synonyms=synonyms,
                    image=form["image"],
                )
            )
    return emojis


def subject(name, tone):
    """Name and tone together, e.g. "waving hand sign with medium skin tone"."""
    if not tone:
        return name
    return f"{name} {'and' if ' with ' in name else 'with'} {tone}"


def captions(name, tone, style, templates=TEMPLATES):
    """All captions of a picture under one name; the canonical one is the first."""
    words = subject(name, tone)
    return [template.format(subject=words, style=style) for template in templates]


def synonym_captions(emoji, style):
    """The captions that call the emoji by its synonyms, canonical wording first."""
    return [
        text
        for template in TEMPLATES
        for synonym in emoji.synonyms
        for text in captions(synonym, emoji.tone, style, (template,))
    ]


def split_group(name):
    """Names of one group always share their split, since they share pictures.

    Beside `TWINS`, these are the families, drawn as a few silhouettes, and the mirrored
    copies "... facing right".
    """
    if name == "family" or name.startswith("family of "):
        return "family"
    name = name.removesuffix(" facing right")
    return _FIRST_TWIN.get(name, name)


def uniform(*words):
    """A number in [0, 1) that depends on the words and `SPLIT_SEED` alone."""
    text = "\n".join((str(SPLIT_SEED), *words))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7]) / 2**56


def _choice(kind, group, options):
    return options[int(uniform(kind, group) * len(options))]


def split_of(name, style, tone, styles, tones):
    """The split of one picture, decided by its name's group.

    - u < 0.05: every picture of the name is validation.
    - u < 0.10, where the name has two styles or more: one style of it, all tones, is
      `heldout_style`; its other styles train.
    - u < 0.20, where the name has plain single tones: one tone of it, in all styles, is
      `heldout_tone`; its other tones train. Names that also have variants of two tones
      are passed over, since such a variant would show the held-out tone in training.

    Args:
        name: the emoji's name, without tone.
        style: the picture's style.
        tone: the picture's tone, "" for none.
        styles: the styles in which the name has pictures.
        tones: the tones in which the name has pictures, "" among them.

    Returns:
        One of `SPLITS`.
    """
    group = split_group(name)
    u = uniform("split", group)
    if u < VALIDATION_BELOW:
        return "validation"
    if u < HELDOUT_STYLE_BELOW:
        ordered = [each for each in STYLES if each in styles]
        if len(ordered) >= 2 and style == _choice("style", group, ordered):
            return "heldout_style"
    elif u < HELDOUT_TONE_BELOW:
        single = [f"{word} skin tone" for word in TONES.values()]
        if set(tones) == {"", *single} and tone == _choice("tone", group, single):
            return "heldout_tone"
    return "train"
