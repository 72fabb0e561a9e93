"""English words of the asker: their things, their place, and orders to act on them. See `wording`."""

from __future__ import annotations

import re

from workers.classify.wording.patterns import any_of

HOW_TO = any_of(
    r"^(?:and |but |so )?(?:how (?:do|can|could|should|would|might|must|does) (?:i|we|you|one|someone|people|a person)"
    r"|how to|how long (?:do|should|can|must) i|how often (?:do|should|can) i)\b(?! (?:owe|have|stand|look|rank|supposed))",
    r"^what (?:is|are|would be) the (?:\w+ )?(?:(?:best|right|proper|correct|easiest|fastest|quickest|safest"
    r"|simplest) (?:ways?|methods?|approach|time|practices?|process)|steps?|process|procedure|requirements?|rules?|ways?)\b",
    r"^where (?:can|do|should|could) i (?:find|look|see|go|change|check|update|download)\b(?!.* my (?:orders?|packages?"
    r"|parcels?|luggage|phone|keys|car|mail|deliver\w+|flights?|gate|seat)\b)",
    r"^what (?:should|can|could|must|do|would) (?:i|we|you) (?:do|say|write)\b|^what (?:to do|happens|would happen"
    r"|does it mean|do i need to)\b|^(?:what|where|who) .*\bif (?:i|my|someone)\b",
    r"^(?:please )?(?:walk|guide|talk|take) me through\b|^(?:give|show|tell) me (?:the |some )?(?:instructions|steps)\b"
    r"|^(?:please )?(?:tell|show|teach) me (?:how to|the (?:steps|way))\b|^explain how to\b|^(?:can|could|would) you (?:tell"
    r"|show|teach|explain to) me how (?:to|i)\b|^i (?:want|need|would like) to (?:know|learn|find out) how (?:to|i can"
    r"|do i)\b|^(?:what|which) (?:documents?|steps|papers|forms) do i need\b",
    r"^(?:(?:can|could|will|would) you |please |i need you to )*help me (?:to |with )?"
    r"(?!book|find|cancel|order|pay|make|set|schedule|get|send|transfer|check|track|locate|reserve|with my|my)\w+",
)
"""Asks for a way that is the same for everybody, whatever the asker calls theirs."""


GENERAL = any_of(
    r"^how (?:much|many) .{0,30}\b(?:should|can) (?:i|we|you)\b",
    r"^(?:what|which|whose) .{1,40} (?:do|should|can|must|could) i (?:need|use|buy|choose|get|take|read|watch|learn|expect"
    r"|put|wear|cook|bring|eat|drink|feed|plant)\b|^what (?:should|can|could|do|must) i (?:use|need|wear|take|put|bring|know"
    r"|expect|look for|consider|feed|cook|make|serve|eat|drink|read|watch|buy|call|ask)\b",
    r"^why (?:do|does|is|are|am|can|could|will|would|should|cannot|can't|won't|doesn't|don't|isn't|aren't)\b|^when (?:should"
    r"|can|must|may) i\b|^where (?:can|should|could|do|must|would) (?:i|a beginner) (?:find|get|buy|go|learn|see|download"
    r"|apply|start|look|begin|put|store|read|sign)\b",
    r"^(?:can|could|may|should|must|might|would) i (?!see|have|book|reserve|make a|schedule|order|speak|talk|transfer|pay"
    r"|check|hear|add|set|move|cancel|send|access|view|change)|^(?:do|would|will|did) i (?:need|have to)\b|^am i (?:allowed"
    r"|able|required|supposed)\b",
    r"^(?:is|was|would) (?:it|there)\b|^if (?:i|my|someone|you|a|the)\b|^(?:suppose|imagine|assume|pretend)\b",
    r"^(?:explain|describe|teach|tell me (?:what|why|about|a|an|some|the|how)|give me|show me (?:how|an?|some)|recommend"
    r"|suggest|help me (?:understand|write|learn|choose|decide|with)|help|write|draft|create|generate|compose|list|name"
    r"|compare|design|plan|outline|implement|build|find|what are (?:some|good|the)|what is a)\b(?! (?:me )?my\b)",
    r"^i (?:want|need|would like|hope|plan|wish|am trying|am looking|am going) (?:to (?:know|learn|understand|build|make"
    r"|write|create|become|start|find|get better|improve|see how|use|implement|design|hear)|(?:for )?(?:an?"
    r"|some) (?:\w+ )?(?:recipes?|books?|names?|ideas?|lists?|examples?|synonyms?|words?|functions?|scripts?|regex|poems?"
    r"|jokes?|stor(?:y|ies)|explanation|summary|tips|advice|facts?|quotes?|way)s?)\b",
    r"^i am (?:learning|writing|building|preparing|interested|new|an?|studying|designing|making|wondering|curious)\b"
    r"|^i (?:wonder|heard|read|think|thought|believe|understand|do not understand|don't understand)\b|^i have (?:an?|two"
    r"|three|four|five|ten|some|\d+|the following)\b",
)
"""A first person that may stand for anyone, unless it speaks of `RECORDS`."""


