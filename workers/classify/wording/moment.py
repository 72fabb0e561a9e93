"""English words of the moment: time, weather, prices, news, status, chance. See `wording`."""

from __future__ import annotations

import re

from workers.classify.wording.patterns import any_of

_DAY = r"(?:mon|tues|wednes|thurs|fri|satur|sun)day"


_MONTH = r"(?:january|february|march|april|may|june|july|august|september|october|november|december)"


_SPAN = (
    r"(?:seconds?|minutes?|hours?|days?|nights?|weeks?|weekends?|months?|quarters?|years?|decade|seasons?|morning|afternoon"
    rf"|evening|spring|summer|fall|autumn|winter|{_DAY}s?|{_MONTH})"
)


_MONEY = (
    r"(?:usd|dollars?|euros?|gbp|sterling|yen|jpy|pesos?|rupees?|yuan|rmb|francs?|won|rubles?|krona|zloty|lira|baht|dinars?"
    r"|dirhams?|shekels?|ringgit|riyals?|naira|forint)"
)


_CURRENCY = (
    r"(?:baht|dinars?|dirhams?|shekels?|ringgit|rand|riyals?|naira|forint|krone|quid|cents?|usd|dollars?|bucks|eur|euros?"
    r"|gbp|pounds?|sterling|yen|jpy|pesos?|rupees?|inr|yuan|rmb|francs?|chf|won|krw|rubles?|roubles?|cad|aud|kroner|krona"
    r"|zloty|lira|bitcoins?|btc|eth(?:ereum)?|us|american|canadian|mexican|australian|british|japanese)"
)


PROGRAMMING = any_of(
    r"\b(?:python|javascript|typescript|java|golang|bash|linux|docker|kubernetes|html|css|sql|regex|regular expression|json"
    r"|yaml|pandas|numpy"
    r"|postgres\w*|mysql|latex|vim|php|ruby|swift|kotlin|git)\b|\bin (?:go|rust|react|node|excel)\b|c\+\+|c#",
    r"\b(?:write|implement|create)\b.*\b(?:functions?|methods?|scripts?|programs?|class|query|algorithm)\b",
)

DEFINITION = any_of(
    r"^(?:define|explain|describe|why (?:do|does|is|are|would|did)|who invented|what (?:causes?|affects?|factors?"
    r"|influences?|makes)|how come)\b",
    r"^what (?:is|are|was|were) (?:an?\b(?!.*\b(?:worth|costs?|prices?|rates?|to|in|right|going for|like)\b)|meant by"
    r"|the (?:difference|differences|definition|meaning|purpose|point of|concept|formula|role|effects?|causes?|history"
    r"|origin|theory|science))\b",
    r"^what (?:does|do) .*\b(?:mean|do|stand for|measure)\b",
    r"^what (?:is|are) (?!the\b|new\b|up\b|in\b|on\b|going\b|happening\b|\w+'s\b)[\w-]+(?: (?!like\b|in\b|for\b|at\b|on\b"
    r"|doing\b|outside\b|worth\b|to\b)[\w-]+){0,2}$",
    r"^how (?:do|does|is|are) .*\b(?:work|works|affect|affects|form|formed|made|calculated|set|determined|measured|predict"
    r"|predicted|computed|caused|help|differ)\b",
    r"^(?:what|how) .*\bdifference between\b",
)
"""Asks what a thing is, not how it stands: the topic words below do not count."""


EXERCISE = re.compile(
    r"^(?:if|suppose|imagine|assume|given)(?: that)? (?:an?|two|three|\d+) |^an? \w+ (?:has|have|buys|sells|travels|leaves"
    r"|costs)\b"
)
"""A made-up case: its trains and prices are not today's."""


