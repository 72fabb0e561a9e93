"""What the guard knows of English: words that say nothing, words that say the same, and words that say the opposite. Data only.

An entry here lets two questions share an answer, so each list holds only what changes no answer; what is missing costs a model call.
"""

from __future__ import annotations

import re


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


SILENT = _set(
    "a an the is are am be been being do does doing has have having there it its what which that this these those and so then some any "
    "just really actually exactly very quite simply basically truly one i me my mine we our ours you your yours"
)
"""Dropped. Not here, because they turn a question: prepositions ("look at", "look for"), third persons, "or", "all", "only"."""

PERSONS = ((_set("i me we"), _set("you")), (_set("my mine our ours"), _set("your yours")))
"""(first, second) person. Dropped too ("how do you", "how do I"), unless one question has only the one and the other only the other
("may I use my logo", "may I use your logo")."""

CONTRACTIONS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), text)
    for pattern, text in (
        (r"\bcannot\b|\bcan't\b", "can not"),
        (r"\bwon't\b", "will not"),
        (r"\bshan't\b", "shall not"),
        (r"(?<=\w)n't\b", " not"),
        (r"\b(what|who|where|when|why|how|that|there|it|he|she|here)'s\b", r"\1 is"),
        (r"(?<=\w)'s\b|(?<=s)'(?=\s|$)", ""),
        (r"\bi'm\b", "i am"),
        (r"(?<=\w)'re\b", " are"),
        (r"(?<=\w)'ve\b", " have"),
        (r"(?<=\w)'ll\b", " will"),
        (r"(?<=\w)'d\b", " would"),
        (r"\be-(?=mails?\b)", "e"),
    )
)

CONTRACTED = re.compile(r"'|cannot|e-", re.IGNORECASE)
"""A text without any of these has no contraction."""

_ME = r"(?:i|we|you|one|someone|people)"
_VERB = r"(?:tell|explain|give|show|list|describe|help|write|summarize|summarise|translate|name|suggest|recommend)"
_WH = r"(?:what|how|why|when|where|who|which)"
_GOOD = r"(?:best|good|right|correct|proper|recommended)"
_WAY = r"(?:way|method|step|process|procedure)s?"
PHRASES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), text)
    for pattern, text in (
        (r"\b(?:please|kindly|hello|hi|hey|thanks|thank you)\b", " "),
        (rf"^\s*(?:can|could|would|will) you (?={_VERB}\b)", " "),
        (rf"^\s*(?:i (?:want|would like|need) to know|do you know|let me know)(?= (?:about|if|{_WH})\b)", " "),
        (r"^\s*tell me\b(?: about\b)?", " "),
        (rf"^\s*explain (?:to me )?(?={_WH}\b)", " "),
        (rf"\bwhat (?:is|are) (?:the |some |a )?(?:{_GOOD} )?{_WAY} (?:to|for|of)\b", " howto "),
        (rf"\bwhat steps (?:do|should|must|can) {_ME} (?:take|follow) to\b", " howto "),
        (rf"\bwhat (?:can|should|could) {_ME} do to\b", " howto "),
        (rf"\bwhat (?:can|should|could|do) {_ME} do\b", " whatdo "),
        (r"\bis there (?:a|any) way (?:to|for me to|i can)\b", " howto "),
        (rf"\bhow (?:(?:do|does|can|could|should|shall|would) {_ME}|to)\b(?: go about)?", " howto "),
        (rf"\b(where|when) (?:do|can|could) {_ME}\b", r" \1 "),
        (r"\bwhat (?:is|are) the number of\b|\bwhat number of\b", " how many "),
        (r"\bwhat (?:is|are) the (?:meaning|definition) of\b|\bwhat is meant by\b|^\s*define\b", " "),
        (r"\bwhat do(?:es)? (.+?) mean\b", r" \1 "),
        (r"\b(what|which) are (?:some |the |a few )?(?:best|good|great|top)\b", r" \1 best "),
        (r"\b(?:turn|switch) on\b", " enable "),
        (r"\b(?:turn|switch) off\b", " disable "),
        (r"\b(?:log|sign) (?:in|on)(?: to)?\b", " login "),
        (r"\b(?:log|sign) (?:out|off)(?: of)?\b", " logout "),
        (r"\b(?:(?:have|has|need|needs)(?= to\b)|ought(?= to\b))", " must "),
        (r"^\s*(?:is|are|was|were|do|does|did|can|could|should|will|would|has|have|had|must|may)\b", r" yesno \g<0> "),
    )
)
"""Turns of phrase, applied in this order to lower-case text with single spaces."""

SAME_WORD = {
    word: group.split()[0]
    for group in (
        "can could may might",
        "should shall",
        "will would",
        "was were did had",
        "who whom",
        "delete remove erase",
        "way method route",
        "photo picture",
        "phone telephone",
        "movie film",
        "buy purchase",
        "begin start",
        "tv television",
        "app application",
        "info information",
        "ad advert advertisement",
        "child kid",
        "fix repair",
        "fastest quickest",
        "to into",
        "on onto",
        "website site",
        "problem issue",
        "favorite favourite",
        "color colour",
        "math maths",
        "center centre",
        "behavior behaviour",
        "fast quick",
        "modify change",
        "km kilometer kilometre",
        "m meter metre",
        "cm centimeter centimetre",
        "mm millimeter millimetre",
        "kg kilogram kilo",
        "g gram",
        "lb lbs",
        "mi mile",
        "l liter litre",
        "ml milliliter millilitre",
        "hour hr",
        "minute min",
        "percent %",
    )
    for word in group.split()
}
"""Word -> the word it is read as."""

