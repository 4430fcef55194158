"""Lists of English function words, and the endings that a stem is found by, for `rules`."""

FUNCTION_WORDS: dict[str, frozenset[str]] = {
    name: frozenset(words.split())
    for name, words in {
        "articles": "a an the",
        "demonstratives": "this that these those",
        "possessives": "my your his her its our their whose mine yours hers ours theirs",
        "personal pronouns": """i you he she it we they me him us them myself yourself himself herself itself ourselves
            themselves""",
        "indefinite pronouns and quantifiers": """all any anybody anyone anything both each either enough every everybody
            everyone everything few many more most much neither nobody none nothing one other others several some somebody
            someone something such""",
        "prepositions": """about above across after against along among around as at before behind below beneath beside
            between beyond by despite down during except for from in inside into like near of off on onto out outside over past
            per since through throughout to toward towards under until up upon via with within without""",
        "conjunctions": """and or but nor so yet because although though while whereas if unless until whether than when once
            since""",
        "forms of 'be'": "am is are was were be been being 's 're 'm",
        "forms of 'have'": "have has had having 've",
        "forms of 'do'": "do does did doing done",
        "modal verbs": "can could may might must shall should will would ought 'll 'd",
        "question words": "who whom whose which what where when why how",
        "negations": "not no never n't nor none nobody nothing neither cannot",
        "adverbs of degree and time": """very too quite rather almost only just even also still already again ever always
            often never sometimes then now soon here there""",
    }.items()
}
NUMBER_WORDS = frozenset(
    [
        "zero",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
        "thirteen",
        "fourteen",
        "fifteen",
        "sixteen",
        "seventeen",
        "eighteen",
        "nineteen",
        "twenty",
        "thirty",
        "forty",
        "fifty",
        "sixty",
        "seventy",
        "eighty",
        "ninety",
        "hundred",
        "thousand",
        "million",
        "billion",
        "dozen",
        "half",
    ]
)
ORDINALS = frozenset(
    [
        "first",
        "second",
        "third",
        "fourth",
        "fifth",
        "sixth",
        "seventh",
        "eighth",
        "ninth",
        "tenth",
        "eleventh",
        "twelfth",
        "twentieth",
        "hundredth",
        "last",
    ]
)
ENDINGS = (
    "ations",
    "ation",
    "ments",
    "ment",
    "ings",
    "ing",
    "ness",
    "able",
    "ions",
    "ion",
    "ies",
    "ed",
    "es",
    "er",
    "ly",
    "s",
    "y",
)
"""Tried in this order; what is left of a word of at least three letters is its stem."""


def stem(word: str) -> str:
    """A word without its ending and without a doubled last consonant.

    >>> {stem(w) for w in ("stop", "stops", "stopped", "stopping")}
    {'stop'}
    """
    for ending in ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word[: -len(ending)]
            break
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "aeiouls":
        word = word[:-1]
    return word.removesuffix("e") if len(word) > 3 else word
