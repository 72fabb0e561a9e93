"""English words that point outside the text: at earlier turns, at attachments, at things without a name. See `wording`."""

from __future__ import annotations

import re

from workers.classify.wording.patterns import any_of, words

CONTINUES = any_of(
    r"^(?:continue|proceed|resume|repeat|go on|go ahead|go back|keep (?:going|on|it up|writing)|carry on|try again|elaborate"
    r"|undo|redo|and|but|or|also|then|what about|how about|what else|anything else|why not|same|the same|instead|not (?:that"
    r"|this)|more|again|another|next)\b(?! (?:or|and) )(?=$|[\s,.!?])(?! (?:\w+ ){0,3}(?:smoking|than one))",
    r"^(?:yes|yeah|yep|no|nope|ok|okay|thanks|thank you|great|sure|exactly|wrong|correct|really|never ?mind|perfect"
    r"|affirmative|negative|absolutely|definitely|certainly|of course|not really|maybe|possibly|perhaps|probably|true|false"
    r"|right|agreed|i agree|i disagree|i guess(?: so)?|i suppose(?: so)?|i don't think so|i am not sure|not sure"
    r"|i don't know|forget it|stop|cancel|abort|got it|i see|alright|fine|good)(?:$|,| (?:please|thanks|that|it|but|and)\b)",
    r"^(?:why|how|when|where|who|what|which(?: one)?|how so|since when|how come|are you sure|is that so|says who)$",
    r"^(?:an? )?(?:much |a bit |a little |even |one )?(?:shorter|longer|simpler|better|simplif\w+|clearer|more (?:formal"
    r"|casual|concise|details?|detailed|examples?|info\w*)|less \w+|expand|rephrase|clarify|shorten|in (?:more|other"
    r"|simple\w*|fewer|one|two|three|english|french|german|spanish|italian|python|java|javascript|short|bullet"
    r"|a) ?\w*(?: \w+)?)(?: please)?$",
    r"\b(?:you|we|he|she|they) (?:just |already )?(?:said|mentioned|told|wrote|suggested|gave|meant|mean|were saying"
    r"|did before|discussed|talked about)\b|\bdid (?:you|we|i|he|she) (?:just )?(?:mean|say|mention|tell|talk)\b|\bas (?:i"
    r"|you|we) (?:said|mentioned|told|discussed)\b|\byour (?:last|previous|first|second|earlier|answer|response|reply"
    r"|suggestion|point|explanation)\b|\bi (?:said|meant|told you|asked)\b",
    r"\b(?:the|do|is|with|use|just) (?:the )?same (?:for|with|again|thing|way|format|style|but|to|on|as (?:before|above"
    r"|last)|question|one|approach)\b|\bdo the same\b|\bsame (?:for|with|question|thing|but)\b|\b(?:like|as) (?:before"
    r"|last time|earlier|previously)\b|\btry again\b|\b(?:once )?(?:again|instead|as well|further|one more time"
    r"|a second time)$|\brepeat\b(?! (?:purchases?|customers?|offend|until|loops?|order))|\b(?:did not|didn't|couldn't"
    r"|could not) (?:catch|hear|get|understand)\b|\bcome again\b|\bpardon\b|\bwhat was that\b|\bsay (?:that|it|again)\b"
    r"|\b(?:wrong|right) here$|^here (?:is|are) my\b",
    r"\bgive me (?:another|more|one more|a different|the rest|some more|others?)\b|\b(?:another|one more|a different"
    r"|some other|any other) (?:one|example|version|way|option|joke|idea|suggestion|answer|approach|try)s?\b|\b(?:tell me"
    r"|say|write|show me|explain|a bit|some|know) more\b(?! (?:about|on|than|of))|\bthe \w+ one$|\bmore (?:details?"
    r"|examples?|info(?:rmation)?|context|ideas|options|like)\b(?! (?:about|on|of|regarding))",
    r"\b(?:the|that|this) (?:first|second|third|fourth|fifth|last|other|next|previous|latter|former|final|middle|top|bottom"
    r"|left|right|remaining) (?:one|ones|option|choice|sentence|paragraph|part|point|example|suggestion|answer|question|half"
    r"|line|step|item|approach|version|method|row|column|bullet|section|chapter)s?\b(?! (?:of|in) (?!it|that|this|the\b))",
    r"\b(?:the former|the latter|the rest|the others?|the previous|the preceding|the earlier"
    r"|previous(?:ly)? (?:\w+ )?(?:answer|question|paragraph|message|response|example|turn)|mentioned (?:above|earlier"
    r"|before)|aforementioned|what (?:comes |happens )?next|then what|which (?:one|is (?:better|best|cheaper|faster|right"
    r"|correct))$|(?:option|choice|number) (?:\d+|[a-d]|one|two|three)$)",
    r"\b(?:who|what|where|how|when|anything|anyone|something|nothing|anybody) else\b"
    r"|^what do you (?:think|suggest|recommend|mean)$|^now what$",
    r"\bany (?:other|more|better) (?:ideas?|suggestions?|options?|questions?|examples?|ways?)$",
)
"""Goes on from something said before."""


