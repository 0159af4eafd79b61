"""Statements about household machines and stays in hospital that praise or criticise by facts.

Hardly any word is positive or negative by itself. A lid that hangs by one hinge is bad, and so is a
new surprise each morning, or a washing machine that dances; a model that has only read film
reviews, where surprise and dance are praise, cannot know that.

Each aspect is a pair of positive and negative statements, separated by `|`. The last `HELD_OUT` of
each are reserved for measuring, so that a model is measured on statements that it has not read.
`benchmarks.domains` composes reviews from them.
"""

from __future__ import annotations

from dataclasses import dataclass

HELD_OUT = 2
"""Number of statements of each side of an aspect that are reserved for measuring."""

Aspect = tuple[str, str]


@dataclass(frozen=True)
class Subject:
    """Subject of a review.

    Attributes:
        names: Its names, such as `kettle` or `knee`.
        aspects: Aspects that only reviews of this subject mention.
    """

    names: tuple[str, ...]
    aspects: tuple[Aspect, ...]


@dataclass(frozen=True)
class Domain:
    """Domain of reviews.

    Attributes:
        subjects: Its subjects.
        common: Aspects of all subjects.
        openings: Neutral sentences with `{name}`, `{month}`, `{who}` and `{day}`.
    """

    subjects: tuple[Subject, ...]
    common: tuple[Aspect, ...]
    openings: tuple[str, ...]


_MACHINES = Domain(
    openings=(
        "We bought the {name} in {month}.",
        "The {name} is from {month}.",
        "{who} and I share this {name}.",
        "I have had the {name} since {month}.",
        "The {name} came on a {day}.",
        "This is our second {name}.",
        "{who} wanted a {name} for the flat.",
        "A {name} for a household of four.",
    ),
    common=(
        (
            "it starts at the first touch|it comes on the moment I press the button"
            "|it is three years old and runs as on the first day|it works each day of the year"
            "|it has not missed a day since spring|it has outlived two of its kind",
            "each morning brings a new surprise when I switch it on"
            "|it has to be unplugged every morning before it runs"
            "|it switches itself off in the middle of the job|it was dead out of the box"
            "|it stopped for good after a fortnight"
            "|it gave a click one evening and has stood still since",
        ),
        (
            "you can talk beside it in a low voice|it works, and the whole house sleeps"
            "|I have to look twice to see whether it is on|its hum is as soft as a cat's"
            "|the baby sleeps on while it runs|it can run at night with the door open",
            "it drowns out the radio two rooms away|we shut two doors to hear each other"
            "|the neighbours have been at the door about it"
            "|it entertains the whole street when it is on|it sings, whistles and roars by turns"
            "|it plays the drums with its own lid",
        ),
        (
            "the lid closes with a firm click|each screw sits where it was on the first day"
            "|it came whole through two moves|it stands like a rock|the hinges are solid steel"
            "|the seams are tight all the way round",
            "the lid hangs by one hinge|the door has to be held shut with tape"
            "|a crack runs along the casing|the buttons have sunk into the front"
            "|the handle came off in my hand|its coating comes off in pretty flakes",
        ),
        (
            "the spare part came the next morning, free of charge"
            "|the service line picks up on the second ring|the shop exchanged it with a smile"
            "|a new one was here before the old one had left|a mechanic rang back within the hour"
            "|my money was back in the account by Friday",
            "the service number plays music, for hours|my third letter is still without a reply"
            "|the spare part has been on its way since June"
            "|the guarantee turned out not to cover the motor"
            "|the repair would cost as much as a new one|they want it sent abroad at my own cost",
        ),
        (
            "my grandmother understood it at first sight|a child can set the timer"
            "|five minutes after the box was open it worked"
            "|the display can be read from across the room|two buttons do it all"
            "|every switch is where the thumb looks for it",
            "the manual has eighty pages and none of them helps|its menu is as deep as a novel"
            "|it took a whole afternoon to set the clock|the display cannot be read in daylight"
            "|its settings are a riddle from a spy film"
            "|one wrong button and it begins again from zero",
        ),
        (
            "it has paid for itself in a year|a whole week of it costs as much as one coffee"
            "|it saves us a little every day|it switches to standby by itself"
            "|it uses half of what the old one used|by Christmas it had earned its price",
            "the meter spins while it is on|it spends more than a family of five"
            "|the power company must love it|it eats a new fuse every week"
            "|its filters cost more than the machine|every month it wants another part replaced",
        ),
        (
            "the outside stays cool after an hour|you can leave the house while it is on"
            "|the cable is long and well shielded|it passed the inspection at once"
            "|it switches off when it is tipped over|grandchildren play beside it in safety",
            "it fills the room with the scent of hot plastic"
            "|smoke rose from the back on the second day"
            "|it gave me a shock when I touched the side|it blew all the lights in the flat"
            "|bright sparks fly from the plug|the plug melts into the socket",
        ),
    ),
    subjects=(
        Subject(
            ("vacuum cleaner", "speaker", "drill", "torch", "shaver"),
            (
                (
                    "one charge lasts from Monday to Friday"
                    "|the charger can stay at home on a journey"
                    "|the battery holds as long as when it was new|its charge lasts and lasts"
                    "|it charges as fast as we drink a coffee"
                    "|it went through a whole day on one charge",
                    "the battery gave out before lunch|ten minutes and the light turns red"
                    "|it shows full and falls asleep a minute later"
                    "|the charger gets hot and charges nothing"
                    "|it has to hang on the cable all the time"
                    "|left for a night, it is empty by morning",
                ),
            ),
        ),
        Subject(
            ("washing machine", "dishwasher", "tumble dryer"),
            (
                (
                    "glasses come out with a shine|the forks gleam like silver"
                    "|the towels come out soft|a short cycle does the job"
                    "|the old tablecloth looks like new|the collars are white again",
                    "there is a puddle under it after every load|it tore a hole into the sheets"
                    "|the things inside come out dirtier than they went in"
                    "|it dances across the floor|it paints grey pictures on the plates"
                    "|what comes out goes in again",
                ),
            ),
        ),
        Subject(
            ("kettle", "toaster", "coffee machine", "blender"),
            (
                (
                    "breakfast is on the table in half the time|it wipes clean with a cloth"
                    "|it rinses clean in a minute|each portion turns out just as we like it"
                    "|it pours straight into the cup|the second cup is as hot as the first",
                    "there is a touch of metal in each bite"
                    "|it takes longer than a pot on the stove|it is burnt outside and raw inside"
                    "|there is lime in the cup, fine as snow|half of it ends up on the worktop"
                    "|what it makes goes down the sink",
                ),
            ),
        ),
    ),
)  # fmt: skip

