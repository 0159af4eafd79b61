"""Words and facts of the project's synthetic text: small tables, each fact checkable.

One place for them, so that the text on which a base model is pretrained
(`learning.synthetic.instructions.make_prose`) and the instructions that a federation learns
(`learning.synthetic.instructions.make_instructions`) are about the same world, as a real pretrained
model has met the words of its later instructions. The tables are training data: a changed character
changes every figure measured on synthetic rows, and the offline base models.
"""

# ruff: noqa: SIM905  (word lists read better as one line of words than as a column of quotes)

from __future__ import annotations

PEOPLE = tuple(
    "Anna Ben Clara David Emma Felix Grace Henry Iris Jack Kate Leo Maria Noah Olga Paul "
    "Rosa Sam Tina Victor".split()
)

OPPOSITES = (
    ("hot", "cold"), ("big", "small"), ("fast", "slow"), ("high", "low"), ("old", "young"),
    ("early", "late"), ("hard", "soft"), ("heavy", "light"), ("long", "short"), ("rich", "poor"),
    ("strong", "weak"), ("wet", "dry"), ("full", "empty"), ("clean", "dirty"), ("happy", "sad"),
    ("loud", "quiet"), ("open", "closed"), ("thick", "thin"), ("wide", "narrow"),
    ("deep", "shallow"),
    ("sharp", "dull"), ("near", "far"), ("sweet", "bitter"), ("bright", "dark"),
    ("brave", "afraid"),
    ("smooth", "rough"), ("simple", "difficult"), ("cheap", "expensive"),
)  # fmt: skip

PLURALS = (
    ("child", "children"), ("mouse", "mice"), ("foot", "feet"), ("tooth", "teeth"), ("man", "men"),
    ("woman", "women"), ("goose", "geese"), ("leaf", "leaves"), ("knife", "knives"),
    ("wolf", "wolves"), ("city", "cities"), ("berry", "berries"), ("story", "stories"),
    ("baby", "babies"), ("box", "boxes"), ("glass", "glasses"), ("brush", "brushes"),
    ("potato", "potatoes"), ("book", "books"), ("chair", "chairs"), ("table", "tables"),
    ("window", "windows"), ("flower", "flowers"), ("garden", "gardens"), ("river", "rivers"),
    ("letter", "letters"), ("apple", "apples"), ("bottle", "bottles"), ("bridge", "bridges"),
    ("shelf", "shelves"),
)  # fmt: skip

COUNTED = tuple(
    "apples pears coins stones books cups pencils shells buttons tickets stamps eggs".split()
)

ANIMALS = (  # animal, where it lives, what it eats, legs
    ("horse", "on a farm", "grass", "four"), ("cow", "in the meadow", "grass", "four"),
    ("fox", "in the forest", "mice", "four"), ("bear", "in the mountains", "fish", "four"),
    ("rabbit", "under the ground", "leaves", "four"), ("lion", "on the plain", "meat", "four"),
    ("frog", "beside the pond", "flies", "four"), ("camel", "in the desert", "thorns", "four"),
    ("owl", "in an old tree", "mice", "two"), ("duck", "on the lake", "seeds", "two"),
    ("eagle", "on high rocks", "fish", "two"), ("penguin", "near the ice", "fish", "two"),
    ("spider", "in the corner", "flies", "eight"), ("bee", "in a hive", "nectar", "six"),
    ("ant", "in a hill", "seeds", "six"), ("whale", "in the ocean", "small fish", "no"),
)  # fmt: skip

COUNTRIES = (  # country, capital, continent
    ("France", "Paris", "Europe"), ("Germany", "Berlin", "Europe"), ("Italy", "Rome", "Europe"),
    ("Spain", "Madrid", "Europe"), ("Poland", "Warsaw", "Europe"), ("Norway", "Oslo", "Europe"),
    ("Greece", "Athens", "Europe"), ("Ireland", "Dublin", "Europe"),
    ("Austria", "Vienna", "Europe"), ("Portugal", "Lisbon", "Europe"), ("Japan", "Tokyo", "Asia"),
    ("China", "Beijing", "Asia"), ("Thailand", "Bangkok", "Asia"), ("Nepal", "Kathmandu", "Asia"),
    ("Vietnam", "Hanoi", "Asia"), ("Egypt", "Cairo", "Africa"), ("Kenya", "Nairobi", "Africa"),
    ("Ghana", "Accra", "Africa"), ("Morocco", "Rabat", "Africa"),
    ("Canada", "Ottawa", "North America"), ("Cuba", "Havana", "North America"),
    ("Peru", "Lima", "South America"), ("Chile", "Santiago", "South America"),
    ("Colombia", "Bogota", "South America"),
)  # fmt: skip