ATTACHED = re.compile(
    r"\b(?:attached|attachments?|enclosed|uploaded|screenshots?|(?:the|this|that) (?:image|picture|photo|photograph"
    r"|video(?! (?:game|card|call|codec))|audio|recording|pdf|slides?|spreadsheet|chart|graph|diagram|scan))\b"
)


_THING = (
    r"(?:documents?|articles?|texts?|passages?|paragraphs?|sentences?|e-?mails?|letters?|files?|code|snippets?|functions?"
    r"|scripts?|programs?|lists?|links?|pages?|reports?|papers?|essays?|conversations?|transcripts?|stor(?:y|ies)|poems?"
    r"|reviews?|answers?|questions?"
    r"|responses?|repl(?:y|ies)|outputs?|results?|options?|versions?|drafts?|errors?|messages?|data|dataset|contracts?"
    r"|recipes?|steps?|points?|items?|examples?|chapters?|tables?|books?|context|input|content|word|words|product|person|guy"
    r"|number|numbers|letter)"
)


POINTS = any_of(
    r"\b(?:this|these)\b(?! (?:keyword|pointer|day and age|is spelled))",
    r"\bthose\b(?! (?:who|that|of us|with|days))",
    r"\bthat (?:one|again|thing|guy|person|last|previous|stuff|way|word|sentence|code|text|question|answer|number)\b"
    r"|\bthat\s*$|\bthat[?.!,;]|^that\b|^(?:is|was|does|did|will|can|could|would|should|do|are) that\b|^(?:what|who|where"
    r"|when|why|how) (?:is|was|does|did|about|would|can) that\b",
    r"\b(?:about|of|like|with|after|before|do|than|explain|repeat|translate|summari[sz]e|fix|change) that\b(?! (?:the|an?"
    r"|they|we|he|she|it|you|there|are|is|can|have|has|do|does)\b)",
    r"\b(?:the|as|text|see|from|mentioned|listed|shown|given|code|question|one|ones|everything|all) (?:above|below)\b"
    r"|\b(?:above|below) (?:text|code|passage|article|paragraph|sentence|list|table|example|image|question|data"
    r"|conversation)|\b(?:above|below)$|\bfollowing\b(?! (?:up|an?|from|orders|me))[^.?!\n]*[.?!]?\s*$|\bas follows\W*$",
    rf"^(?!how (?:do|can|to|should|could|would) )(?:.*\b)?(?:the|my|your|his|her|their) {_THING}(?: (?:above|below))?(?:$"
    rf"|[?.!,;]| (?:say|says|in (?!the world|which)|into|to \w+$|for me|please|again|is|does|mean|means|and|about|shorter"
    rf"|longer|better|from|mention|mentions|contain|contains|using|as|by|with)\b)",
    r"\b(?:question|step|point|item|option|part|section|line|page|chapter|exercise|problem|figure) (?:\d+|[a-d])(?:$|[?.!,;]"
    r"|\b(?! (?:of|in) [a-z]))",
    r"\b(?:get|go|been|live|from|over|up|stay|eat|do|works?) there\b(?! (?:is|are|was|were))|^(?:is|are|was|were) they\b"
    r"|\bthe (?:person|man|woman|people|object|animal|sign|text) in the\b",
    r"^(?:translate|summari[sz]e|explain|fix|rewrite|shorten|proofread|correct|improve|format|check|review|debug|refactor"
    r"|convert|compare|analy[sz]e|paraphrase|classify|describe|simplify|edit|expand|continue)(?: (?:please|again|further"
    r"|briefly|now|here))*$|^(?:translate|convert|turn|change|rewrite)(?: it| this| that)? (?:in)?to \w+(?: \w+)?$",
    r"\b(?:the|these|those) (?:two|three|four|five)$|\bbetween (?:the two|them)$"
    r"|\bboth of (?:them|these|those)\b|\b(?:an?|any|some|another) (?:\w+ )?ones?$",
    r"\bthe (?:author|speaker|narrator|writer|sender)\b(?! of\b| in \w+ \w+)|\bthe (?:customer|client|candidate|user|patient|caller)$",
)
"""Points at an object that ought to stand beside the question."""


