"""The stories behind arithmetic problems: each draws names and numbers and tells question, solution and answer.

Numbers are drawn so that every step is a whole, positive number. A rationale works the steps in order, each as an
equation, and never states a number that the question or an earlier step does not give.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

__all__ = ["STORIES", "Draw", "Story"]

NAMES = (
    "Ada", "Bilal", "Chidi", "Dora", "Emil", "Farah", "Goran", "Hana", "Ines", "Jonas", "Keiko", "Lars", "Mina", "Noor",
    "Otto", "Priya", "Quentin", "Rosa", "Samir", "Tove", "Uma", "Viktor", "Wanda", "Xenia", "Yusuf", "Zora",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Draw:
    """What a story draws from."""

    rng: Random

    def number(self, low: int, high: int, step: int = 1) -> int:
        """A number from `low` to `high`, both included."""
        return self.rng.randrange(low, high + 1, step)

    def one_of(self, *words: str) -> str:
        """One of the words."""
        return self.rng.choice(words)

    def name(self) -> str:
        """Someone's name."""
        return self.rng.choice(NAMES)

    def names(self) -> tuple[str, str]:
        """Two different names."""
        first, second = self.rng.sample(NAMES, 2)
        return first, second


Tell = Callable[[Draw], tuple[str, str, int]]


@dataclass(frozen=True, slots=True)
class Story:
    """A story: how many steps it takes, and its teller (draw -> question, rationale, answer)."""

    steps: int
    tell: Tell


STORIES: dict[str, Story] = {}


def _story(steps: int) -> Callable[[Tell], Tell]:
    def register(tell: Tell) -> Tell:
        STORIES[tell.__name__.strip("_")] = Story(steps, tell)
        return tell

    return register


# --- one step ---------------------------------------------------------------------------------------------


@_story(1)
def _shelves(d: Draw) -> tuple[str, str, int]:
    who, thing, a, b = (
        d.name(),
        d.one_of("jars", "books", "paint tins", "board games"),
        d.number(3, 19),
        d.number(4, 28),
    )
    ask = f"{who} fills {a} shelves with {b} {thing} each. How many {thing} are on the shelves?"
    return ask, f"{a} shelves with {b} {thing} each hold {a} * {b} = {a * b} {thing}.", a * b


@_story(1)
def _reading_left(d: Draw) -> tuple[str, str, int]:
    who, read, left = d.name(), d.number(25, 260), d.number(17, 240)
    ask = f"{who}'s novel has {read + left} pages, of which {who} has read {read}. How many pages are left?"
    return ask, f"{read + left} - {read} = {left} pages are left.", left


@_story(1)
def _sharing(d: Draw) -> tuple[str, str, int]:
    who, thing = d.name(), d.one_of("stickers", "marbles", "walnuts", "beads")
    friends, each = d.number(3, 12), d.number(4, 32)
    total = friends * each
    ask = f"{who} shares {total} {thing} equally among {friends} friends. How many {thing} does each friend get?"
    return ask, f"Each friend gets {total} / {friends} = {each} {thing}.", each


@_story(1)
def _savings(d: Draw) -> tuple[str, str, int]:
    who, before, gift = d.name(), d.number(18, 390), d.number(12, 180)
    ask = f"{who} had {before} euros in a tin and puts in {gift} euros from a birthday. How much is in the tin now?"
    return ask, f"The tin now holds {before} + {gift} = {before + gift} euros.", before + gift


@_story(1)
def _age_apart(d: Draw) -> tuple[str, str, int]:
    (old, young), age, gap = d.names(), d.number(4, 38), d.number(2, 29)
    ask = f"{old} is {gap} years older than {young}, who is {age}. How old is {old}?"
    return ask, f"{old} is {age} + {gap} = {age + gap} years old.", age + gap


# --- two steps --------------------------------------------------------------------------------------------


@_story(2)
def _trays(d: Draw) -> tuple[str, str, int]:
    who, thing = d.name(), d.one_of("muffins", "rolls", "tarts", "pretzels")
    trays, each = d.number(3, 14), d.number(6, 24)
    baked = trays * each
    sold = d.number(5, baked - 1)
    ask = f"{who} bakes {trays} trays of {each} {thing} and sells {sold} {thing}. How many {thing} are left?"
    why = f"{who} bakes {trays} * {each} = {baked} {thing}. After the sale {baked} - {sold} = {baked - sold} are left."
    return ask, why, baked - sold


