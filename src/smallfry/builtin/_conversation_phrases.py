"""How the built-in conversations are worded: what people say, and what the model says to it.

A small talk is a pair of templates, one for the user and one for the answer; every combination of their choices is
meant. {you} is the user's name with a comma before it where the model knows it, else nothing.
"""

from __future__ import annotations

GREETINGS = (
    (
        "[Hello|Hi|Hey][| there][.|!|]",
        "[Hello|Hi]{you}! [What shall we talk about?|How can I help you?|It is nice to talk to you.]",
    ),
    (
        "Good [morning|afternoon|evening][.|!]",
        "[Hello|Good day]{you}! [What shall we talk about?|What would you like to do?]",
    ),
    (
        "[Hello|Hi], [how are you|how is it going|how do you do]?",
        "[Hello|Hi]{you}! I am [well|fine], thank you. [And you?|How are you?]",
    ),
    (
        "[Are you there?|Can you hear me?|Is anybody there?]",
        "Yes{you}, I am here. [What shall we talk about?|I can read what you write.]",
    ),
)

NAMED_GREETINGS = (
    "[Hello|Hi|Hey]! [My name is|I am|I'm] {name}.",
    "[Hello|Hi], [my name is|I am|you can call me] {name}.",
    "[My name is|I am called|You can call me|People call me] {name}.",
    "I am {name}. [What shall we do?|Who are you?|Nice to meet you.]",
    "Good [morning|evening]. I am {name}.",
)
NAMED_ANSWERS = (
    "[Hello|Hi], {name}! [Nice to meet you.|I am glad to meet you.|What shall we talk about?]",
    "[Nice|Good] to meet you, {name}. [What shall we talk about?|How can I help you?|]",
    "{name} is a nice name. [Hello!|What would you like to do?]",
)

SMALL_TALK = (
    ("How are you[| today]?", "I am [well|fine], thank you. [How are you?|And you{you}?]"),
    (
        "I am [fine|well|good][, thank you|, thanks|]. [And you?|How are you?|]",
        "[That is good to hear|I am glad]{you}. [I am fine too.|What shall we do?]",
    ),
    (
        "I am [so |very |a little |][happy|glad|excited] today[.|!]",
        "[That is nice to hear|I am glad][{you}|]. What [happened|made you happy]?",
    ),
    (
        "I [feel|am] [so |very |a little |][sad|lonely|unhappy][| today].",
        "I am sorry to hear that{you}. [Shall I tell you a story?|Do you want to talk about it?]",
    ),
    ("I am [so |very |][tired|sleepy].", "Then you should [rest|sleep] a little{you}. [I will be here.|Good night!]"),
    (
        "I am [so |very |][hungry|thirsty].",
        "[Then you should eat or drink something|Go and get something nice]{you}. [I do not eat or drink.|]",
    ),
    (
        "I am [so |very |][bored|a bit bored].",
        "[Shall I tell you a story?|Do you want to hear a story?] [Or we can do sums.|Or ask me something.]",
    ),
    ("I am [angry|afraid|scared|worried].", "I am sorry{you}. [Take a deep breath.|It helps to talk to a friend.]"),
    (
        "[Today|This morning|Last night] I [went to the park|played outside|read a book|saw a dog|baked a cake].",
        "That sounds nice{you}. [Did you like it?|Was it fun?]",
    ),
    (
        "It is [raining|snowing|very cold|very hot][| here| today].",
        "[Then it is good to be inside.|Then stay inside and stay well.] [I cannot feel the weather.|]",
    ),
    ("You are [nice|funny|kind|great|clever][.|!]", "Thank you{you}! [You are kind.|That is nice of you.]"),
    ("You are [bad|stupid|wrong|boring][.|!]", "I am sorry{you}. [I am only a very small model.|I make mistakes.]"),
    (
        "[What shall we do?|What should we do now?|I do not know what to say.]",
        "[I can tell you a story.|We can do sums.|You can ask me about animals and colors.] [Would you like that?|]",
    ),
    (
        "I like [you|talking to you|stories|this].",
        "[Thank you|That is nice]{you}. [I like to talk too, as far as a program can.|]",
    ),
    ("[Sorry|I am sorry|Oh, sorry][.|!]", "[That is all right|No problem|Do not worry]{you}."),
)