_HOSPITAL = Domain(
    openings=(
        "I was in for my {name} in {month}.",
        "It was about my {name}.",
        "{who} was on the ward with me, both of us because of the {name}.",
        "I came in on a {day} with my {name}.",
        "Four nights on the second floor because of the {name}.",
        "My {name} had to be seen to in {month}.",
        "{who} drove me there on {day}.",
        "{who} will ask about my {name}, so here is how it went.",
    ),
    common=(
        (
            "someone was there before I had let go of the bell"
            "|the night nurse looked in every hour|they knew me by name on the first day"
            "|a nurse sat with me until I slept|I never had to ring twice"
            "|someone always had a hand free for me",
            "I rang four times before anyone came|the bell was out of my reach all night"
            "|I was left to my own adventures until noon"
            "|they called me by the name of the man next door"
            "|it was an hour before somebody brought the bedpan"
            "|at night the ward was a quiet, lonely place",
        ),
        (
            "the drip brought relief within minutes|they looked after my comfort every hour"
            "|I woke up rested and at ease|the tablets came on the dot"
            "|they changed the dose as soon as I spoke up|I was comfortable through the night",
            "I counted the stars from pain until morning|the needle went in at the sixth try"
            "|they gave me what my chart says I must not have"
            "|my tablets were left in another room|I felt each stitch with great clarity"
            "|the drip ran dry and no one noticed",
        ),
        (
            "the surgeon drew me a picture of what she would do|each of my questions was answered"
            "|the doctor sat with me and took her time|they prepared me for each step"
            "|my daughter was rung as soon as I was awake"
            "|I could repeat the whole plan afterwards",
            "the doctor gave my chart a warm look and left"
            "|nobody could say what I was waiting for|I learned of the operation from the cleaner"
            "|each doctor told a different story"
            "|the consultant was at the door again before I could ask"
            "|they talked about me over my head",
        ),
        (
            "I was called at the minute on my letter|there was a bed made up when I came"
            "|the results were there the same afternoon"
            "|from the door to the theatre it took an hour"
            "|I had hardly taken my coat off when they called me"
            "|I had my scan and my result on the same morning",
            "I got to know the corridor for nine hours"
            "|the operation was put off for the third time|my blood sample went on a journey"
            "|I spent the first night on a trolley by the lift|at midnight I was still in my coat"
            "|my file had gone to another building",
        ),
        (
            "the bathroom was as clean as at home|fresh sheets every morning"
            "|each visitor was given a clean gown|the floor shone each morning"
            "|the whole room smelled fresh|the windows were bright and clear",
            "someone else's blood was on the rail|the shower drain was full of hair"
            "|the same plaster lay under the bed all week|I brought an infection home"
            "|green life grew round the window|the toilet was out of order and overflowing",
        ),
        (
            "the soup was hot and had herbs in it|they cooked my own diet for me"
            "|there was fruit at every meal|I had a second helping each day"
            "|the bread was still warm|the kitchen found something for my allergy",
            "the soup had travelled far and was cool|they served me what I am allergic to"
            "|the tray was put where I could not reach it|I lived on biscuits from the machine"
            "|supper was a slice of white bread at four|the plate went back as it had come",
        ),
        (
            "after dark you could hear a pin drop|the blind kept the light out"
            "|they moved the man who snored|I slept through until six"
            "|at nine the house became quiet|they closed the door softly on their rounds",
            "there was a parade of trolleys past my head all night"
            "|the light over my bed could not be put out"
            "|there was a film for everyone until two at night"
            "|they emptied the bins at four in the morning|six of us shared a room for three"
            "|I heard each hour of the night strike",
        ),
        (
            "I walked to the car on my own feet|the scar has healed to a fine line"
            "|I was back at work in a fortnight|my checks since then are all in order"
            "|I can lift my grandson again|a month later I climbed a hill",
            "they sent me home with a fever|the wound opened on the way home"
            "|I was back in the ambulance two days later|they had treated the wrong side"
            "|a stick is my companion now|it all had to be done again elsewhere",
        ),
        (
            "the papers were ready when I left|a district nurse was booked for the next day"
            "|my letter reached my own doctor on the same day"
            "|they rang a week later to ask after me"
            "|I was given a clear plan for each day at home|the follow-up was in my diary at once",
            "I was put outside in my nightgown at eleven at night|no letter has reached my doctor"
            "|they discharged me without a prescription|my keys and glasses were never found"
            "|nobody told me how to change the dressing|the bill was for somebody else's stay",
        ),
    ),
    subjects=(
        Subject(("knee", "hip", "shoulder", "wrist"), ()),
        Subject(("heart", "stomach", "gall bladder", "appendix", "back"), ()),
    ),
)  # fmt: skip

DOMAINS = {"machines": _MACHINES, "hospital": _HOSPITAL}