MOMENT = any_of(
    r"\b(?:right now|nowadays|tonight(?:'s)?|today(?:'s)?|todays|tomorrow(?:'s)?|yesterday(?:'s)?|currently|presently|lately"
    r"|recently|recent|latest|newest)\b",
    r"\bnow\b(?! (?:that|known|called|famous))",
    r"\b(?:these days|at the moment|at present|at this (?:time|moment|point)|as of|so far|up[- ]to[- ]date|up[- ]to[- ]the"
    r"|anymore|any more delays)\b",
    r"\b(?:upcoming|ongoing|trending|breaking|coming up|just (?:released|announced|happened|launched|came out))\b",
    r"\b(?:yet|still)\b(?! (?:life|water|another))",
    rf"\b(?:this|next|last|past|coming|previous|following) (?:\d+ |few |couple of |two |three |five |ten )?{_SPAN}\b",
    rf"\b(?:\d+|a|an|one|two|few|several) {_SPAN} (?:ago|from now)\b",
    r"\bhow (?:long|soon|many (?:more |shopping |business )?(?:days?|weeks?|months?|years?|hours?|minutes?|seconds?"
    r"|sleeps?))(?: \w+){0,3} (?:until|till|til|left|remain\w*|before|to go|since|ago)\b",
    r"\bhow long (?:until|till|til|before|since)\b|\bcountdown\b",
    rf"(?<!black )(?<!good )(?<!ash )(?<!fat )(?<!cyber )(?<!palm )(?<!bloody )(?<!giving )\b{_DAY}\b",
    r"^why (?:is|are) .*\b(?:down|offline|trending|closed|delayed|falling|rising|crashing|dropping|so (?:high|low|expensive"
    r"|busy|slow))$(?<!not rising)(?<!not falling)|^(?:has|have) (?!i\b|you\b|we\b|humans?\b|people\b|anyone\b"
    r"|there ever\b)\w+.*\b\w+(?:ed|en|un|ne|wn|won|come|out|met|put)\b(?!.*\bever\b)",
    r"^how (?:is|are) .*\b(?:doing|going|looking|performing|holding up)\b|^how (?:is|are) the (?:lines?|markets?|roads?"
    r"|commute|surf|snow|queue|economy|crowd)\b|\b(?:trading|selling) (?:at|for)\b",
    r"\b(?:later|in a (?:bit|while|minute|moment)|soon|early morning)\b",
    # How a story stands; one with its year in it is over.
    r"^what(?:'s|s| has| is| ever)? happen(?:ed|ing) (?:to|with|at)\b(?!.*\b(?:in|of|during) 1?\d{3}\b)",
)
"""Time words that count whatever the question is."""


CURRENT = re.compile(r"\bcurrent\b(?! (?:liabilit|asset|ratio|density|divider|mirror|transformer|source|flow))")


CURRENT_OF_PHYSICS = re.compile(r"\b(?:alternating|direct|electric(?:al)?|ocean|eddy|rip|water|air|sea|induced|gulf|jet) current\b")


CURRENT_OF_PROGRAMS = re.compile(
    r"\bcurrent (?:date|time|timestamp|datetime|directory|user|page|line|row|branch|url|element|working|file|node|index"
    r"|thread|process|commit|year|month|day)\b"
)