RECORDS = (
    r"(?:accounts?|balances?|orders?|bills?|payments?|transactions?|purchases?|charges?|cards?|credit|debit|loans?|mortgage"
    r"|paychecks?|pay|salary|income|wages|pto|vacations?|leave|sick days?|days off|time off"
    r"|w-?2s?|401k|pension|insurance|polic(?:y|ies)|claims?|subscriptions?|memberships?|plans?|bookings?|reservations?"
    r"|appointments?|flights?|tickets?|trips?|itinerar\w+|luggage|baggage|bags?|suitcases?|packages?|parcels?"
    r"|deliver(?:y|ies)|shipments?|location|address|calendar|schedule|meetings?|agenda|lists?|to-?dos?|tasks?|reminders?"
    r"|alarms?|timers?|playlists?|songs?|music|files?|documents?|messages?|e-?mails?|inbox|contacts?|phone|cell"
    r"|name|nickname|birthday|profile|settings|devices?|history|activity|points|rewards|miles|statements?|refunds?|returns?"
    r"|invoices?|cart|wish ?list|favou?rites|progress|scores?|grades?|results?|prescriptions?|usage|data"
    r"|minutes|tax(?:es)?|tax refund|portfolio|budget|spending|expenses?|savings|checking|limit|deductible|benefits"
    r"|routing number|pin|passport|license|allergies|preferences|diagnosis|medical|notes)"
)


MY_RECORD = re.compile(rf"\b(?:my|mine|our)\b(?: [\w'-]+){{0,3}} {RECORDS}\b|\b(?:given|based on|considering|according to|using|from) my\b")


FIRST_PERSON = re.compile(
    r"\b(?:about|of|with|by|than|remember|know|like) me\b|^(?:do|did|have|are|were|will|when do|where do|what do|what did) we\b|"
    r"\b(?:i|my|mine|myself|im|ive)\b|\bour\b(?! (?:solar|planet|galaxy|world|sun|moon|earth|bod\w+|eyes?|brains?|species"
    r"|universe|society|lives|ancestors|time|atmosphere|oceans?|dreams|own))|\b(?:remind|wake|book|order|text|call|send|buy"
    r"|charge|sign|bill|owe|upgrade|notify|locate|find|near|for|take|drive|put|enroll|register|get) (?:me"
    r"|us)\b(?! (?:an? (?:recipe|list|example|name|word|quote|book|way|good)|out|to (?:learn|understand)|some))"
)


COURTESY = re.compile(
    r"^(?:(?:hi|hey|hello|good (?:morning|evening|afternoon)|ok|okay|please|pls|kindly|yo|thanks|thank you"
    r"|excuse me|sorry|so|well|and|but|also|just"
    r"|alright|actually|quick question|question|by the way|alexa|siri|computer)\b[\s,:!.-]*)*"
    r"(?:(?:(?:can|could|would|will) you (?:please )?)?(?:tell|remind) me (?=(?:what|when|who|how (?!to)|where|why|which|if|whether)\b)"
    r"|(?:do|would) you (?:happen to )?know (?=(?:what|when|who|how|where|why|which|if|whether|the)\b)"
    r"|i (?:want|need|would like|would love) to know (?=(?:what|when|who|how (?!to)|where|why|which|if|whether|the)\b)"
    r"|i (?:am|was) (?:just )?(?:wondering|curious) (?=(?:what|when|who|how|where|why|which|if|whether)\b)|(?:if|whether) )?"
)
"""What may stand before a question and changes nothing about it."""

