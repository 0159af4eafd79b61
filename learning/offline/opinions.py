"""Opinions on films, books, meals, places and people, made from a lexicon; only for pretraining.

Documentation judges nothing, so an encoder that has read only documentation takes "tender" and
"tedious" for the same word. Here words of praise occur with praise and words of blame with blame,
through negation, contrast and concession, in texts of one to six sentences. A text carries no
label, and nothing is trained or judged on it but the prediction of its own words.

In the data path: read by `learning.offline.encoder_pretraining`, beside the texts of
`learning.offline.training_texts`. The texts are training data: a changed character makes another
base model.
"""

# ruff: noqa: SIM905  (word lists read better as lines of words than as a column of quotes)

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random

_SLOT = re.compile(r"\{(\w+)\}")
_VOWEL = re.compile(r"\ba (?=[aeio]|u(?!ni[tq]|se)|hon)")  # an honest, an ugly; a unique, a useless


@dataclass(frozen=True)
class _Subject:
    """Something that people judge: names, parts (one, many), what it is about, if anything."""

    names: tuple[str, ...]
    part: tuple[str, ...]
    parts: tuple[str, ...]
    about: tuple[str, ...]


_THEMES = tuple(
    "love/war/family/grief/friendship/power/money/growing up/growing old/revenge/loneliness/"
    "memory/faith/small town life/the sea/marriage/justice/hope/freedom/a crime/a journey/"
    "a father and his son/two sisters/a teacher/a stranger/a soldier/an artist/survival/"
    "identity/history/politics/young people/desire/violence/the human heart".split("/")
)
_SUBJECTS = (
    _Subject(
        tuple(
            "film/movie/picture/comedy/drama/thriller/documentary/romance/horror film/war film/"
            "action movie/love story/sequel/remake/animated film/mystery/feature/debut/"
            "romantic comedy/character study/satire/epic/western/adventure/musical".split("/")
        ),
        tuple(
            "story/plot/script/acting/cast/direction/director/ending/dialogue/camera work/"
            "editing/soundtrack/score/pacing/premise/screenplay/humor/humour/leading man/heroine/"
            "hero/villain/performance/opening/final act/action/cinematography/tone/"
            "subject matter/narrative/emotion/suspense/drama/comedy/romance/material/"
            "filmmaking/storytelling".split("/")
        ),
        tuple(
            "performances/characters/special effects/scenes/jokes/visuals/images/actors/lines/"
            "moments/laughs/songs/performers".split("/")
        ),
        _THEMES,
    ),
    _Subject(
        tuple("book/novel/tale/story/play/memoir/album/song/show/series/concert/poem".split("/")),
        tuple(
            "plot/writing/style/ending/first chapter/language/voice/melody/mood/rhythm/author/"
            "writer/singer/energy/passion".split("/")
        ),
        ("characters", "lyrics", "themes", "ideas", "details", "words"),
        _THEMES,
    ),
    _Subject(
        tuple("restaurant/café/meal/dinner/dish/kitchen/bakery/lunch/bar".split("/")),
        tuple(
            "food/soup/bread/service/waiter/wine/coffee/dessert/menu/staff/sauce/taste/"
            "atmosphere/steak/salad/price".split("/")
        ),
        ("waiters", "vegetables", "prices", "cakes", "drinks"),
        (),
    ),
    _Subject(
        tuple("hotel/city/town/museum/park/beach/house/room/village/trip/holiday".split("/")),
        tuple(
            "view/weather/bed/garden/location/guide/staff/noise/light/furniture/air/"
            "experience".split("/")
        ),
        ("people", "streets", "rooms", "surroundings", "shops"),
        (),
    ),
    _Subject(
        tuple("teacher/doctor/neighbor/friend/guest/actor/actress/leader/team/boss".split("/")),
        tuple(
            "manner/voice/work/advice/smile/sense of humor/temper/presence/charm/face/honesty/"
            "patience".split("/")
        ),
        ("answers", "ideas", "eyes", "manners"),
        (),
    ),
)

_COMMON = {
    "very": tuple(
        "very/really/truly/quite/so/utterly/thoroughly/deeply/absolutely/remarkably/"
        "surprisingly/simply/always/completely/at times/consistently/often/extremely/too often/"
        "pretty/genuinely/entirely/undeniably/especially".split("/")
    ),
    "who": tuple(
        "i/we/you/the audience/viewers/most people/everyone/my wife/my friends/the kids/fans/"
        "critics/anyone/adults/children/the whole family/nobody else".split("/")
    ),
    "time": tuple(
        "from start to finish/for two hours/in the end/from the first minute/after a while/"
        "for most of its length/at every turn/to the last moment/this year/once again/"
        "from beginning to end/all the way through/in the second half/along the way".split("/")
    ),
    "though": tuple(
        "but/yet/and yet/though/although/even if/while/despite the fact that".split("/")
    ),
}