IRREGULAR = {"children": "child", "people": "person", "men": "man", "women": "woman", "feet": "foot", "teeth": "tooth", "mice": "mouse"}
NO_PLURAL = _set(
    "glasses customs arms goods news means savings earnings minutes lens series species physics mathematics economics politics athletics "
    "ethics always perhaps gas bus plus yes this thus its has was does is as us bias atlas canvas christmas texas kansas jeans "
    "clothes shorts thanks"
)
"""Words that end in s and would become another word without it."""

_ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth"
_UP_TO_19 = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
)
NUMBERS = (
    {
        word: value
        for words, values in (
            (
                _UP_TO_19,
                range(20),
            ),
            ("twenty thirty forty fifty sixty seventy eighty ninety", range(20, 100, 10)),
            ("hundred thousand million billion", (100, 1000, 10**6, 10**9)),
            ("dozen", (12,)),
        )
        for word, value in zip(words.split(), map(str, values), strict=True)
    }
    | {"half": "1/2", "quarter": "1/4", "twice": "2x", "double": "2x", "triple": "3x", "once": "1x"}
    | {word: f"{n}{'st' if n == 1 else 'nd' if n == 2 else 'rd' if n == 3 else 'th'}" for n, word in enumerate(_ORDINALS.split(), 1)}
)
"""Number words -> digits. `one` is dropped before it gets here ("which one")."""

NEGATIONS = _set("not no never without nor neither none nothing nobody nowhere except excluding unless non hardly barely lack")
NEGATING_PREFIXES = ("un", "in", "im", "ir", "il", "non", "dis", "de", "mis", "anti")
QUESTIONS = _set("howto how why when where who whose yesno")

CASED = _set(
    "us it who may march august polish turkey china apple windows word excel access teams amazon shell target swift rust go mobile bath "
    "reading nice mark bill frank will aids ada java python mercury pascal basic ruby cancer"
)
"""Words that mean another thing with a capital letter."""

_PAIRS = """
enable/disable allow/deny allow/block allow/forbid permit/forbid approve/reject approve/deny accept/reject accept/decline
increase/decrease increase/reduce raise/lower rise/fall rise/drop grow/shrink gain/lose win/lose add/delete add/subtract
plus/minus multiply/divide begin/stop begin/end begin/finish open/close open/closed grant/revoke activate/deactivate
connect/disconnect attach/detach install/uninstall lock/unlock show/hide include/exclude create/delete create/destroy
encrypt/decrypt encode/decode compress/decompress import/export up/down on/off buy/sell before/after min/max minimum/maximum
most/least more/less more/fewer best/worst better/worse advantage/disadvantage pro/con benefit/drawback benefit/risk
benefit/harm strength/weakness good/bad safe/dangerous legal/illegal cheap/expensive cheapest/expensive hot/cold warm/cool
high/low highest/lowest higher/lower big/small biggest/smallest large/small largest/smallest long/short longest/shortest
tall/short fast/slow fastest/slowest faster/slower heavy/light strong/weak stronger/weaker old/new old/young oldest/newest
oldest/youngest older/younger first/last early/late earliest/latest rich/poor easy/hard easy/difficult simple/complex full/empty
wet/dry soft/hard thick/thin deep/shallow wide/narrow bright/dark loud/quiet sweet/sour clean/dirty male/female man/woman
boy/girl husband/wife mother/father mom/dad son/daughter brother/sister push/pull upload/download deposit/withdraw send/receive
sender/receiver sender/recipient borrow/lend debit/credit public/private input/output read/write front/back front/rear
left/right north/south east/west today/tomorrow today/yesterday tomorrow/yesterday morning/evening day/night am/pm
weekday/weekend daily/weekly weekly/monthly monthly/yearly daily/monthly arrive/depart arrival/departure inbound/outbound
enter/leave enter/exit come/go like/hate love/hate like/dislike true/false inside/outside indoor/outdoor above/below over/under
top/bottom internal/external upgrade/downgrade subscribe/unsubscribe cancel/renew refund/charge pay/refund required/optional
employer/employee landlord/tenant buyer/seller teacher/student doctor/patient parent/child adult/child single/married
domestic/international domestic/foreign import/domestic personal/business free/paid rural/urban city/countryside summer/winter
spring/autumn sunrise/sunset save/delete save/spend gross/net always/never everyone/nobody everything/nothing something/nothing
all/none hire/fire pass/fail succeed/fail success/failure ancient/modern past/future positive/negative active/inactive
online/offline manual/automatic temporary/permanent natural/artificial mild/severe major/minor majority/minority supply/demand
cause/effect question/answer question/respond problem/solution ally/enemy war/peace life/death alive/dead birth/death
ascend/descend ascending/descending vertical/horizontal convex/concave acid/alkaline organic/inorganic profit/loss
asset/liability lead/follow guest/host client/server wake/sleep remember/forget float/sink freeze/melt freeze/thaw
expand/collapse expand/contract merge/split push/pop mount/unmount follow/unfollow mute/unmute wrap/unwrap pack/unpack
load/unload
"""


def _opposites() -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for pair in _PAIRS.split():
        a, b = pair.split("/")
        found.setdefault(a, set()).add(b)
        found.setdefault(b, set()).add(a)
    return {word: frozenset(others) for word, others in found.items()}


OPPOSITES = _opposites()
"""Word -> its opposites, both ways. All of them differ and would be vetoed anyway; knowing them names the reason."""