OPENING = re.compile(
    r"^(?:(?:hi|hey|hello|ok|okay|please|pls|kindly|yo|thanks|so|well|also|just|now|then|could|hey there|alexa|siri"
    r"|computer)\b[\s,!.]*)*"
    r"(?:(?:can|could|would|will) (?:you|u) (?:please |kindly |just |mind )?|i (?:want|need|would like|would love|have|wish"
    r"|am going|got|will need|must)(?: you)? to |i (?:want|need|would like|would love) (?:you )?(?=an? \w+)"
    r"|go ahead and |make sure (?:to|you) |be sure to |help me (?:to )?|let us |let me |you (?:should|must|need to|can) "
    r"|we (?:need|have|want) to |is it possible to |i am trying to |do me a favor and |time to |don't forget to "
    r"|let's )*(?:please |go ahead and )?"
)
"""Greetings and courtesies before an order."""


ACT = any_of(
    r"^(?:reserve|cancel|reschedule|remind|wake|dial|pay|wire|withdraw|buy|purchase|reorder|unsubscribe|subscribe|enroll"
    r"|rsvp|upgrade|downgrade|renew|activate|deactivate|freeze|unfreeze|unblock|unlock|dispute|redeem|refund|track|deliver"
    r"|play(?! (?:the role|devil))|pause|skip|shuffle|mute|unmute|dim|brighten|snooze|navigate|hail|notify|phone|whisper"
    r"|send|submit|sync|locate|ping|bring|deposit)\b",
    r"^book (?:an?|me|us|my|the|one|two|some|it|that|\d|flights?|hotels?|tickets?|tables?|rooms?|for)\b|^call (?!of|stacks?"
    r"|by|a function|an? api|options?)|^text (?!to speech|classif|mining|of|editor|generat|wrap)\w|^(?:e-?mail"
    r"|message) (?!templates?|subjects?|marketing|format|etiquette|queue|brokers?|about)\w",
    r"^order (?!of|these|the following|by|statistic|them|book)\w|^transfer (?!learning|function|rna|of)|^(?:turn|switch|shut"
    r"|power) (?:on|off|up|down|it|the|my|out|over)\b|^(?:talk|speak) (?:slow|fast|loud|soft|quiet|in|to me|up|more|less)"
    r"|^roll (?:over|my)\b|^(?:volume|lights?) (?:up|down|on|off)\b|^block (?:my|the|this|his|her|card|account|number)",
    r"^(?:set|reset|change|update|edit|delete|remove|erase|clear|add|put|move|save|open|close|launch|start|stop|switch|raise"
    r"|lower|increase|decrease|turn|crank|order|report|return|file|sign|check|show|find|share|record|log|make|take|use"
    r"|request|apply|claim|confirm|accept|decline|approve"
    r"|invite|join|lock|restart|charge|schedule|tell|let|give|get|list|read|connect|disconnect|pair|view|see|display|pull"
    r"|look|create|arrange|plan|split|speak|calendar|name|rename|swap|enable|disable|ask|contact|block|print|begin|resume"
    r"|repeat|hold)\b.*"
    r"\b(?:my|alarms?|timers?|reminders?|(?:shopping|grocery|to-?do|todo|task|wish) lists?|lists?$|calendar|appointments?"
    r"|meetings?|reservations?|bookings?|phone|accent|volume|brightness|lights?|lamps?|thermostat|heat(?:ing)?|ac"
    r"|air conditioning|fan|tv|television|oven|vacuum|speakers?|music|songs?|playlists?|podcasts?|channel|bluetooth|wifi"
    r"|fraud|stolen|lost card|time off|pto|vacation request|uber|lyft|taxi|cab|ride|directions?|a note|notes|a (?:call"
    r"|payment|transfer|deposit|complaint)|selfie|photo|picture of me|location|voicemail|inbox|messages|account|payments?"
    r"|transactions?|purchases?|bill|balance|claim|complaint|know (?:that|i)|sick day|day off|metric|imperial|(?:your"
    r"|the) (?:name|language|voice|speed|accent|units?|whisper mode)|whisper mode|to the (?:cart|list|basket|queue)|savings"
    r"|checking|credit limit|limit|direct deposit|checks|checkbook)\b",
    r"^(?:get|find|grab|order|call|fetch) (?:me|us) (?:an? |the )?(?:uber|lyft|taxi|cab|ride|car|table|ticket|flight|hotel"
    r"|room|pizza|doctor|reservation)|^(?:take|drive|put|sign|add|check|enroll|upgrade|switch|connect|transfer) (?:me|us)\b"
    r"|^call me\b|^(?:make|get) (?:an? |me an? |us an? )?(?:reservation|booking|appointment|payment)",
    r"^(?:talk|speak|read|say|go|sound|be|respond|answer|reply|switch|change|use|adjust|slow|speed|stop"
    r"|start)\b.*\b(?:faster|slower|slow down|louder|quieter|softer|quiet|accent|voice|volume|whispering|down|up|(?:in|to"
    r"|speaking|using) (?:english|spanish|french|german|italian|chinese|japanese|portuguese|russian|mandarin|korean|arabic"
    r"|hindi))$|^(?:slow|speed) (?:down|up)\b|\b(?:call you|name you|your (?:new )?name (?:is|will be|to)|from now on)\b",
    r"^(?:tell|let|ask|inform) (?!me\b|us\b|about\b|an?\b|the (?:difference|truth|story))[\w']+(?: [\w']+)? (?:know\b|that\b"
    r"|to\b|i\b|we\b)|\b(?:shoot|drop)\b.*\ban? (?:text|message|line)\b|\b(?:text|message) (?:to|for) \w+",
    r"^(?:an? )?(?:\d+[- ])?(?:(?:minute|hour|second)s? )?(?:timers?|alarms?|reminders?|meetings?|appointments?)\b(?: (?:for"
    r"|at|with|to|on|from|in|by)\b|$)|\b(?:timer|alarm|reminder|meeting|appointment|uber|lyft|taxi|cab)\b (?:for|at|with|to"
    r"|on|from|by) ",
    r"\b(?:lights?|lamps?|thermostat|ac|heater|heat|fan|tv|oven|vacuum|dishwasher|blinds|sprinklers?|coffee maker"
    r"|stove)\b (?:on|off|up|down|to \d+|lower|higher|brighter|dimmer)\b|\b(?:warmer|cooler|brighter|darker|hotter"
    r"|colder) in here\b|^make (?:the )?.*\b(?:bedroom|kitchen|room|lights?|house|bathroom|yourself)\b|^(?:kill|lock|start"
    r"|stop|run|unlock|close|open|shut) (?:the |my |all )?(?:\w+ )?(?:lights?|doors?|dishwasher|washer|dryer|vacuum|garage"
    r"|windows?|blinds|fan|heater|oven|engine|car|sprinklers?|house)\b|^crank\b|^(?:talk|speak)(?: with)?(?: me| us)? in \w+",
    r"^(?:an? )?(?:tables?|rooms?|tickets?|flights?|hotels?|reservations?|uber|taxi|cab|rental car) (?:for|to|from|in|at)\b"
    r"|^(?:next|previous) (?:song|track|one)\b|^(?:whisper|quiet|sleep) mode\b|^return (?:this|my|the|an?) (?:item|product"
    r"|shoes|order|package|shirt)",
)
"""Asks for something to be done in the world."""