_GOOD = {
    "adj": tuple(
        "good great excellent wonderful brilliant beautiful lovely charming funny hilarious witty "
        "clever smart intelligent sharp fresh original inventive imaginative creative moving "
        "touching tender warm heartfelt sincere honest genuine gentle sweet delightful enjoyable "
        "entertaining engaging compelling gripping thrilling exciting absorbing fascinating "
        "memorable unforgettable powerful strong stunning gorgeous elegant graceful subtle deep "
        "rich vivid lively joyful cheerful playful pleasant perfect superb splendid magnificent "
        "terrific fantastic amazing outstanding exceptional remarkable impressive masterful "
        "inspiring uplifting thoughtful wise provocative daring bold ambitious fine solid "
        "satisfying rewarding worthwhile refreshing captivating enchanting magical haunting "
        "poignant bittersweet affectionate compassionate humane intimate nuanced understated "
        "polished skillful assured confident convincing believable authentic realistic riveting "
        "suspenseful dazzling spectacular breathtaking delicious friendly generous kind "
        "likable appealing winning irresistible hypnotic lyrical poetic profound insightful "
        "perceptive illuminating endearing amusing comic quirky stylish visceral energetic "
        "accomplished absorbing eloquent timeless triumphant".split()
    ),
    "noun": tuple(
        "joy delight pleasure treat triumph success masterpiece gem treasure surprise wonder "
        "achievement winner blessing inspiration celebration feast classic marvel "
        "revelation success".split()
    ),
    "quality": tuple(
        "charm wit warmth heart humor intelligence grace style passion honesty depth energy "
        "imagination beauty insight tenderness compassion skill flair sincerity originality "
        "spirit soul power truth magic feeling sensitivity elegance courage wisdom "
        "conviction".split()
    ),
    "does": tuple(
        "works/succeeds/shines/soars/delights/moves us/touches the heart/holds your attention/"
        "rings true/pays off/makes you laugh/makes you think/stays with you/surprises/inspires/"
        "sparkles/charms/delivers/captures the imagination/earns its tears/"
        "lifts the spirits/finds its way/comes alive/hits the mark/gets everything right/"
        "keeps you on the edge of your seat/brings a smile to your face".split("/")
    ),
    "did": tuple(
        "loved/enjoyed/liked/admired/adored/cherished/applauded/appreciated/will remember/"
        "laughed with/was moved by/recommended/was charmed by/was thrilled by".split("/")
    ),
    "how": tuple(
        "well beautifully brilliantly perfectly skillfully wonderfully cleverly gracefully "
        "honestly tenderly elegantly superbly vividly nicely smartly sensitively".split()
    ),
    "verdict": tuple(
        "do not miss it/it is worth every minute/it is well worth seeing/highly recommended/"
        "one of the best of the year/go and see it/i would gladly go again/"
        "it deserves a large audience/it could hardly be better/there is nothing to regret/"
        "what a pleasure/it is a must/it left me smiling/it is time well spent/thank you/"
        "five stars/it gets better with every visit/it made my day".split("/")
    ),
}
_BAD = {
    "adj": tuple(
        "bad terrible awful horrible dreadful boring dull tedious tiresome slow lifeless flat "
        "bland empty hollow shallow thin weak poor stupid silly dumb foolish absurd ridiculous "
        "ludicrous pointless mindless senseless worthless useless predictable formulaic "
        "unoriginal stale tired routine generic forgettable mediocre disappointing frustrating "
        "annoying irritating unpleasant ugly crude vulgar offensive cheap sloppy messy clumsy "
        "awkward confused confusing incoherent muddled contrived forced artificial fake phony "
        "pretentious pompous heavy preachy sentimental manipulative overlong overwrought "
        "exhausting painful unbearable unwatchable depressing bleak gloomy cold joyless "
        "humorless unfunny lame wooden stiff amateurish careless lazy uninspired uninteresting "
        "unconvincing implausible unlikely uneven disjointed choppy bloated noisy loud chaotic "
        "shapeless aimless tasteless bitter rude greasy dirty broken sad sorry pathetic "
        "miserable mean nasty cynical cruel desperate trite superficial derivative "
        "repetitive monotonous listless sluggish plodding inept incompetent obnoxious grating "
        "embarrassing laughable unnecessary inferior soggy sour gross juvenile childish "
        "schmaltzy cliched inane insipid dreary drab murky".split()
    ),
    "noun": tuple(
        "mess disaster failure bore waste disappointment mistake shame joke chore nightmare "
        "embarrassment flop letdown wreck insult ordeal misfire cliche dud "
        "catastrophe".split()
    ),
    "quality": tuple(
        "boredom confusion cliches noise stupidity mistakes holes nonsense self pity "
        "sentimentality stereotypes emptiness excess cynicism contrivance coincidence silliness "
        "violence repetition vanity clutter gimmicks platitudes laziness "
        "melodrama".split()
    ),
    "does": tuple(
        "fails/falls flat/drags/bores/disappoints/goes nowhere/makes no sense/falls apart/"
        "runs out of ideas/wears out its welcome/tries too hard/never comes to life/"
        "misses the mark/leaves you cold/collapses/stumbles/puts you to sleep/annoys/"
        "insults your intelligence/wastes your time/loses its way/sinks without a trace/"
        "feels like a lecture/lacks any spark/gets everything wrong/"
        "makes you look at your watch/overstays its welcome".split("/")
    ),
    "did": tuple(
        "hated/disliked/regretted/could not stand/could not finish/slept through/walked out of/"
        "suffered through/endured/was bored by/forgot/wanted to leave/was annoyed by/"
        "lost interest in".split("/")
    ),
    "how": tuple(
        "badly poorly clumsily awkwardly carelessly terribly crudely slowly stiffly lazily "
        "painfully dully".split()
    ),
    "verdict": tuple(
        "avoid it/it is a waste of time/it is not worth the money/save your money/stay away/"
        "one of the worst of the year/i want my money back/skip it/never again/do not bother/"
        "it could hardly be worse/it is best forgotten/what a shame/i left early/"
        "there are better ways to spend an evening/one star/it gives you a headache/"
        "it should have stayed at home".split("/")
    ),
}

