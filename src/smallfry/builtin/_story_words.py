"""Who and what is in the story world of the `stories` job."""

from __future__ import annotations

from smallfry.builtin._words import words

GIRLS = words(
    "Anna Bella Clara Daisy Ella Fiona Greta Hanna Ida Julia Kate Lily Mia Nora Olive Penny Rosa Sara Tina Uma Vera "
    "Wendy Zoe Amy Betty Cora Dora Emma Flora Gina Holly Iris Jane Kira Lucy Molly Nina Ruby Sally Tess Maya Lola Eva"
)
BOYS = words(
    "Adam Ben Carl Dan Emil Finn Gus Hugo Ivan Jack Karl Leo Max Ned Oscar Paul Rob Sam Tom Victor Will Zack Alex Bob "
    "Chris David Eric Frank George Henry Ian Jim Kevin Luke Mark Nick Otto Peter Ray Simon Tim Walter Noah Fred"
)
WOMEN = words("mother grandma aunt sister")
MEN = words("father grandpa uncle brother")
TOYS = words(
    "ball kite doll drum boat truck robot bear puppet sled scooter balloon puzzle marble wagon hoop rocket yoyo "
    "airplane "
    "bicycle horn flute guitar violin trumpet harp bucket spade submarine skateboard pinwheel parachute"
)
THINGS = words(
    "hat scarf glove coat shoe ring key book letter coin cup camera umbrella blanket pillow mirror shell feather "
    "ribbon "
    "necklace spoon brush pencil notebook photo lantern crown button magnet compass telescope wallet mitten sock badge "
    "medal statue candle vase fan comb cap belt bracelet flag plate bow shield sword stamp trophy locket bead apron"
)
CLOTHES = words("hat scarf glove coat shoe crown mitten sock cap belt apron")
OBJECTS = (*TOYS, *THINGS)
ADJECTIVES = words(
    "red blue green yellow purple orange pink white black brown golden silver little big tiny old new shiny soft round "
    "striped wooden lovely pretty fine special bright dotted strange heavy light smooth fancy plain magic dusty"
)
# place -> preposition, and where something can lie there
PLACES: dict[str, tuple[str, tuple[str, ...]]] = {
    "park": ("in", ("under the bench", "behind the big oak", "next to the pond", "on the slide", "beside the swings")),
    "garden": ("in", ("under the roses", "behind the shed", "next to the fence", "among the carrots", "near the gate")),
    "forest": ("in", ("under a fern", "behind a pine", "next to a stump", "on a mossy rock", "inside a hollow tree")),
    "beach": ("at", ("behind a dune", "next to the pier", "on a flat rock", "under a towel", "inside a sand tower")),
    "school": ("at", ("under the desk", "behind the door", "next to the stairs", "on the shelf", "beside the piano")),
    "farm": (
        "at",
        ("under the hay", "behind the barn", "next to the tractor", "on the fence post", "inside the stable"),
    ),
    "market": (
        "at",
        ("under a cart", "behind the fruit stand", "next to the fountain", "among the barrels", "on a crate"),
    ),
    "library": (
        "in",
        ("under the long table", "behind the curtain", "on the top shelf", "next to the globe", "beside the chair"),
    ),
    "river": (
        "by",
        ("under the bridge", "behind the reeds", "next to the old boathouse", "on the bank", "among the stones"),
    ),
    "zoo": (
        "at",
        ("under the sign", "behind the monkey house", "next to the pool", "on the wall", "beside the ticket booth"),
    ),
    "kitchen": (
        "in",
        ("under the sink", "behind the stove", "next to the oven", "on the counter", "inside the cupboard"),
    ),
    "attic": (
        "in",
        ("under the old sofa", "behind a trunk", "next to the window", "on a dusty beam", "inside a basket"),
    ),
    "station": (
        "at",
        ("under the seat", "behind the ticket desk", "next to the tracks", "on the platform", "near the exit"),
    ),
    "playground": (
        "at",
        ("under the ladder", "behind the wall", "next to the sandbox", "on the seesaw", "inside the tunnel"),
    ),
    "lake": ("by", ("under the dock", "behind the willow", "next to the tent", "on the shore", "among the lilies")),
    "meadow": ("in", ("under a bush", "behind a haystack", "next to the well", "on a log", "among the daisies")),
    "village": ("in", ("under the arch", "behind the church", "next to the mill", "on the steps", "beside the pump")),
    "bakery": (
        "in",
        ("under the shelf", "behind the bread", "next to the scale", "on the tray", "inside the flour bin"),
    ),
    "castle ruin": (
        "at",
        ("under the stairs", "behind the tower", "next to the moat", "on the old wall", "inside the gate"),
    ),
    "hill": ("on", ("under the apple tree", "behind a boulder", "next to the path", "on the top", "among the bushes")),
    "harbor": ("at", ("under the net", "behind the crates", "next to the anchor", "on the deck", "beside the ropes")),
    "museum": ("in", ("under the stand", "behind the knight", "next to the dinosaur", "on the bench", "near the door")),
    "cave": ("in", ("under a ledge", "behind a stone", "next to the spring", "on the sand", "inside a crack")),
    "toy shop": (
        "in",
        ("under the counter", "behind the boxes", "next to the till", "on the ladder", "beside the window"),
    ),
}
ANIMALS = words(
    "cat dog kitten puppy rabbit duck hen goat lamb pony turtle frog bird mouse squirrel owl hedgehog pig calf fox "
    "parrot hamster goose sparrow donkey crow swan piglet"
)
FOODS = words(
    "apples pears plums cherries bread cheese soup pancakes cookies honey noodles rice carrots beans corn nuts grapes "
    "berries muffins pie jam porridge peaches bananas tomatoes pumpkins sandwiches popcorn waffles melons"
)
CAKES = words("cake pie bread pudding tart muffin pancake cookie bun waffle")
INGREDIENTS = words("flour milk sugar butter honey salt cream cinnamon yeast oil")
TRAITS = words("kind quiet brave curious funny cheerful gentle clever shy lively careful polite busy dreamy patient")
HOMES = (
    "in a small house near the river",
    "in a tall house with a red roof",
    "on a farm at the edge of the village",
    "above a little shop",
    "in a cottage by the woods",
    "in a busy street full of trees",
    "next to the old mill",
    "in a white house on the hill",
    "at the end of a long road",
    "in a house with a blue door",
    "near the sea",
    "in a flat on the fifth floor",
    "close to the train station",
    "across from the church",
)
LIKES = (
    "climbing trees",
    "drawing pictures",
    "singing songs",
    "telling jokes",
    "counting stars",
    "feeding birds",
    "reading stories",
    "jumping in puddles",
    "collecting stones",
    "baking with flour",
    "watching clouds",
    "dancing",
    "playing chess",
    "making paper hats",
    "riding fast",
    "asking questions",
    "planting seeds",
    "painting walls",
    "running in the wind",
    "looking for bugs",
    "building towers",
    "listening to the rain",
    "writing poems",
    "fishing",
)
TIMES = (
    "one day",
    "one morning",
    "one afternoon",
    "last summer",
    "one evening",
    "on a cold day",
    "on a sunny day",
    "on Monday",
    "on Friday",
    "after breakfast",
    "after school",
    "on the first day of spring",
    "one rainy day",
    "one windy day",
    "on a quiet Sunday",
    "in the middle of winter",
    "one warm night",
    "early one morning",
    "last week",
    "on a Saturday in autumn",
    "before lunch",
    "on the last day of school",
)
SCENES = (
    "The sun was warm and the sky was blue.",
    "A cool wind moved the leaves.",
    "Soft clouds floated over the roofs.",
    "The grass was still wet from the night.",
    "Somewhere a bell was ringing.",
    "Birds sang in every tree.",
    "The air smelled of flowers.",
    "It was so quiet that you could hear the bees.",
    "Thin fog hung over the fields.",
    "People walked by and smiled.",
    "The streets were full of noise.",
    "Dry leaves danced on the ground.",
    "A few drops of rain fell and then stopped.",
    "Bright light shone through the branches.",
    "Far away a train passed.",
    "Snow lay on the roofs like sugar.",
    "The shadows were long and cool.",
    "Bees hummed around the clover.",
)
SAD = words("sad upset worried unhappy miserable troubled")
GLAD = words("happy glad proud pleased cheerful relieved delighted thankful")