STATE = any_of(
    # weather
    r"\bweather\b|\bhow (?:hot|cold|warm|humid|windy|chilly|wet|rainy|bad) (?:is|will|was|does|did|are) (?:it|the)\b"
    r"|\bthe temp\b|\b(?:highs?|lows?) (?:for|in|of the day)\b|\blike outside\b",
    r"\b(?:forecasts? (?:for|in|call)|the forecast|air quality|uv index|pollen count|(?:high|low) tide|sunset|sunrise"
    r"|wind speed|wind chill|chance of)\b",
    r"\b(?:will|is|does|did|has|was|would|be|going|if) (?:it|there)?(?: \w+){0,3} ?(?:rain|snow|hail|thunderstorm|sunny"
    r"|windy|cloudy|humid|foggy|freezing|chilly)(?:ing|y|ed|s)?\b",
    r"\b(?:is it|will it|does it)(?: \w+){0,3} (?:hot|cold|warm|wet|dry|nice|cool|muggy|mild)\b|\b(?:hot|cold|warm"
    r"|humid)\b.*\b(?:outside|out there|in \w+$)",
    r"\b(?:umbrella|raincoat|sunscreen|snow tires)\b|\btemperature (?:outside|in (?!which|celsius|fahrenheit|kelvin"
    r"|degrees))|\bdegrees (?:outside|in)\b|\b(?:rain|snow)(?:ing)? in\b|\b(?:rain|snow|storms?|showers|precipitation"
    r"|sun)\b.*\b(?:expected|coming|chances?|possible|likely|forecast\w*|predicted)\b|\bexpect\w*\b.*\b(?:rain|snow|storms?"
    r"|showers)\b|\bhow much (?:rain|snow)\b|\b(?:jacket|coat|sweater|wear|dress|pack)\b.*\b(?:in|for|outside) \w+$",
    # clock and calendar
    r"\bwhat (?:time|hour)\b(?! ?zones?)|\b(?:the|local|exact|got) time\b(?! (?:complexity|of|signature|series|machine"
    r"|travel\w*|limit|value|being|zone|period|frame|it takes))|^time\b(?! (?:complexity|travel|series|zone|management))"
    r"|\bwhat is the (?:exact )?(?:time|date|day|hour|month|year)\b(?! (?:of|complexity|value|signature|limit|line|format))",
    r"\b(?:the )?(?:time|date) (?:in|is it|at)\b|\b(?:what|which) (?:day|date|month|year) (?:is|was|will|does|do|it)\b"
    r"|\bday of the week\b|\btell me the (?:time|date|day)\b|^(?:the )?(?:time|date)(?: please)?$",
    r"(?:^|\bknow |\btell me |\bme know |\bsee )when (?:is|are|does|do|will|should the|can the)\b(?! (?:it (?:appropriate"
    r"|best|okay|ok|safe|necessary|possible|better|acceptable)|an?\b|i\b|you\b|one\b|people\b))",
    r"\bnext (?!number|term|step|line|level|word|letter|element|item|prime|section|chapter|to\b|generation|page|permutation"
    r"|larger|smaller|integer|in the|song|track)\w+",
    r"\b(?:public |bank |federal |national )?holidays?\b.*\b(?:coming|soon|when|day|next)\b|\bwhen\b.*\bholidays?\b",
    # prices
    r"\bhow much (?:is|are|was|for|would|will|does|do|did|to)\b(?!.*(?:percent|%|\bplus\b|\bminus\b|\btimes\b|\bdivided\b"
    r"|\d+ (?:and|of|in|x)\b|\btoo much\b|\bweigh|\bshould\b|\bneed\b"
    r"|\b(?:cups?|ounces?|grams?|kilograms?|kg|pints?|quarts?|liters?|litres?|gallons?|tablespoons?|teaspoons?|inch(?:es)?"
    r"|feet|foot|miles?|tons?|acres?)\b|\b(?:eat|sleep|drink|exercise|differ|contain|know|take to)\b))",
    r"\b(?:prices?|pricing|priced|fares?|quotes?)\b(?! (?:elasticity|discrimination|ceiling|floor|theory|index|sensitivity"
    r"|of anarchy|from|by|attributed))|\bcosts? of\b|\bwhat does .*\bcost\b|\bgoing (?:rate|for)\b|\bhow expensive\b"
    r"|\bcurrenc(?:y|ies)\b|\bworth (?:in|against|today|of)\b|\bis .*\bworth$",
    r"\b(?:exchange|interest|mortgage|savings|loan|conversion|inflation|unemployment|refinanc\w+|prime|apr|cd"
    r"|annual percentage) rates?\b|\brates? (?:on|for|at|of)\b.*\b(?:loan|mortgage|account|cd|card|savings)",
    r"\b(?:stocks?|shares?)\b(?! (?:exchange|split|photo|pot|of the))|\b(?:nasdaq|dow jones|s&p|ftse|market cap|net worth"
    r"|stock market|bitcoin|ethereum|crypto\w*)\b|\bmarkets? (?:open|close|doing|up|down)\b",
    rf"\b{_CURRENCY}\b.*\b(?:to|in|into|for|from|is|get|equal\w*|and|worth)\b.*\b{_CURRENCY}\b|\b(?:gas|fuel|petrol|diesel"
    rf"|oil|gold|silver)\b.*\b(?:going for|cost|price|barrel|gallon)|[$€£¥]\s?\d+.*\b(?:to|in|into) {_CURRENCY}\b",
    rf"\b(?:value|rates?|worth|strong\w*|weak\w*|conversion)\b.*\b{_MONEY}\b|\b{_MONEY}\b.*\b(?:rates?|value|worth|trading)\b"
    rf"|\brates? between\b",
    r"\b(?:cheap|cheaper|cheapest|affordable|best) (?:flights?|tickets?|hotels?|deals?|airfares?|plane)\b|\b(?:on sale"
    r"|deals? (?:on|at|for)|discounts?|coupons?|promo(?:tion)?s?|sales? (?:at|on|going))\b",
    # news, results
    r"\b(?:news|headlines?|election results?|standings|box office|top stories)\b|\b(?:updates?|latest|word"
    r"|developments) (?:on|about|in|from)\b|\bwhat is (?:happening|going on|new|up|trending|hot|popular)\b",
    r"\bwho (?:won|is winning|is leading|lost|scored|is playing|plays|is ahead)\b(?!.*\b(?:battle|war|1\d\d\d|20[01]\d"
    r"|202[0-4]))|\bdid (?:the )?\w+(?: \w+)? (?:win|lose|beat|play|score)\b",
    r"\b(?:the|final|current) scores?\b(?! card)|\bscores? (?:of|for|in) the\b|\bpeople (?:are )?(?:saying|talking)\b"
    r"|\bwhat (?:has )?changed in\b",
    r"\bmost (?:popular|viewed|watched|downloaded|streamed|followed|subscribed|valuable|used|played)\b|\bbest[- ]selling\b"
    r"|\bhighest[- ](?:paid|grossing|rated)\b|\b(?:rankings?|ranked|leaderboard|charts?|world record|top (?:\d+|ten|five"
    r"|three|songs|movies|selling|rated|grossing))\b",
    r"\b(?:gdp|unemployment|national debt|debt ceiling|wealthiest|richest|net worth|release date|tour dates?|moon phase"
    r"|phase of the moon|(?:water|river|snow|sea) (?:level|temperature|depth)s?|snowfall|snowpack|wave height)\b"
    r"|\bversions? of\b|\b(?:what|which) version\b",
    r"^will (?:the|there|it|they|he|she)\b|^did .*\b(?:resign|launch|announce|release|arrive|call|close|pass)\b|^(?:is"
    r"|are) .*\b(?:going to|coming (?:out|back|to|soon)|about to|expected to)\b|\bodds (?:of|on|for)\b"
    r"|\bis there an? (?:sale|strike|game|match|concert|storm|holiday|outage|parade|fire)\b",
    r"\bhow many (?:seats|tickets|rooms|spots|units|tables|spaces|beds|items|copies|people)\b.*\b(?:left|available|remaining"
    r"|in stock|waiting|ahead)\b|\b(?:api|server|site|website|app|service|system|network|internet)\b.*\b(?:slow|down|working"
    r"|up|unavailable|broken)\b",
    # status, availability, schedules
    r"\b(?:status|state) (?:of|on|for|update)\b|\b(?:flight|train|bus|server|service|system|website|site|order|ticket|build"
    r"|deployment) (?:status|delay\w*|cancell?\w*)\b|\b(?:outages?|downtime)\b",
    r"\b(?:is|are) (?!it\b)[\w'. -]{1,40}\b(?:down|up and running|open|opened|closed|working|online|offline|available"
    r"|on time|delayed|late|in stock|sold out|busy|crowded|running|out yet|over|safe to travel|canceled|cancelled)\b",
    r"\b(?:are there|is there|any)\b.*\b(?:available|open|left|delays?|rooms|seats|tables|tickets|accidents?|vacanc\w+"
    r"|traffic|flights?|events?|concerts?|openings?|construction|warnings?|alerts?)\b",
    r"\b(?:in stock|availability|wait(?:ing)? times?|long (?:is|are) the (?:wait|lines?|queues?)|how (?:busy|crowded|packed)"
    r"|busy|crowded|\bwait$|(?:long|bad|big)\b.*\b(?:wait|line|queue)s?|traffic(?! (?:light|sign|law|cone|jam in))"
    r"|road (?:conditions|closures)|accident on|wait (?:at|for|in))\b",
    r"\b(?:opening|closing|business|store|operating|visiting|office) (?:hours|times?)\b|\bhours (?:of|for|at)\b|^(?:when"
    r"|how late|until when|till when)\b.*\b(?:open|opens|close|closes)\b|\bopen (?:late|until|till|past|on|at|24)\b"
    r"|\bhow late\b",
    r"\b(?:showtimes?|timetables?|schedules?) (?:for|of|in|at)\b|\b(?:movies?|films?|shows?|concerts?|games?|bands?"
    r"|events?)\b.*\b(?:playing|showing|on tv|in town|tonight|happening|in theaters?)\b|\bon (?:tv|television|netflix"
    r"|hulu)\b|^what (?:concerts|events|movies|games)\b|\bwhat is (?:playing|on)\b",
    r"\bflights? (?:from|to|number|out|\w{2} ?\d|\d)|\b(?:arrive|arrives|arriving|land|landing|depart|departs|departing"
    r"|boarding)\b.*\b(?:flight|train|plane|bus)|\b(?:flight|train|plane|bus)\b.*\b(?:arrive|arrives|arriving|land|landing"
    r"|depart|departs|leave|leaves|boarding)\b",
    r"\bis it (?:safe|dangerous|okay|ok) to (?:travel|visit|go|fly)\b|\b(?:safe|dangerous|unsafe)\b.*\b(?:travel|visit"
    r"|tourists?)|\btravel\w*\b.*\b(?:safe|dangerous|alerts?|bans?|restrictions?)|\b(?:song|track|music|artist"
    r"|band)\b.*\b(?:playing|on the radio)\b",
    r"\b(?:apr|interest rates?|(?:min|minimum) payment|due date)\b.*\b(?:on|for|of|with|from|at)\b",
    r"\b(?:hotels?|motels?|car rentals?|rental cars?|airbnbs?|flights?)\b.*\b(?:in|near|from|to|for|on|around)\b",
    r"\b(?:travel|health|safety) (?:alerts?|warnings?|advisor\w+)\b|\b(?:recall|recalled|recalls)\b.*\b(?:on|for|any)\b",
    # who or how many, as of now
    r"^who (?:is|are|leads|runs|owns|holds|heads) .*\b(?:president|prime minister|premier|ceo|cfo|cto|king|queen|pope"
    r"|chancellor|governor|mayor|senators?|secretary|champions?|leader|head|coach|manager|captain|owner|director|chair\w*"
    r"|minister|ambassador|speaker|quarterback|host|record|richest|wealthiest|oldest living|number one)\b",
    r"^who (?:leads|runs|owns|heads|is in charge)\b|\bhow old (?:is|are) (?!the (?:universe|earth|sun|moon|oldest))"
    r"|\bpopulation of\b|\bhow many (?:\w+ )?(?:people|followers|subscribers|users|employees|members|cases|deaths|views"
    r"|players)\b.*\b(?:have|has|does|do|are|is|live|use|on)\b|\bis \w+(?: \w+)? (?:alive|dead|married|retired|pregnant)\b",
    rf"\b(?:exchange|exchanging|exchanged)\b(?! (?:student|program|server|of ideas|vows))|\bhow (?:many|much)\b.*\b(?:for|get"
    rf"|worth)\b.*\b{_MONEY}\b",
    r"\b(?:the|what|which|actual|exact) (?:date|day)\b(?! (?:of|after|before|that|the|did|was|care|trip|job))\b.*\b(?:is"
    r"|it)\b|\bwhat is it like (?:in|outside)\b",
    r"\b(?:hot|cold|warm|chilly|humid) (?:out|outside|there|in)\b|\b(?:temps?|degrees) (?:in|is it|outside|there)\b",
    r"\b(?:hard|easy|possible|long) to get (?:a table|in|into|seated|a seat)\b|\b(?:dangers?|violence|unrest|threats?"
    r"|precautions?)\b.*\b(?:in|travel\w*|going|visiting)\b",
    r"\b(?:minimum|living|average) wages?\b|\b(?:tax|vat|duty) rates?\b|\bhow many (?:\w+ )?people (?:work|live)\b"
    r"|\b(?:tallest|oldest|richest|shortest|heaviest|youngest) (?:living|person|man|woman|people)\b"
    r"|\b(?:fastest|largest|biggest|most powerful) (?:super)?computers?\b|\b(?:has|have|holds?|won) the most\b",
    # and what else goes by the day
    r"\b(?:first|second|third|fourth|last|top|bottom|leading|ahead)\b(?!.*\b(?:1\d\d\d|20[01]\d)\b)"
    r".*\b(?:league|bundesliga|la liga|serie a|ligue 1|nba|nfl|nhl|mlb)\b",
    r"\b(?:lottery|jackpot|powerball|horoscope|full moon|hiring|job openings|eta|fixtures|line-?ups?|roster|playoffs?"
    r"|league table|tee times?)\b"
    r"|\bof the day\b|\bon the menu\b|\bin (?:power|office)$|\b(?:travel|drive|driving) time\b"
    r"|\bleft in the (?:year|month|week|day|season|quarter|game)\b",
    r"^is it (?:\w+ )?(?:day|night|daytime|night-?time|dark|light|morning|winter|summer|spring|autumn|weekend|leap year|\w+day)\b"
    r"|\bwhat season is it\b|\bhow long (?:has|have)\b(?! i\b)|\bno longer\b|\blast time\b",
    r"\bnew (?:movies?|releases?|songs?|albums?|shows?|games?|music|phones?|iphone|features?|laws?|episodes?|restaurants?"
    r"|update|season)\b"
    r"|\bunder [$€£]?\d+(?: dollars| euros| bucks)?$",
)
"""Topics whose facts move, where a question asks how they stand."""