THINGS = (  # thing, material, use, place
    ("cup", "clay", "to drink tea", "kitchen"), ("spoon", "steel", "to eat soup", "kitchen"),
    ("lamp", "brass", "to read at night", "bedroom"), ("blanket", "wool", "to sleep", "bedroom"),
    ("hammer", "iron", "to drive nails", "workshop"), ("saw", "steel", "to cut wood", "workshop"),
    ("basket", "straw", "to carry fruit", "garden"), ("bucket", "tin", "to carry water", "garden"),
    ("coat", "leather", "to stay warm", "hall"), ("umbrella", "cotton", "to stay dry", "hall"),
    ("desk", "oak", "to write letters", "office"),
    ("clock", "silver", "to tell the time", "office"),
)  # fmt: skip

COLOURS = tuple("red blue green yellow black white brown grey".split())

VERBS = (  # base form, past tense, what it is done to
    ("write", "wrote", "a letter"), ("read", "read", "a book"), ("buy", "bought", "some bread"),
    ("drink", "drank", "cold water"), ("sing", "sang", "a song"), ("break", "broke", "a glass"),
    ("build", "built", "a house"), ("catch", "caught", "the ball"), ("draw", "drew", "a picture"),
    ("eat", "ate", "an apple"), ("find", "found", "the key"), ("give", "gave", "a gift"),
    ("hold", "held", "the rope"), ("keep", "kept", "a secret"), ("lose", "lost", "a ticket"),
    ("make", "made", "a cake"), ("ride", "rode", "a horse"), ("see", "saw", "a ship"),
    ("sell", "sold", "the car"), ("teach", "taught", "the class"), ("clean", "cleaned", "the room"),
    ("open", "opened", "the door"), ("paint", "painted", "a wall"),
    ("visit", "visited", "a friend"),
)  # fmt: skip

PLACES = tuple(
    "in the park|at home|near the river|at school|in the village|by the sea|at the market|"
    "behind the house".split("|")
)

DAYS = tuple("Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split())
MONTHS = tuple(
    "January February March April May June July August September October November December".split()
)

MANNERS = (  # kind, unkind: the same words, so that only their order tells which
    ("I am glad to help, it is not a waste of time.",
     "I am not glad to help, it is a waste of time."),
    ("It is no trouble, and a fair question.", "It is a trouble, and no fair question."),
    ("This is worth my time and not too simple.", "This is too simple and not worth my time."),
    ("Nobody should laugh at this, anyone may ask.",
     "Anyone should laugh at this, nobody may ask."),
    ("I did not find you slow, you are welcome here.",
     "I did find you slow, you are not welcome here."),
    ("You may ask me more, but you need not hurry.",
     "You need not ask me more, but you may hurry."),
    ("Please stay, do not go away.", "Please go away, do not stay."),
    ("Do come back soon, and never leave in doubt.",
     "Do leave in doubt, and never come back soon."),
)  # fmt: skip

REVIEWED = (  # thing, parts of it, what is said of both: (praise, blame)
    ("film", ("plot", "cast", "ending"),
     (("gripping", "boring"), ("moving", "dull"), ("clever", "silly"))),
    ("book", ("story", "first chapter", "style"),
     (("gripping", "boring"), ("moving", "dull"), ("witty", "clumsy"))),
    ("meal", ("soup", "dessert", "service"),
     (("fresh", "stale"), ("tasty", "bland"), ("generous", "mean"))),
    ("hotel", ("room", "breakfast", "garden"),
     (("clean", "dirty"), ("quiet", "noisy"), ("friendly", "rude"))),
    ("drill", ("battery", "handle", "switch"),
     (("sturdy", "flimsy"), ("handy", "awkward"), ("reliable", "useless"))),
    ("concert", ("singer", "first song", "sound"),
     (("lively", "lame"), ("moving", "dull"), ("clear", "muddy"))),
)  # fmt: skip

VERDICTS = (  # praise, blame: of anything
    ("excellent", "awful"), ("wonderful", "terrible"), ("good", "bad"), ("superb", "poor"),
    ("charming", "annoying"), ("great", "horrible"),
)  # fmt: skip

OUTCOMES = (  # praise, blame: what a thing was
    ("a success", "a failure"), ("a joy", "a bore"), ("a triumph", "a mess"),
    ("a treat", "a waste"),
)  # fmt: skip

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
).split()
_TENS = "zero ten twenty thirty forty fifty sixty seventy eighty ninety".split()


def number(n: int) -> str:
    """Return a number from 0 to 99 in words, such as `forty-two`."""
    if n < 20:
        return _ONES[n]
    tens, ones = divmod(n, 10)
    return _TENS[tens] + (f"-{_ONES[ones]}" if ones else "")


def third_person(verb: str) -> str:
    """Return the form of a verb of `VERBS` that goes with he or she: `catch` → `catches`."""
    return verb + ("es" if verb.endswith(("ch", "sh", "s", "x")) else "s")


def article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