# {adj} {noun} {quality} {does} {did} {how} {verdict} take the text's side, {other…} the other one.
_FORMS = tuple(
    """\
the {name} is {adj} and {adj}
the {name} is {very} {adj}
{a} {adj}, {adj} {name}
{a} {adj} {name} about {about}
{a} {adj} and {very} {adj} {name} that {does}
{a} {name} of {quality} and {quality}
{very} {adj}, with {adj} {part} and {a} {adj} {name}
the {part} is {adj}, the {part} is {adj}, and the {name} {does}
{part} and {part} are {very} {adj}
the {parts} are {adj} and the {part} is {adj}
the {parts} are {very} {adj}, {though} the {part} is {other_adj}
{adj} {parts} and {a} {adj} {part}
the {parts} are never {other_adj}, they are {adj}
this {name} has {quality}, {quality} and {quality}
it is full of {quality}
it has more {quality} than {other_quality}
the {name} {does} {time}
it {does}, and it {does}
{who} {did} it {time}
{who} {did} this {name} because the {part} was {adj}
{who} called it {a} {noun}, and it is
it is {a} {noun}
{a} {noun} of {a} {name}
what {a} {noun}
it is not {other_adj} at all, it is {adj}
it is never {other_adj} and always {adj}
there is nothing {other_adj} about this {adj} {name}
it is neither {other_adj} nor {other_adj}
it is anything but {other_adj}
the {part} is not {other_adj}, it is {very} {adj}
it may look {other_adj} at first, {though} it is {adj}
the {part} is {other_adj}, {though} the {name} as a whole is {adj}
{though} the {part} seems {other_adj}, the {part} {does}
for all its {other_quality}, the {name} {does}
i expected {a} {other_noun} and got {a} {noun}
some found it {other_adj}, i found it {very} {adj}
{how} made, {how} told, {how} played
the {part} is {how} done and the {part} is {adj}
{a} {how} made {name} with {a} {adj} {part}
as {adj} as it is {adj}
it is so {adj} that {who} {did} it
it manages to be both {adj} and {adj}
the {adj} {part} makes it {a} {adj} {name}
{about} has seldom been shown so {how}
it tells of {about}, and it {does}
the {name}'s {part} gives it {quality}
you can feel the {quality} in the {part}
if you want {quality}, this {name} is for you
too {adj} to be {other_adj}
{verdict}
the {part} {does}, {verdict}""".splitlines()
)


def make_opinions(seed: int, n: int) -> list[str]:
    """Return `n` texts, each of one to six sentences that take one side on one subject."""
    rng = Random(f"opinions {seed}")
    return [_text(rng) for _ in range(n)]


def _text(rng: Random) -> str:
    subject = rng.choice(_SUBJECTS[: rng.randint(1, len(_SUBJECTS))])  # films oftenest
    good = rng.random() < 0.5
    tables = _tables(subject, _GOOD if good else _BAD, _BAD if good else _GOOD)
    forms = [form for form in _FORMS if subject.about or "{about}" not in form]
    said = [_filled(form, tables, rng) for form in rng.sample(forms, rng.randint(1, 6))]
    return " ".join(each[0].upper() + each[1:] + rng.choice("....!") for each in said)


def _tables(
    subject: _Subject, side: dict[str, tuple[str, ...]], other: dict[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    """Return what may fill each slot of a form."""
    return {
        **_COMMON,
        **side,
        **{f"other_{slot}": words for slot, words in other.items()},
        "name": subject.names,
        "part": subject.part,
        "parts": subject.parts,
        "about": subject.about,
        "a": ("a",),
    }


def _filled(form: str, tables: dict[str, tuple[str, ...]], rng: Random) -> str:
    text = _SLOT.sub(lambda slot: rng.choice(tables[slot[1]]), form)
    return _VOWEL.sub("an ", text)