CHANCE = any_of(
    r"\b(?:flip\w*|toss\w*|throw)\b.*\bcoin|\bcoin\b.*\b(?:flip|toss|throw)|\bheads\b.*\btails\b|\b(?:roll\w*|throw|toss"
    r"|cast|shake)\b.*\b(?:die|dice|d\d+|sided)\b|\b(?:die|dice)\b.*\b(?:roll|throw|toss)",
    r"\brandom(?:ly)? (?:number|name|card|word|choice|pick|fact|letter|color|colour|choose|select|generate)\b|\bat random\b"
    r"|\bpick a (?:number|card)\b|\bsurprise me\b",
    r"^(?:(?:can|could|would|will) you )?(?:generate|create|make|give|invent|suggest|produce|provide|think of|come up with) (?:me |us )?"
    r"(?:an?|another|some|the|\w+|\d+)?(?: (?!for\b|of\b|on\b|about\b)[\w-]+){0,3}? ?"
    r"\b(?:uuids?|guids?|passwords?|passphrases?|passcodes?|pin codes?|pins?|otps?|nonces?|salts?|api keys?|secret keys?|access tokens?)\b"
    r"(?! (?:generators?|policy|policies|managers?|fields?|forms?|resets?))",
)
"""Answers that must differ each time."""