@_story(2)
def _ticket_change(d: Draw) -> tuple[str, str, int]:
    who, place, price, count = d.name(), d.one_of("zoo", "circus", "planetarium"), d.number(6, 19), d.number(2, 5)
    cost = price * count
    note = next(note for note in (20, 50, 100) if note > cost)
    ask = f"{who} buys {count} tickets to the {place} at {price} euros each and pays with a {note}-euro note. "
    ask += "How many euros of change are due?"
    return (
        ask,
        f"The tickets cost {count} * {price} = {cost} euros. The change is {note} - {cost} = {note - cost}.",
        note - cost,
    )


@_story(2)
def _bus_stops(d: Draw) -> tuple[str, str, int]:
    start, off, on = d.number(14, 58), d.number(2, 13), d.number(1, 24)
    ask = f"A bus carries {start} people. At the market {off} get off and {on} get on. "
    ask += "How many people are on the bus now?"
    why = f"After {off} get off, {start} - {off} = {start - off} remain. With {on} more there are "
    return ask, why + f"{start - off} + {on} = {start - off + on} people.", start - off + on


@_story(2)
def _half_gone(d: Draw) -> tuple[str, str, int]:
    who, thing, half, found = (
        d.name(),
        d.one_of("shells", "coins", "stamps", "buttons"),
        d.number(11, 95),
        d.number(3, 60),
    )
    ask = f"{who} had {2 * half} {thing}, gave half of them away and then found {found} more. "
    ask += f"How many {thing} does {who} have now?"
    why = f"Half of {2 * half} is {2 * half} / 2 = {half}. "
    why += f"With {found} more that makes {half} + {found} = {half + found}."
    return ask, why, half + found


@_story(2)
def _fence(d: Draw) -> tuple[str, str, int]:
    who, long, wide = d.name(), d.number(9, 48), d.number(4, 39)
    ask = f"{who} fences a rectangular garden that is {long} metres long and {wide} metres wide. "
    ask += "How many metres of fence does that take?"
    why = f"One long and one short side make {long} + {wide} = {long + wide} metres. "
    return ask, why + f"The garden has each twice: 2 * {long + wide} = {2 * (long + wide)} metres.", 2 * (long + wide)


@_story(2)
def _boxes_needed(d: Draw) -> tuple[str, str, int]:
    who, thing, size = d.name(), d.one_of("eggs", "candles", "light bulbs"), d.one_of("6", "8", "10", "12")
    boxes, first = d.number(7, 26), d.number(11, 40)
    total = int(size) * boxes
    second = total - first
    ask = f"{who} packs {first} white and {second} brown {thing} into boxes of {size}. How many boxes are filled?"
    why = f"There are {first} + {second} = {total} {thing}. They fill {total} / {size} = {boxes} boxes."
    return ask, why, boxes


@_story(2)
def _twice_as_far(d: Draw) -> tuple[str, str, int]:
    (one, other), km, more = d.names(), d.number(3, 45), d.number(2, 17)
    ask = f"{one} cycled {km} kilometres. {other} cycled twice as far and {more} kilometres more. "
    ask += f"How many kilometres did {other} cycle?"
    why = f"Twice {km} is 2 * {km} = {2 * km}. With {more} more that is {2 * km} + {more} = {2 * km + more} kilometres."
    return ask, why, 2 * km + more


@_story(2)
def _tank(d: Draw) -> tuple[str, str, int]:
    litres, rate, minutes = d.number(8, 95), d.number(3, 14), d.number(4, 25)
    added = rate * minutes
    ask = f"A tank holds {litres} litres of rain. A tap adds {rate} litres a minute for {minutes} minutes. "
    ask += "How many litres are in the tank then?"
    why = (
        f"The tap adds {rate} * {minutes} = {added} litres. The tank then holds {litres} + {added} = {litres + added}."
    )
    return ask, why, litres + added


# --- three steps ------------------------------------------------------------------------------------------


@_story(3)
def _market_stall(d: Draw) -> tuple[str, str, int]:
    who, a, b = d.name(), d.number(4, 24), d.number(3, 18)
    pear, melon = d.number(1, 3), d.number(4, 7)
    ask = f"{who} sells {a} bags of pears at {pear} euros and {b} melons at {melon} euros. "
    ask += "How many euros does that bring in?"
    why = f"The pears bring {a} * {pear} = {a * pear} euros and the melons {b} * {melon} = {b * melon} euros. "
    total = a * pear + b * melon
    return ask, why + f"Together that is {a * pear} + {b * melon} = {total} euros.", total