PRONOUN = re.compile(r"\b(?:it|its|they|them|their|he|him|his|she|her|hers)\b")


OBJECT = re.compile(r"(\w+) (?:it|them|him|her)\b")
"""A pronoun behind the verb that takes it: what stands before is no noun."""

EXPLETIVE = any_of(
    r"\b(?:what time|what day|how late|how far) (?:is|was) it\b|\bit (?:rains?|snows?|hails?)\b|\bdoes it (?:rain|snow|take"
    r"|hurt|mean (?:to|when|if|for)|matter|make sense|feel like|cost to)\b|\b(?:it|that) (?:takes?|took) (?:to|for|an?)\b"
    r"|\b(?:long|much|many \w+|time|days|hours) (?:will|would|does|did|should|can) it take\b",
    r"\b(?:is|was|would|will|does|can|isn't) it (?:\w+ ){0,3}(?:to|that|if|for|when|like|in|under|with)\b|\bit (?:is|was"
    r"|would be) (?:\w+ ){1,3}(?:to|that|if|for|when)\b|\bmake it (?:possible|easier|harder|easy|hard) to\b"
    r"|\bis it called (?:when|if)\b",
)


NAMELESS = words(
    "a an the of to in on at by for with from as is are was were be been being am and or but if than then that this these"
    " those it its he she they"
    " them his her hers him their we us our you your yours i me my mine do does did done have has had having will would can"
    " could may might shall should must not no nor so such"
    " into over under about after before between during out up down off again also there here when where which who whom"
    " what why how all any both"
    " each few more most other some own same too very just only s t don please now yes ok okay well really much many lot"
    " get got make makes made use used work works go goes"
    " going come mean means tell give show say said says explain summarize summarise translate fix rewrite change put take"
    " want need like know think see look find let help try"
    " bit little one ones thing things way good bad better best new old big small born expensive cheap cheaper meet met"
    " happen happens happened happening long short sure still different everything something"
    " color colour size shape brand isn't aren't wasn't doesn't don't didn't can't won't working works cost costs hard easy"
    " free called true false wrong right correct fast slow possible kind type sort"
)
"""Words that name nothing a pronoun could stand for."""


GENERIC = NAMELESS | words(
    "difference differences pros cons advantages disadvantages reason reasons cause causes author title moral tone ending"
    " introduction conclusion"
    " equation expression statement claim grammar spelling problem problems error errors bug bugs summary text document"
    " documents article paragraph"
    " passage sentence sentences essay email letter story poem resume cover code function program snippet script table list"
    " file page report"
    " first second third fourth last next previous main key whole rest part parts step steps answer answers question"
    " questions point points"
    " example examples option options version versions detail details line lines word words bullet idea result results"
    " output message response"
    " shorten expand convert format check solve review compare add remove edit improve debug rephrase reply respond"
    " continue elaborate clarify describe"
    " list write read analyze analyse evaluate rate proofread correct paraphrase simplify refactor classify extract"
    " identify highlight outline draft"
    " english french german spanish italian portuguese russian chinese japanese python java javascript rust golang formal"
    " informal friendly friendlier"
    " shorter longer simpler clearer concise professional casual polite funny humor briefly detail further quickly"
    " carefully everything anything nothing"
    " two three four five side effects content input prompt conversation chat topic name names"
    " reply tell everyone someone somebody else based according following"
)
"""Words that only name something once the thing itself has been named."""