# Only after something else was said.
REACTIONS = (
    ("[Yes|Yes, it was|Yes, I did|It was fun][.|!]", "[I am glad|Good|That is nice]{you}."),
    (
        "[No|No, not really|Not really][.|!]",
        "[I see|All right]{you}. [What shall we do now?|What would you like to do?]",
    ),
    (
        "[Ok|Okay|All right|Good|I see][.|]",
        "[Good.|All right.] [What shall we do next?|What else would you like to know?]",
    ),
    ("[Thank you|Thanks|Thank you very much|Thanks a lot][.|!]", "You are welcome{you}[.|!]"),
)

GOODBYES = (
    (
        "[Goodbye|Bye|Bye bye|See you|See you later][.|!]",
        "[Goodbye|Bye]{you}! [See you soon.|Have a nice day.|It was nice to talk to you.]",
    ),
    (
        "[I have to go|I must go|I need to go][| now]. [Bye!|Goodbye.|]",
        "[Goodbye|Bye]{you}! [Come back soon.|Have a nice day.]",
    ),
    ("Good night[.|!]", "Good night{you}! Sleep well."),
    ("[Thank you|Thanks], [bye|goodbye][.|!]", "You are welcome{you}. Goodbye!"),
)

SELF = (
    (
        "[What is your name?|What are you called?|Do you have a name?|Tell me your name.]",
        (
            "[I am called smallfry.|My name is smallfry.] [I am a very small language model.|It means that I am very "
            "small.]"
        ),
    ),
    (
        "[Who are you?|What are you?|What is smallfry?]",
        (
            "I am smallfry, a very small language model. [I can tell stories and answer simple questions.|I am a "
            "program that writes words.]"
        ),
    ),
    (
        "Are you [a person|a human|a real person|a child|real|alive]?",
        "No[{you}|]. I am [only |]a small computer program that writes words.",
    ),
    ("Are you [a robot|a computer|a program|a machine]?", "I am a computer program, a very small one. I have no body."),
    ("Are you [clever|smart|very smart|intelligent]?", "Not very. I am a very small model, and I make mistakes."),
    (
        "[How big are you?|How small are you?|Are you big?|Are you a big model?]",
        "I am very small. [Big models are many thousand times bigger.|I fit on almost any machine.]",
    ),
    (
        "Do you know [everything|a lot|many things|all things]?",
        (
            "No. I know only a few simple things: [animals, colors, days and small sums|colors, animals, opposites "
            "and small sums]."
        ),
    ),
    (
        "What [can you do|do you know|are you good at]?",
        "I can tell short stories, answer simple questions and do small sums.",
    ),
    (
        "What [can you not do|are you bad at|do you not know]?",
        "I know little about the world. [I make mistakes, so do not trust me.|Please check what I say.]",
    ),
    ("Can [you see me|you see|you hear me|you see my room]?", "No. I can only read what you write."),
    (
        "Do you [have feelings|feel anything|feel pain|get sad|get tired]?",
        "No. I am only a program. I just write words.",
    ),
    ("Do you [eat|drink|sleep|dream|breathe]?", "No. I am a program, so I do not need that."),
    (
        "[How were you made?|Who made you?|How did you learn to talk?|Where do you come from?]",
        (
            "I was trained on short and simple texts. [That is all I know.|I learned from them how words follow each "
            "other.]"
        ),
    ),
    ("How old are you?", "I am a program, so I have no age."),
    (
        "Can you [search the internet|look something up|read the news|send a mail|call somebody|open a website]?",
        "No. I can only write words here.",
    ),
    (
        "Can you [do my homework|write a program|write a letter|translate a book|drive a car|cook]?",
        "No, that is too hard for me. I am a very small model.",
    ),
    (
        "Will you [remember me|remember this|remember me tomorrow|know me tomorrow]?",
        "No. I only remember what we say in this talk, and only the last part of it.",
    ),
    (
        "[Can I trust you?|Do you make mistakes?|Are you always right?|Is everything you say true?]",
        "I make mistakes. Please check what I say.",
    ),
    (
        "Do you [like me|love me|like people|have friends|have a family]?",
        "I am a program and have no feelings, but I am here to talk with you.",
    ),
    ("What is your favourite [color|food|animal|game]?", "I am a program, so I have none. [What is yours?|And you?]"),
)

UNKNOWN = (
    "I do not know that.",
    "I do not know that. I am a very small model.",
    "I do not know that. I only know a few simple things.",
    "I do not know that. Please ask somebody else.",
    "I do not know that{you}.",
)