@_story(3)
def _weekly_run(d: Draw) -> tuple[str, str, int]:
    who, short, days, long = d.name(), d.number(3, 11), d.number(3, 5), d.number(12, 26)
    weeks = d.number(2, 9)
    week = short * days + long
    ask = f"Each week {who} runs {short} kilometres on {days} days and {long} kilometres on Sunday. "
    ask += f"How many kilometres is that in {weeks} weeks?"
    why = f"The short runs make {short} * {days} = {short * days} kilometres. "
    why += f"A week has {short * days} + {long} = {week}. "
    return ask, why + f"In {weeks} weeks that is {weeks} * {week} = {weeks * week} kilometres.", weeks * week


@_story(3)
def _saving_for(d: Draw) -> tuple[str, str, int]:
    who, thing = d.name(), d.one_of("guitar", "kayak", "telescope", "sewing machine")
    weeks, weekly, has, earned = d.number(4, 15), d.number(5, 18), d.number(20, 90), d.number(10, 45)
    price = has + earned + weeks * weekly
    ask = f"A {thing} costs {price} euros. {who} has {has} euros, earns {earned} euros by mowing lawns, and then saves "
    ask += f"{weekly} euros a week. After how many weeks can {who} buy the {thing}?"
    why = f"{who} has {has} + {earned} = {has + earned} euros. "
    why += f"{price} - {has + earned} = {weeks * weekly} euros are missing. "
    return ask, why + f"That takes {weeks * weekly} / {weekly} = {weeks} weeks.", weeks