WISH = any_of(
    r"\b(?:search|find|look|looking|rent|get|need|want|reserve|arrange)\b.*\b(?:flights?|hotels?|motels?|rental|airbnb"
    r"|lodging|a car|a ride|a room|plane tickets?)\b|^fly\b|\bfly (?:to|from|out)\b.*\b(?:to|on|for|in)\b",
)
"""Wants a seat, a bed or a ride found, in whatever form."""


_MATTER = (
    r"(?:payments?|refunds?|cards?|accounts?|address(?:es)?|applications?|bookings?|parcels?|packages?|deliver(?:y|ies)|courier"
    r"|driver|technician|subscription|orders?|invoices?|appointments?|reservations?|transfers?|deposits?|withdrawals?|charges?"
    r"|memberships?|shipments?|loan|bill|che(?:que|ck)|claims?|prescription|test results?)"
)
"""What a customer has with a business. Of somebody's own it is spoken of as "the payment"."""


OWN = any_of(
    r"^(?:did|do|does|was|were|is|are|has|have|had|why (?:was|were|did|has|have|is)|when (?:was|were|did|will|is|does)"
    r"|where (?:did|was|were|is)|who (?:signed|took|received|got|cancelled|has)|how (?:much|many) .*(?:was|were|is|are)|how much)\b"
    rf".*\bthe (?:(?:last|first|next|new|old|second|other|final|whole|online) )?{_MATTER}\b(?! (?:of|in which|for which|that)\b)",
    r"^(?:which|what|whose) (?:\w+ )?(?:address|card|plan|number|e-?mail|account|phone|name|payment method|bank)\b.*"
    r"\b(?:is|are) (?:on (?:file|record)|saved|stored|registered|active|linked)$",
    r"\b(?:order|booking|reservation|ticket|invoice|case|account|claim|confirmation|tracking|policy|flight)(?: number| no\.?"
    r"| id)? ?[#:]? ?#?[a-z]{0,3}\d{4,}\b|\bwhere (?:is|are) (?:the |that )?(?:order|package|parcel|delivery|shipment"
    r"|luggage|refund|remote|keys)\b",
    r"\b(?:any|the|on|all|are|which|what|is|have) (?:\w+ ){0,2}(?:(?:shopping|grocery|to-?do|todo|task) lists?|reminders?"
    r"|alarms?|timers?|voicemails?|meetings?|appointments?|new messages|unread|agenda|calendar|thermostat"
    r"|playlist)\b(?! (?:is|was|invented|work|app|apps)$)",
    r"\b(?:cards?|wallet|purse|phone|luggage|bags?|suitcase|passport|check) (?:was|were|is|got|has been|have been|went"
    r"|did not|didn't|never) (?:lost|stolen|missing|damaged|hacked|compromised|broken|declined|eaten|arrive|show|come)",
    r"\b(?:tank|fuel|gas|tires?|oil|battery|charge)\b.*\b(?:left|level|low|pressure|full|empty|remaining|range|need|needs)\b"
    r"|\b(?:level|pressure)\b.*\b(?:tires?|fuel|gas|oil|tank)\b|\bmpg\b.*\b(?:getting|this|car get)\b|\bhow far can i\b",
    r"\b(?:meetings?|appointments?)\b.*\b(?:between|pm|am|scheduled|planned|set|coming)\b"
    r"|\b(?:rewards?|points|miles|cash ?back)\b.*\b(?:balance|earned|available|account|left)\b",
)
"""The asker's things, named without "my"."""