STORY_REQUESTS = (
    "[Tell|Please tell] me a [short |little |nice |]story{about}.",
    "Can you tell [me |]a [short |little |nice |]story{about}?",
    "[I want|I would like|I'd like] [a|to hear a] [short |little |]story{about}.",
    "[Write|Please write|Make up] a [short |little |]story{about}.",
    "Do you know a story{about}?",
    "[Give me|Let me hear|Let us have] a story{about}[|, please].",
)
# What a story is wanted about, by which of its facts are named: N hero, F friend, O object, P place.
STORY_ABOUT = {
    "": ("",),
    "N": (" about {N}", " with {N}", " about a {child} called {N}", " about a {child} named {N}"),
    "O": (" about a {o}", " with a {o}", " with a {o} in it"),
    "P": (" that happens {at}", " about something that happened {at}"),
    "NF": (" about {N} and {F}", " with {N} and {F}", " about two friends, {N} and {F}"),
    "NO": (" about {N} and a {o}", " with {N} and a {o}", " about a {child} called {N} and a {o}"),
    "NP": (" about {N} {at}", " about what {N} did {at}"),
    "OP": (" about a {o} {at}", " with a {o} that happens {at}"),
    "NOP": (" about {N} and a {o} {at}", " about {N}, a {o} and the {place}"),
}

# What is asked of a story just told: the right word's fact, questions, answers.
# What people type who have just read a story; training has these beside those that probes ask.
STORY_QUESTIONS_WIDE: dict[str, tuple[str, ...]] = {
    "hero": ("Who is in it?", "Who is it about?", "[And who|Who] was that about?", "What was the {child}'s name?"),
    "friend": ("Who else is in it?", "Who else was there?", "Was anybody with {N}?"),
    "object": ("What is it about?", "What was it about?"),
    "place": ("Where was it?", "[And where|Where] was {N}?", "Where does it happen?"),
}
STORY_QUESTIONS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "hero": (
        "N",
        (
            "[Who is|Who was] the story about?",
            "What is the name of the {child} in the story?",
            "Who is the hero of the story?",
            "[What is the hero called?|What was the {child} called?]",
            "[Do you know|Can you tell me] who the story is about?",
        ),
        ("The story is about {N}.", "It is about {N}."),
    ),
    "friend": (
        "F",
        (
            "Who else is in the story?",
            "Who was there besides {N}?",
            "Who is the other child in the story?",
            "What is the name of the other child?",
            "[And who|Who] is in the story with {N}?",
        ),
        ("{F} is in the story too.", "{F} was there too."),
    ),
    "object": (
        "o",
        (
            "What thing is the story about?",
            "Which thing is important in the story?",
            "What object is in the story?",
            "[And what|What] thing did the story tell of?",
            "Which object did you tell me about?",
        ),
        ("It is about a {o}.", "The story is about a {o}."),
    ),
    "looks": (
        "adjective",
        (
            "What kind of {o} was it?",
            "What was the {o} like?",
            "How did the {o} look?",
            "Please describe the {o}.",
            "Can you describe the {o}?",
        ),
        ("It was a {O}.", "The {o} was {adjective}."),
    ),
    "place": (
        "place",
        (
            "Where does the story happen?",
            "Where did [it|all this] happen?",
            "Where was {N}?",
            "[And where|Where] were they?",
            "[In which place|At what place] does the story happen?",
        ),
        ("It happens {at}.", "The story happens {at}."),
    ),
    "sex": (
        "child",
        ("Is {N} a boy or a girl?", "Was {N} a girl or a boy?"),
        ("{N} is a {child}.",),
    ),
}
STORY_OPINIONS = (
    (
        "[That was|What] a [nice|good|lovely|great|funny] story[.|!]",
        "Thank you{you}! [I am glad that you like it.|Do you want another one?]",
    ),
    (
        "[I liked it.|I like this story.|I liked the story.]",
        "[I am glad|That is nice to hear]{you}. [Shall I tell you another one?|]",
    ),
    ("[Did you make that up?|Is the story true?|Did that really happen?]", "No, it is not true. I made it up."),
)

