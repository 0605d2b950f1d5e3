"""Names that no story has: those people bring along, and invented ones, so that a model learns to repeat any name."""

from __future__ import annotations

import random

from smallfry.builtin._split import choose, part_of
from smallfry.builtin._words import words
from smallfry.job import SplitName

_GIVEN = words(
    "John Mary James Linda Robert Susan Michael Karen William Nancy Thomas Lisa Joseph Sarah Charles Betsy Daniel "
    "Ashley Matthew Emily Anthony Donna Steven Michelle Andrew Carol Joshua Amanda Kenneth Melissa Brian Deborah "
    "Edward Stephanie Ronald Rebecca Jason Laura Jeffrey Sharon Ryan Cynthia Jacob Kathleen Gary Angela Nicholas "
    "Shirley Jonathan Brenda Stephen Pamela Larry Nicole Justin Samantha Scott Katherine Brandon Christine "
    "Benjamin Rachel Samuel Carolyn Gregory Janet Patrick Maria Raymond Heather Dennis Diane Jerry Tyler Julie "
    "Aaron Joyce Jose Victoria Nathan Kelly Kyle Lauren Zachary Martha Dylan Abigail Ethan Sophia Logan Isabella "
    "Mason Olivia Lucas Charlotte Liam Amelia Aiden Harper Elijah Evelyn Caleb Ava Owen Chloe Wyatt Layla Hunter "
    "Riley Isaac Zara Gabriel Aria Julian Stella Priya Arjun Ananya Rahul Kavya Vikram Deepa Sanjay Meera Rohan "
    "Aisha Omar Fatima Hassan Leila Yusuf Amina Karim Salma Tariq Noor Khalid Zainab Ibrahim Mei Wei Jing Hao "
    "Ling Chen Yuki Haruto Sakura Kenji Aiko Hiroshi Naoko Takeshi Minh Linh Thuy Duc Jisoo Minjun Seoyeon Hyun "
    "Ingrid Lars Astrid Sven Freya Bjorn Sigrid Anders Elin Nils Giulia Marco Chiara Luca Francesca Matteo "
    "Alessia Lorenzo Sofia Diego Lucia Carlos Carmen Pablo Elena Javier Marta Sergio Camila Mateo Valentina "
    "Thiago Beatriz Joao Ines Rui Claire Pierre Camille Louis Manon Hugues Amelie Etienne Anke Dieter Heike "
    "Jurgen Ulrike Klaus Petra Wolfgang Agnieszka Piotr Kasia Tomasz Olga Dmitri Svetlana Andrei Natasha Yuri "
    "Katya Boris Amara Kwame Zuri Jabari Nia Kofi Imani Chidi Adaeze Emeka Ngozi Tunde Thandi Sipho Lerato Tamar "
    "Avi Yael Noam Shira Eitan Esra Mehmet Elif Emre Selin Deniz Ada Alan Grace Ken Barbara Dana Gil Ravi Lena "
    "Mila Jonas"
)
_BEGIN = words("B Br C Ch D Dr F G Gr H J K Kl L M N P Qu R S Sh St T Th Tr V W Y Z")
_VOWEL = words("a e i o u ai ea ie oo")
_MIDDLE = words("b d f g k l m n p r s t v z ll mm nd rn rr sh st th")
_END = words("a e i o n l r s m k th ra la na ri ko mi ta ndo lin mar nis rek son vin wen")


def new_name(rng: random.Random, part: SplitName) -> str:
    """A name of a split: half of them people have, half are made of syllables."""
    while True:
        name = choose(rng, _GIVEN) if rng.random() < 0.5 else _invented(rng)
        if part_of(f"new name|{name}") == part:
            return name


def _invented(rng: random.Random) -> str:
    middle = choose(rng, _MIDDLE) + choose(rng, _VOWEL) if rng.random() < 0.5 else ""
    return choose(rng, _BEGIN) + choose(rng, _VOWEL) + middle + choose(rng, _END)
