"""The texts that a load is made of: a file's, or some neutral sentences of our own. Knows nothing of HTTP or models."""

import csv
import gzip
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

COLUMN = "text"
FEWEST_REQUESTS = 64
"""So many different requests at least, or the same few would stay in every cache."""


class UnfitTexts(Exception):
    """A file has no texts to send."""


def read_texts(path: Path) -> list[str]:
    """One text a line; of a .tsv the column `text`, or the first. A .gz is unpacked."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        lines = content.decode("utf-8")
    except (OSError, UnicodeDecodeError, EOFError) as error:
        raise UnfitTexts(f"{path}: cannot be read as UTF-8 text ({error}); name another file with --texts") from error
    tabular = ".tsv" in path.suffixes
    texts = [text for text in (_column(lines) if tabular else lines.splitlines()) if text.strip()]
    if not texts:
        raise UnfitTexts(f"{path}: holds no text; one a line is wanted")
    return texts


def requests_of(texts: Sequence[str], rows: int, seed: int) -> list[list[str]]:
    """Shuffle the texts and deal them out, `rows` to a request, as often as it takes to use each at least once."""
    count = max(FEWEST_REQUESTS, -(-len(texts) // rows))
    rng = np.random.default_rng(seed)
    passes = -(-count * rows // len(texts))
    places = np.concatenate([rng.permutation(len(texts)) for _ in range(passes)])
    return [[texts[place] for place in places[start : start + rows]] for start in range(0, count * rows, rows)]


def _column(lines: str) -> list[str]:
    table = [row for row in csv.reader(io.StringIO(lines), delimiter="\t", quoting=csv.QUOTE_NONE) if row]
    if not table or COLUMN not in table[0]:
        return [row[0] for row in table]
    place = table[0].index(COLUMN)
    return [row[place] for row in table[1:] if len(row) > place]


SENTENCES = (
    "The shop closes early on Sunday.",
    "Nothing special.",
    "Tea, please.",
    "It works as described and arrived a day before it was promised.",
    "The train to the coast leaves every hour from the second platform.",
    "I have read the book twice, and the second time I liked its quiet middle part more than the ending.",
    "Two of the four lamps in the corridor flicker when the lift is used.",
    "Our neighbours planted apple trees along the fence, which will need some years before they bear anything.",
    "The film takes its time to begin, but once the two brothers meet again it hardly puts a foot wrong.",
    "A plain room with a good bed.",
    "She asked for a window seat and was given one over the wing, so she slept instead of looking at the mountains.",
    "The update moved the search field to the bottom of the page, where nobody in our office finds it.",
    "Delivery took nine days.",
    "The manual is short, clear and, unlike most manuals, correct.",
    "Rain is expected in the north until the evening, followed by a dry and rather cold night with fog in the valleys.",
    "He returned the keys on Monday.",
    "The battery lasts through a working day if the screen is kept at half its brightness, and not much longer.",
    "They have changed the recipe of the bread again.",
    "A slow, careful documentary about the people who keep an old canal open, told mostly in their own words.",
    "The second half was better than the first.",
    "Please send the invoice to the address below, and add our order number so that it can be matched without a call.",
    "The chair is comfortable, though its arms are a little too high for the table that is sold together with it.",
    "No one answered the phone between noon and two.",
    "The museum has three floors, of which the topmost is closed for repairs until the spring; tickets are cheaper "
    "as long as that lasts, and the guide says that the best paintings hang on the ground floor anyway.",
    "The soup was warm.",
    "In the morning the light falls through the eastern windows and makes the hall look larger than it is.",
    "The instructions mention six screws, the bag had five.",
    "We walked along the river, had lunch under the bridge and were back before the others had found their shoes.",
    "Volume four is missing.",
    "The actors do what they can with a script that explains every joke before it makes it.",
    "Parking is free after seven and all day on public holidays, but the machine does not say so.",
    "The committee will meet again in two weeks to look at the three offers that came in before the deadline.",
    "It is a phone.",
    "My daughter uses the tablet for drawing and says that the pen follows her hand without any delay.",
    "The path is steep, stony and well marked, and takes an ordinary walker some four hours from the car park.",
    "The software starts quickly and then asks, every single time, whether it may look for a new version of itself.",
    "The coffee machine needs to be cleaned once a week; a red lamp says when, and goes out after the cleaning, "
    "unless the water tank was taken out in between, in which case the whole procedure has to be gone through again.",
    "Good value for the price.",
    "The report lists the costs of the last three years by month and leaves out the only figure that we had asked for.",
    "The hotel lies between the station and the old town, so that neither is more than ten minutes away on foot.",
    "The paint dried within an hour.",
    "Her new novel is shorter than the last one, has fewer people in it, and stays in one village from first to last.",
    "The seats at the back are not numbered.",
    "After the third episode the series forgets its own mystery and turns into a pleasant story about a bakery.",
    "The cable is too short for most desks, and a longer one with this plug is hard to find.",
    "He explained the rules in a few sentences, dealt the cards, and won.",
    "The library has extended its hours.",
    "The bicycle came in a large box with the front wheel, the pedals and the handlebar taken off; putting it together "
    "took us half an hour with the tools that were included and a second pair of hands, and it runs well.",
    "Water boils in three minutes.",
    "On the way back the bus was so full that the driver passed our stop without opening the doors.",
    "The garden behind the house is small, shady and almost entirely taken up by one very old pear tree.",
    "The answer came within a day, was friendly, and solved nothing.",
    "The sound is clear at low volume and becomes thin when the room is large.",
    "You may bring your own food.",
    "The exhibition shows forty photographs of the harbour, all of them taken at the same hour on different days.",
    "The jacket keeps the wind out.",
    "We ordered the medium size according to the table on the page and had to send it back for a small one.",
    "A comedy without a single surprise, carried by two people whom it is a pleasure to watch.",
    "The lecture began with a question that nobody in the audience could answer, and ended with the same question, "
    "which by then most of us thought we understood, although the proof was left for the week after.",
    "The lock sticks in winter.",
    "Most of the documents are in the blue folder, the rest in the drawer below it.",
    "The ferry carries forty cars and does not wait.",
    "The first chapter can be skipped by anyone who has used a spreadsheet before.",
    "It does what it should, no more and no less.",
)
"""Between two and some fifty words, mostly ten to twenty-five, as in reviews and messages. Nobody's data."""