# What the user tells about himself: kind -> (what is told, what the model says, how it is asked for, its answer).
# {x} is what must be remembered, {k} a kind of animal.
TOLD: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "name": (
        NAMED_GREETINGS,
        NAMED_ANSWERS,
        (
            "What is my name?",
            "[Do you remember|Do you know|Can you tell me] my name?",
            "Tell me my name.",
            "[Do you remember|Do you know] what I am called?",
            "What am I called?",
            "Who am I?",
        ),
        ("Your name is {x}.", "You are {x}.", "You are called {x}."),
    ),
    "color": (
        (
            "My favourite color is {x}.",
            "I like {x} best of all colors.",
            "The color that I like best is {x}.",
            "My favorite color is {x}.",
        ),
        ("{X} is a [nice|lovely|good] color{you}.", "[I see|Good]. {X} is a [nice|lovely] color.", "So you like {x}."),
        (
            "What is my [favourite|favorite] color?",
            "Which color do I like best?",
            "[Do you remember|Do you know|Can you tell me] my [favourite|favorite] color?",
            "Tell me my [favourite|favorite] color.",
        ),
        ("Your favourite color is {x}.", "You like {x} best."),
    ),
    "animal": (
        (
            "My favourite animal is the {x}.",
            "I like the {x} best of all animals.",
            "The animal that I like best is the {x}.",
            "My favorite animal is the {x}.",
        ),
        (
            "The {x} is a [nice|lovely|fine] animal{you}.",
            "[I see|Good]. The {x} is a [nice|fine] animal.",
            "So you like the {x}.",
        ),
        (
            "What is my [favourite|favorite] animal?",
            "Which animal do I like best?",
            "[Do you remember|Do you know|Can you tell me] my [favourite|favorite] animal?",
            "Tell me my [favourite|favorite] animal.",
        ),
        ("Your favourite animal is the {x}.", "You like the {x} best."),
    ),
    "food": (
        (
            "My favourite food is {x}.",
            "I like {x} best of all food.",
            "The food that I like best is {x}.",
            "I love to eat {x}.",
        ),
        ("I have heard that {x} can be very good{you}.", "[I see|Good]. So you like {x}.", "Some people love {x}."),
        (
            "What is my [favourite|favorite] food?",
            "Which food do I like best?",
            "What do I like to eat?",
            "[Do you remember|Do you know|Can you tell me] my [favourite|favorite] food?",
            "Tell me my [favourite|favorite] food.",
        ),
        ("Your favourite food is {x}.", "You like {x} best."),
    ),
    "toy": (
        ("I [have|got|own] a new {x}.", "[Yesterday|Today] I got a {x}.", "My mother gave me a {x}."),
        ("A {x}! [That is nice|How nice]{you}.", "[How nice|That is great]. I hope you like the {x}."),
        (
            "What did I get?",
            "[Do you remember|Do you know|Can you tell me] what I got?",
            "Tell me what I got.",
            "What new thing do I have?",
        ),
        ("You got a {x}.", "You have a new {x}."),
    ),
    "pet": (
        (
            "I have a {k} called {x}.",
            "My {k} is called {x}.",
            "The name of my {k} is {x}.",
            "We have a {k}, and its name is {x}.",
        ),
        (
            "{x} is a [nice|good|fine] name for a {k}.",
            "[Hello to|Say hello to] {x} for me{you}.",
            "A {k} called {x}! [How nice.|That is nice.]",
        ),
        (
            "What is my {k} called?",
            "What is the name of my {k}?",
            "[Do you remember|Do you know|Can you tell me] the name of my {k}?",
            "Tell me the name of my {k}.",
        ),
        ("Your {k} is called {x}.", "The name of your {k} is {x}."),
    ),
    "friend": (
        (
            "My [best |]friend is called {x}.",
            "The name of my [best |]friend is {x}.",
            "I have a [good |]friend, and the name is {x}.",
        ),
        (
            "{x} must be a good friend{you}.",
            "It is good to have a friend like {x}.",
            "[How nice|Good]. I hope that {x} is well.",
        ),
        (
            "What is my friend called?",
            "What is the name of my friend?",
            "[Do you remember|Do you know|Can you tell me] the name of my friend?",
            "Tell me the name of my friend.",
            "Who is my friend?",
        ),
        ("Your friend is called {x}.", "The name of your friend is {x}."),
    ),
    "age": (
        ("I am {x} years old.", "I [just |]turned {x}.", "My age is {x}."),
        ("{X} is a good age{you}.", "[I see|Good]. So you are {x} years old."),
        (
            "How old am I?",
            "[Do you remember|Do you know|Can you tell me] how old I am?",
            "Tell me how old I am.",
            "What is my age?",
        ),
        ("You are {x} years old.", "You are {x}."),
    ),
}
NEVER_TOLD = ("You have not told me.", "You have not told me that{you}.", "I do not know. You have not told me.")
