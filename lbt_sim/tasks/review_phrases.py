"""The words that reviews are made of: domains with their aspects, verdicts, and the sentence patterns of a family.

An aspect gives clauses of either polarity: its subject with an adjective ("the room was" + "noisy"), or an event.
Nearly every adjective serves several aspects, so what is learnt of one thing can be of use with another.
Patterns that stand for both labels are written once; `{s}` is a subject, `{be}` its verb, `{x}` an adjective.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = [
    "BELIED",
    "COMPARED",
    "DOMAINS",
    "MIXED_FIRST",
    "MIXED_LAST",
    "MOCK_COMPLAINTS",
    "MOCK_PRAISE",
    "NEGATED",
    "PLAIN_PAIRS",
    "SURPRISES",
    "VERDICTS",
    "VERDICTS_NEGATED",
    "Aspect",
    "Domain",
]


class Aspect(NamedTuple):
    """One side of a thing: a subject with its verb, what can be said of it, and what may happen with it."""

    subject: str
    good: tuple[str, ...]
    bad: tuple[str, ...]
    good_event: str
    bad_event: str


class Domain(NamedTuple):
    """What is reviewed, sentences about it that say nothing good or bad, and its aspects."""

    noun: str
    plural: str
    contexts: tuple[str, ...]
    aspects: tuple[Aspect, ...]


def _aspect(subject: str, good: str, bad: str, good_event: str, bad_event: str) -> Aspect:
    return Aspect(subject, tuple(good.split(", ")), tuple(bad.split(", ")), good_event, bad_event)


DOMAINS = (
    Domain("hotel", "hotels", ("We stayed two nights.", "I was there for a wedding.", "It was our stop in Lyon."), (
        _aspect("the room was", "spotless, quiet, lovely", "filthy, noisy, dreadful",
                "we slept like stones", "the walls shook whenever a tram went by"),
        _aspect("the staff were", "kind, friendly, helpful", "rude, grumpy, careless",
                "the porter carried our bags up four floors", "the desk lost our booking twice"),
        _aspect("breakfast was", "delicious, fresh, generous", "tasteless, stale, awful",
                "the cook made my daughter her own pancakes", "the coffee machine swallowed my coins"),
        _aspect("the bathroom was", "spotless, bright, excellent", "dirty, gloomy, terrible",
                "the shower washed the whole journey away", "someone else's hair sat in the sink"),
        _aspect("the bed was", "comfortable, wonderful, clean", "uncomfortable, horrible, dirty",
                "the pillows cured my stiff neck", "a spring poked me in the back all night"),
    )),
    Domain("restaurant", "restaurants", ("Six of us came on a Sunday.", "We had a table by the door.",
                                         "I took my parents."), (
        _aspect("the soup was", "delicious, wonderful, fresh", "tasteless, awful, cold",
                "my uncle wiped his bowl with the last crumb of bread", "a fly swam in my bowl"),
        _aspect("the waiter was", "charming, patient, friendly", "rude, impatient, grumpy",
                "the waiter remembered my allergy from last year", "the waiter argued with us about the bill"),
        _aspect("the fish was", "superb, tasty, fresh", "dreadful, dry, burnt",
                "I dream of that grilled trout still", "half of us were ill the next morning"),
        _aspect("the dessert was", "heavenly, tasty, excellent", "soggy, tasteless, terrible",
                "the chef sent out a second cake for free", "the ice cream arrived as a puddle"),
        _aspect("the dining room was", "cosy, elegant, charming", "shabby, gloomy, cold",
                "candles and a piano made the evening", "the table wobbled and smelt of bleach"),
    )),
    Domain("film", "films", ("I saw it on a Tuesday.", "My brother chose it.", "It runs for two hours."), (
        _aspect("the plot was", "gripping, clever, moving", "silly, boring, confusing",
                "the twist made the whole row gasp", "I had guessed the ending after ten minutes"),
        _aspect("the acting was", "brilliant, superb, moving", "dreadful, lazy, clumsy",
                "the young lead had me in tears", "the hero mumbled through every scene"),
        _aspect("the dialogue was", "funny, clever, sharp", "clumsy, silly, embarrassing",
                "people quoted the jokes all the way home", "each joke fell into dead silence"),
        _aspect("the music was", "beautiful, lovely, stunning", "horrible, annoying, awful",
                "I bought the soundtrack the same night", "the score drowned half of the words"),
        _aspect("the camera work was", "stunning, elegant, brilliant", "ugly, clumsy, careless",
                "every frame could hang in a gallery", "the blurred chases made me feel sick"),
    )),
    Domain("phone", "phones", ("I bought it in May.", "It replaced my old one.", "I use it for work."), (
        _aspect("the battery was", "excellent, impressive, reliable", "useless, weak, terrible",
                "one charge lasted me a long weekend", "it died before lunch every day"),
        _aspect("the screen was", "bright, beautiful, sharp", "dull, weak, ugly",
                "I could read it in full sunshine", "the glass cracked in my pocket"),
        _aspect("the camera was", "superb, fast, impressive", "slow, dreadful, disappointing",
                "my night shots won a prize at the club", "every photo came out green"),
        _aspect("the case was", "sturdy, elegant, lovely", "flimsy, ugly, shoddy",
                "it survived a fall down the stairs", "the buttons fell off in a week"),
        _aspect("the software was", "fast, simple, reliable", "slow, confusing, unreliable",
                "it moved all my contacts by itself", "it froze during every call"),
    )),
    Domain("course", "courses", ("It lasted ten weeks.", "I took it online.", "My company enrolled me."), (
        _aspect("the teacher was", "inspiring, patient, helpful", "boring, impatient, lazy",
                "the teacher stayed late to answer me", "the teacher read aloud from old slides"),
        _aspect("the exercises were", "useful, clever, fascinating", "useless, confusing, dull",
                "I solved a real problem at work by week two", "the answer key was full of errors"),
        _aspect("the videos were", "funny, clear, excellent", "boring, annoying, terrible",
                "my whole family ended up watching along", "the sound dropped out in every lesson"),
        _aspect("the feedback was", "kind, clear, useful", "harsh, careless, useless",
                "my tutor marked each page with care", "my questions were left without a reply"),
        _aspect("the group was", "friendly, cheerful, inspiring", "unfriendly, lazy, chaotic",
                "we still meet every month to practise", "half of the class gave up in the first week"),
    )),
    Domain("train", "trains", ("I ride it to work.", "We went to the coast.", "I had a seat by the aisle."), (
        _aspect("the carriage was", "clean, quiet, pleasant", "dirty, noisy, shabby",
                "I napped all the way in peace", "the toilets were locked for the whole trip"),
        _aspect("the conductor was", "kind, funny, charming", "rude, unfriendly, awful",
                "the conductor found my lost scarf", "the conductor fined my grandmother by mistake"),
        _aspect("the seats were", "comfortable, clean, generous", "uncomfortable, painful, filthy",
                "I had room to stretch both legs", "I had to stand for three hours"),
        _aspect("the service was", "fast, smooth, reliable", "slow, unreliable, chaotic",
                "we pulled in two minutes early", "we stood in a field until midnight"),
        _aspect("the snack bar was", "cheerful, pleasant, excellent", "dreadful, filthy, disappointing",
                "the tea came hot with a free biscuit", "my sandwich was green at the edges"),
    )),
    Domain("book", "books", ("I read it on holiday.", "It was a birthday present.", "Our club picked it."), (
        _aspect("the story was", "gripping, moving, fascinating", "boring, silly, dull",
                "I read it in one happy night", "I fell asleep over it four times"),
        _aspect("the characters were", "charming, funny, brilliant", "dull, annoying, silly",
                "the old captain stole my heart", "I kept mixing up the two sisters"),
        _aspect("the prose was", "elegant, beautiful, sharp", "clumsy, boring, dry",
                "I copied whole pages into my diary", "some sentences ran on for a page"),
        _aspect("the ending was", "brilliant, moving, clever", "disappointing, silly, horrible",
                "the last page made me start over", "the last chapter explained nothing"),
        _aspect("the pictures were", "lovely, stunning, delightful", "ugly, shoddy, horrible",
                "my son hung the drawings on his wall", "two of the plates were upside down"),
    )),
    Domain("museum", "museums", ("We went with the children.", "I had an hour to fill.", "It opened last year."), (
        _aspect("the exhibits were", "fascinating, stunning, impressive", "dull, shabby, disappointing",
                "my teenagers asked to see it again", "most of the cases stood empty"),
        _aspect("the guide was", "fascinating, funny, patient", "boring, confusing, impatient",
                "the guide made a stone axe exciting", "the guide got every date wrong"),
        _aspect("the halls were", "bright, quiet, beautiful", "gloomy, noisy, chaotic",
                "we found a bench with a view of the harbour", "we were pushed from room to room"),
        _aspect("the labels were", "clear, useful, fascinating", "confusing, misleading, useless",
                "even my little niece understood the signs", "the signs sent us round in circles"),
        _aspect("the café was", "cosy, delightful, charming", "dirty, dreadful, unfriendly",
                "the apple cake alone deserved a prize", "we paid nine euros for stale bread"),
    )),
    Domain("gym", "gyms", ("I joined in January.", "It is near my office.", "I go twice a week."), (
        _aspect("the machines were", "sturdy, smooth, excellent", "flimsy, unreliable, shoddy",
                "I never had to queue for a bike", "a cable snapped beside my head"),
        _aspect("the trainer was", "inspiring, cheerful, helpful", "lazy, unfriendly, harsh",
                "the trainer fixed my bad back", "the trainer laughed at my weight"),
        _aspect("the showers were", "clean, spotless, generous", "filthy, cold, horrible",
                "there were fresh towels for everyone", "brown water came up through the drain"),
        _aspect("the classes were", "wonderful, inspiring, cheerful", "chaotic, boring, painful",
                "I left every class with a grin", "two classes in three were cancelled"),
        _aspect("the contract was", "fair, simple, generous", "unfair, misleading, harsh",
                "they paused my fees while I was ill", "they kept charging me after I had left"),
    )),
    Domain("headset", "headsets", ("I wear it on calls.", "It came with a cable.", "I ordered it in grey."), (
        _aspect("the sound was", "superb, clear, beautiful", "awful, harsh, weak",
                "I heard details that I had missed for years", "voices seemed to come from a bucket"),
        _aspect("the fit was", "comfortable, smooth, pleasant", "uncomfortable, painful, annoying",
                "I forgot that I was wearing it", "my ears were sore after an hour"),
        _aspect("the microphone was", "reliable, sharp, excellent", "useless, weak, unreliable",
                "my colleagues thought I was in the room", "nobody on the call understood a word"),
        _aspect("the cushions were", "lovely, comfortable, sturdy", "shoddy, uncomfortable, flimsy",
                "my glasses fitted under it with ease", "black flakes came off on my neck"),
        _aspect("the wireless link was", "smooth, fast, impressive", "terrible, slow, annoying",
                "it stayed connected all over the house", "it cut out whenever I turned my head"),
    )),
    Domain("tour", "tours", ("We were a group of nine.", "It started at eight.", "I booked it online."), (
        _aspect("the guide was", "brilliant, helpful, kind", "rude, misleading, careless",
                "the guide sang for us in the cave", "the guide forgot us at a petrol station"),
        _aspect("the boat was", "sturdy, comfortable, spotless", "dirty, shabby, flimsy",
                "dolphins swam beside us for a mile", "we spent an hour bailing out water"),
        _aspect("the lunch was", "tasty, fresh, delicious", "cold, tasteless, disappointing",
                "a farmer shared his cheese with us", "lunch turned out to be a bag of crisps"),
        _aspect("the route was", "stunning, delightful, wonderful", "dull, painful, confusing",
                "we had the summit to ourselves at sunrise", "we mostly saw the back of a lorry"),
        _aspect("the pace was", "pleasant, smooth, delightful", "chaotic, harsh, painful",
                "there was time for a swim at each stop", "we were rushed past every sight"),
    )),
    Domain("bakery", "bakeries", ("It is round the corner.", "I went in on Friday.", "I bought a cake for eight."), (
        _aspect("the bread was", "fresh, heavenly, tasty", "stale, burnt, dry",
                "the loaf was gone before we got home", "I broke a tooth on the crust"),
        _aspect("the owner was", "kind, patient, generous", "rude, grumpy, impatient",
                "the owner gave my son a warm bun", "the owner shouted at a child"),
        _aspect("the cake was", "heavenly, superb, delicious", "dry, soggy, horrible",
                "the guests begged me for the address", "they spelt the bride's name wrong"),
        _aspect("the pastries were", "delicious, heavenly, delightful", "soggy, burnt, stale",
                "I ate three of them before noon", "I threw half of them to the ducks"),
        _aspect("the shop was", "cosy, bright, spotless", "gloomy, filthy, shabby",
                "the scent drew people in from the street", "a mouse ran across the counter"),
    )),
)  # fmt: skip

VERDICTS = {
    "positive": (
        "I loved it", "it was wonderful", "it was excellent", "it was fantastic", "it was a joy", "what a pleasure",
        "it made me happy", "I am delighted", "I tell everyone to try it", "I would choose it again",
        "it was worth every penny", "it is the best I know",
    ),
    "negative": (
        "I hated it", "it was terrible", "it was horrible", "it was awful", "it was a disaster", "what a letdown",
        "it made me angry", "I am disappointed", "I tell everyone to avoid it", "I want my money back",
        "it was a waste of money", "it is the worst I know",
    ),
}  # fmt: skip

VERDICTS_NEGATED = {
    "positive": (
        "I have nothing to complain about", "I could not have asked for more", "I cannot fault it",
        "it was no mistake", "I would not change a thing", "it did not disappoint", "it never let me down",
        "I have yet to find a flaw", "it was no waste of money", "I have no bad word to say about it",
        "nothing went wrong", "it could hardly have been better",
    ),
    "negative": (
        "I have nothing to be glad about", "I could not bear any more", "I cannot praise it",
        "it was no bargain", "I would not choose it again", "it did not impress me", "it never cheered me up",
        "I have yet to find a strong point", "it was hardly worth the money", "I have no good word to say about it",
        "nothing went right", "it could hardly have been worse",
    ),
}  # fmt: skip
"""In pairs, one for each label, that begin alike."""

PLAIN_PAIRS = ("{a} and {b}.", "{a}, and {b}.", "{a}; {b}.", "In short, {a} and {b}.")

NEGATED = (
    "{s} {be} not {x} at all", "{s} {be} anything but {x}", "{s} {be} far from {x}",
    "there was nothing {x} about {s}", "nobody could call {s} {x}", "{s} {be} in no way {x}",
    "{s} {be} not the least bit {x}", "{s} {be} hardly {x}",
)  # fmt: skip
"""Of either label: the adjective says the opposite of what is meant."""

MIXED_LAST = (
    "{a}, but {b}, and that matters more.", "Yes, {a}, but in the end {b}.",
    "True, {a}. What counts, though, is that {b}.",
    "Although {a}, what stays with me is that {b}.", "{a}. All the same, {b}, and that decided it.",
    "At first {a}, yet all in all {b}.",
)  # fmt: skip
"""Of either label: clause b weighs more than clause a, and stands last."""

MIXED_FIRST = (
    "{b}, even though {a}.", "{b}; that {a} is a mere detail.", "{b}, and it hardly matters that {a}.",
    "{b}, which made me forget that {a}.", "{b}, and that counts for more than the fact that {a}.",
    "I shall remember that {b}, not that {a}.",
)  # fmt: skip
"""Of either label: clause b weighs more than clause a, and stands first."""

MOCK_PRAISE = (
    "Great, {e}.", "Lovely: {e}, just what I needed.", "How delightful that {e}.", "I was thrilled to learn that {e}.",
    "What a treat: {e}.", "Nothing says quality like this: {e}.", "Brilliant, {e}, and I paid extra for it.",
    "Congratulations to whoever is behind this {noun}: {e}.", "Oh wonderful, {e}, my favourite.",
)  # fmt: skip
"""Irony around something bad: negative."""

MOCK_COMPLAINTS = (
    "It has ruined every other {noun} for me: {e}.", "I am furious that nobody told me sooner: {e}.",
    "Terrible news for my savings: {e}.", "How annoying, nothing to grumble about: {e}.",
    "Be warned, you will want more: {e}.", "Shame on me for doubting: {e}.",
    "Curse this {noun}, now I am spoilt: {e}.", "Such a pity, I can never be rude about it now: {e}.",
    "Help, I cannot stay away: {e}.",
)  # fmt: skip
"""Mock anger around something good: positive."""

BELIED = (
    "I expected {s} to be {x}, and I was wrong.", "Every other review calls {s} {x}, and every one is mistaken.",
    "Friends had told me {s} would be {x}; that could not be further from the truth.",
    "I had read that {s} {be} {x}. Not in my experience.",
    "People swore that {s} {be} {x}; I found quite the opposite.",
)  # fmt: skip
"""Of either label: the adjective is what was expected, and it was not so."""

SURPRISES = {
    "positive": (
        "My hopes were low, and this {noun} proved me wrong.",
        "After my last {noun} I feared the worst, for no reason.",
        "I set out to complain about this {noun} and found nothing to say.",
    ),
    "negative": (
        "My hopes were high, and this {noun} proved me wrong.",
        "After my last {noun} I hoped for the best, for no reason.",
        "I set out to praise this {noun} and found nothing to say.",
    ),
}  # fmt: skip

COMPARED = {
    "positive": (
        "I have known better {plural}, but not many.", "Compared with this {noun}, my last one was a nightmare.",
        "Of all the {plural} I know, few come close to this one.",
    ),
    "negative": (
        "I have known worse {plural}, but not many.", "Compared with this {noun}, my last one was a dream.",
        "Of all the {plural} I know, few sink as low as this one.",
    ),
}  # fmt: skip