PLACE = any_of(
    r"\bnear me\b|\bnear ?by\b|\bnearest\b|\bclosest\b|\baround (?:here|me|town)\b|\bclose (?:by|to (?:me|here))\b"
    r"|\bin (?:this|the) (?:area|neighbou?rhood|city|town)\b|\bfrom here\b|\bdirections? (?:to|for|from)\b|\bhere in town\b"
    r"|\bwalking distance\b",
    r"\bhow far (?:is|away|to|are|until|from)\b(?!.*\bfrom (?!here|me))|\bhow long (?:does it|will it|would it|should it"
    r"|is the (?:drive|trip|ride|walk|commute))(?: take)?(?: me| us)?(?: to (?:get|drive|walk|travel|bike|reach|arrive"
    r"|commute))?\b.*\bto (?:get|drive|walk|travel|bike|reach|arrive|commute|the|work)\b(?!.*\bfrom (?!here))",
    r"\b(?:how (?:do|can|should|would|could|to)|way|route|directions?)\b.*\b(?:get|go|drive|travel) to (?!know|sleep|a\b"
    r"|an\b|work with|bed|college|space|the (?:root|bottom|next|settings|menu|moon|point|top))(?!.*\bfrom (?!here|my))"
    r"|^(?:the )?(?:route|way) to\b",
    r"\bhow many (?:miles|kilometers|km|hours|minutes) (?:is it |away |is |until |till )?(?:to|from here|away"
    r"|is)\b(?!.*\bfrom (?!here|me))|\bdistance (?:to|from (?:here|me|my))\b",
    r"\b(?:get|go|drive|way|ride|traffic|commute|bus) (?:home|to work|to the (?:airport|office|store))\b|\b(?:who"
    r"|what) is at (?:the|my) (?:front )?door\b|\b(?:front|garage) door (?:locked|open|closed)\b",
    r"\b(?:current|present|exact|gps) (?:location|position|coordinates|whereabouts)\b|\b(?:what|which) (?:city|state|town"
    r"|street|county)\b.*\b(?:this|here|we|i)\b",
)
"""Counts from where the asker is."""