@_story(3)
def _shared_bill(d: Draw) -> tuple[str, str, int]:
    who, friends, share, tip = d.name(), d.number(3, 8), d.number(11, 29), d.number(3, 9)
    food = d.number(friends * share // 2, friends * share - tip - 4)
    drinks = friends * share - tip - food
    ask = f"{who}'s group of {friends} has food for {food} euros and drinks for {drinks} euros and adds a tip of "
    ask += f"{tip} euros. "
    ask += "If they split it equally, how many euros does each pay?"
    why = (
        f"Food and drinks cost {food} + {drinks} = {food + drinks} euros. With the tip it is {food + drinks} + {tip} = "
    )
    return ask, why + f"{friends * share}. Each pays {friends * share} / {friends} = {share} euros.", share


@_story(3)
def _paint(d: Draw) -> tuple[str, str, int]:
    who, long, high, cover = d.name(), d.number(2, 9), d.number(2, 5), d.one_of("2", "4", "5")
    walls = int(cover) * d.number(1, 3)
    area, total = long * high, long * high * walls
    ask = f"{who} paints {walls} walls, each {long} metres long and {high} metres high. "
    ask += f"A tin covers {cover} square metres. "
    ask += "How many tins are needed?"
    why = f"One wall has {long} * {high} = {area} square metres, all of them {area} * {walls} = {total}. "
    return ask, why + f"That takes {total} / {cover} = {total // int(cover)} tins.", total // int(cover)


@_story(3)
def _broken_plates(d: Draw) -> tuple[str, str, int]:
    who, crates, each, tables = d.name(), d.number(3, 9), d.number(10, 24), d.number(4, 12)
    per_table = d.number(2, (crates * each - 2) // tables)
    broken = crates * each - tables * per_table
    ask = f"{who} unpacks {crates} crates of {each} plates; {broken} plates are broken. "
    ask += f"The whole ones are spread equally over {tables} tables. How many plates stand on each table?"
    why = f"There are {crates} * {each} = {crates * each} plates, "
    why += f"{crates * each} - {broken} = {tables * per_table} of them whole. "
    return ask, why + f"On each table stand {tables * per_table} / {tables} = {per_table}.", per_table


@_story(3)
def _ages_together(d: Draw) -> tuple[str, str, int]:
    (one, other), age, years = d.names(), d.number(5, 30), d.number(3, 15)
    gap = d.number(2, min(12, age + years - 2))
    ask = f"{one} is {age} years old and {other} is {gap} years younger than {one} will be in {years} years. "
    ask += f"How old are {one} and {other} together today?"
    later, second = age + years, age + years - gap
    why = f"In {years} years {one} will be {age} + {years} = {later}. {other} is {later} - {gap} = {second}. "
    return ask, why + f"Together they are {age} + {second} = {age + second}.", age + second


# --- four steps -------------------------------------------------------------------------------------------


@_story(4)
def _school_trip(d: Draw) -> tuple[str, str, int]:
    classes, pupils, adults, seats = d.number(2, 5), d.number(17, 26), d.number(4, 14), d.number(40, 55)
    people = classes * pupils + adults
    buses = people // seats + 1
    free = buses * seats - people
    ask = f"{classes} classes of {pupils} pupils and {adults} adults go on a trip in {buses} buses with {seats} "
    ask += "seats each. "
    ask += "How many seats stay empty?"
    why = f"There are {classes} * {pupils} = {classes * pupils} pupils, "
    why += f"so {classes * pupils} + {adults} = {people} people. "
    return (
        ask,
        why
        + f"The buses have {buses} * {seats} = {buses * seats} seats; {buses * seats} - {people} = {free} stay empty.",
        free,
    )


@_story(4)
def _craft_profit(d: Draw) -> tuple[str, str, int]:
    who, thing = d.name(), d.one_of("scarves", "mugs", "lamps", "kites")
    count, cost, gain, rent = d.number(8, 30), d.number(3, 12), d.number(6, 15), d.number(10, 40)
    price = cost + gain
    profit = count * gain - rent
    ask = f"{who} makes {count} {thing} for {cost} euros apiece, "
    ask += f"sells them all at {price} euros apiece and pays {rent} euros "
    ask += "for the stall. How many euros of profit remain?"
    why = f"The sale brings {count} * {price} = {count * price} euros. "
    why += f"Making them cost {count} * {cost} = {count * cost}. "
    why += f"{count * price} - {count * cost} = {count * gain}, "
    why += f"and after the rent {count * gain} - {rent} = {profit} remain."
    return ask, why, profit


@_story(4)
def _orchard(d: Draw) -> tuple[str, str, int]:
    who, rows, trees, each, crate = (
        d.name(),
        d.number(3, 9),
        d.number(4, 11),
        d.number(10, 30, 5),
        d.one_of("20", "25", "50"),
    )
    apples = rows * trees * each
    full, rest = divmod(apples, int(crate))
    eaten = rest + int(crate) if full > 1 else rest
    crates = (apples - eaten) // int(crate)
    ask = f"{who}'s orchard has {rows} rows of {trees} trees, and each tree bears {each} apples. "
    ask += f"{who}'s family eats {eaten} "
    ask += f"apples and packs the rest into crates of {crate}. How many crates are filled?"
    why = f"There are {rows} * {trees} = {rows * trees} trees with {rows * trees} * {each} = {apples} apples. "
    why += f"{apples} - {eaten} = {apples - eaten} are packed into {apples - eaten} / {crate} = {crates} crates."
    return ask, why, crates


@_story(4)
def _two_workers(d: Draw) -> tuple[str, str, int]:
    (one, other), fast, slow, hours, more = d.names(), d.number(9, 25), d.number(3, 8), d.number(2, 8), d.number(2, 5)
    first, second = fast * hours, slow * (hours + more)
    ask = f"{one} folds {fast} leaflets an hour for {hours} hours. {other} folds {slow} an hour, "
    ask += f"but works {more} hours longer. "
    ask += f"How many more leaflets does {one} fold than {other}?"
    if first <= second:
        return _two_workers(d)
    why = f"{one} folds {fast} * {hours} = {first} leaflets. "
    why += f"{other} works {hours} + {more} = {hours + more} hours and folds "
    why += f"{slow} * {hours + more} = {second}. The difference is {first} - {second} = {first - second}."
    return ask, why, first - second


@_story(4)
def _aquarium(d: Draw) -> tuple[str, str, int]:
    red, times, fewer = d.number(4, 18), d.number(2, 4), d.number(1, 3)
    blue = red * times
    green = blue - fewer
    moved = d.number(2, red + blue + green - 5)
    total = red + blue + green
    ask = f"An aquarium has {red} red fish, {times} times as many blue fish, "
    ask += f"and {fewer} fewer green fish than blue fish. "
    ask += f"{moved} fish move to another tank. How many fish stay?"
    why = f"There are {times} * {red} = {blue} blue fish and {blue} - {fewer} = {green} green fish, "
    why += f"{red} + {blue} + {green} = {total} in all. {total} - {moved} = {total - moved} stay."
    return ask, why, total - moved


@_story(4)
def _phone_plan(d: Draw) -> tuple[str, str, int]:
    who, base, free, cents = d.name(), d.number(8, 20), d.number(50, 150, 10), d.number(5, 20, 5)
    extra, months = d.number(20, 120, 20), d.number(2, 6)
    euros = extra * cents // 100
    month = base + euros
    ask = f"{who}'s plan costs {base} euros a month with {free} free minutes; each further minute costs {cents} cents. "
    ask += f"{who} talks {free + extra} minutes a month. How many euros does {who} pay in {months} months?"
    why = f"{free + extra} - {free} = {extra} minutes are charged: {extra} * {cents} = {extra * cents} cents, "
    why += f"{euros} euros. "
    why += f"A month costs {base} + {euros} = {month} euros, {months} months {months} * {month} = {months * month}."
    return ask, why, months * month
