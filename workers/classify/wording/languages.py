"""The same for German, Spanish, French, Russian and Chinese, in their obvious words, and how a language is told. See `wording`."""

from __future__ import annotations

import re

OTHER_LANGUAGES: dict[str, dict[str, re.Pattern[str]]] = {
    "de": {
        "how_to": re.compile(
            r"^wie (?:kann|könnte|soll|muss|setze|ändere|lösche|kündige|storniere|bekomme|finde|mache|melde|richte|installiere"
            r"|aktiviere) ich\b|^was (?:muss|soll|kann) ich\b|^(?:kann|darf|muss|soll) ich\b|^wie \w+ man\b"
        ),
        "personal": re.compile(
            r"\bmein(?:e[rnms]?)?\b|\bmir\b|\bmich\b|\bich\b|^(?:bitte )?(?:storniere?|bestelle?|buche?|kündige?|überweise?"
            r"|erinnere?|sende?|schicke?|rufe?|bezahle?|reservier\w*|stelle?|spiele?|mach\w* das licht)\b|in der nähe"
        ),
        "volatile": re.compile(
            r"\b(?:heute|heutige\w*|morgen|gestern|jetzt|derzeit|aktuell\w*|momentan|gerade|wetter\w*|uhrzeit|nachrichten|neueste\w*"
            r"|neuigkeiten|kostet|kosten|preise?|wechselkurs|kurs|zurzeit|noch|öffnungszeiten|geöffnet|offen|stau|verspätung"
            r"|nächste[rnsm]?|regnet|schneit)\b|wie (?:spät|viel uhr)|wie viel uhr|\bdiese[rsnm]? (?:woche|monat|jahr|abend)"
            r"|letzte[rnsm]? (?:woche|nacht|monat|jahr)|\bwann (?:ist|fährt|kommt|beginnt|öffnet|schließt)"
        ),
        "deictic": re.compile(
            r"\bdies(?:e[rnms]?|es)?\b|\bdas\W*$|^mach\w* (?:das|es)|\bobige\w*|\boben\b|\bangehängt\w*|\banhang|^(?:und|weiter"
            r"|nochmal|kürzer|länger|mehr|warum|wieso|ja|nein|das gleiche|was ist mit)\b|\bvorherige\w*|\bdas (?:dokument|bild)\b"
            r"|\bnochmal\b"
        ),
    },
    "es": {
        "how_to": re.compile(
            r"^¿?(?:cómo|como) (?:puedo|se|hago|debo|cambio|cancelo|restablezco)\b|^¿?qué (?:debo|necesito|tengo que)\b|^¿?(?:puedo"
            r"|debo)\b"
        ),
        "personal": re.compile(
            r"\b(?:mi|mis|mío|mía|tengo|debo|quiero|necesito|yo)\b|^(?:por favor,? )?(?:cancela|reserva|compra|paga|envía|llama"
            r"|recuérdame|pon|transfiere|pide|ponme|despiértame|apaga|enciende)\b|cerca de (?:mí|aquí)"
        ),
        "volatile": re.compile(
            r"\b(?:hoy|mañana|ayer|ahora|actual\w*|últim\w+|recientes?|precios?|cuesta|cuestan|vale|clima|pronóstico|noticias"
            r"|próxim\w+|todavía|aún|abierto|abierta|tráfico|cotización)\b|tiempo hace|qué hora|est[ea] (?:semana|noche|tarde|mes"
            r"|año)|tipo de cambio|llueve|lloverá|\bcuándo (?:es|sale|llega|abre|cierra)"
        ),
        "deictic": re.compile(
            r"^¿?(?:y|pero|continúa|sigue|otra vez|más|sí|no|por qué\W*$|lo mismo)\b|\b(?:esto|eso|este|ese|esa|aquello)\b|\besta\b"
            r"|\b\w+(?:lo|la|los|las) (?:más|en|al|de nuevo|otra)\b|\banterior\b|\badjunt\w+|\barriba\b|lo mismo|^haz(?:lo|la)"
        ),
    },
    "fr": {
        "how_to": re.compile(
            r"^comment (?:puis-je|dois-je|faire|peut-on|on|je (?:peux|dois|fais)|changer|réinitialiser|annuler)\b|^que (?:dois-je"
            r"|faire)\b|^(?:puis-je|dois-je)\b"
        ),
        "personal": re.compile(
            r"\b(?:mon|ma|mes|mien\w*|je|moi|j'ai|j')\b|\bme\b|^(?:s'il (?:te|vous) plaît,? )?(?:annule[rz]?|réserve[rz]?"
            r"|achète[rz]?|paie|payez|envoie[rz]?|envoyez|appelle[rz]?|rappelle|commande[rz]?|mets|allume|éteins|joue)\b"
            r"|près de (?:moi|chez)|à proximité"
        ),
        "volatile": re.compile(
            r"aujourd'hui|\b(?:demain|hier|maintenant|actuel\w*|actualités?|dernières?|derniers?|récent\w*|prix|coûte|coûtent|météo"
            r"|nouvelles|prochaine?s?|encore|ouvert\w*|trafic|cours de)\b|temps (?:fait|fera)|quelle heure|ce (?:soir|matin|mois"
            r"|week-end)|cette (?:semaine|année|nuit)|il pleut|en ce moment|taux de change|\bquand (?:est|part|arrive|ouvre|ferme)"
        ),
        "deictic": re.compile(
            r"^(?:et|mais|continue[rz]?|encore|plus|oui|non|pourquoi\W*$|la même chose|idem)\b|\b(?:ceci|cela|ça|ce texte"
            r"|ce document|cet|celui|celle)\b|\bces?\b(?! (?:que|qui|soir|matin|mois))|\bci-(?:dessus|dessous|joint\w*)"
            r"|\bprécédent\w*|pièce jointe|\b(?:-le|-la|-les)\b|la même chose"
        ),
    },
    "ru": {
        "how_to": re.compile(
            r"^как (?:мне |можно |я могу )?(?:\w+ть|\w+ться|\w+ти)\b|^что (?:мне )?(?:делать|нужно)|^(?:можно ли|нужно ли)"
        ),
        "personal": re.compile(
            r"\b(?:мой|моя|моё|мое|мои|моего|моей|моих|моим|мою|я|мне|меня|у меня)\b|^(?:пожалуйста,? )?(?:отмени\w*|забронируй\w*"
            r"|закажи\w*|купи\w*|оплати\w*|отправь\w*|позвони\w*|напомни\w*|переведи (?:деньги|\d)|поставь\w*|включи\w*|выключи\w*"
            r"|разбуди\w*)\b|рядом|поблизости|ближайш"
        ),
        "volatile": re.compile(
            r"\b(?:сегодня\w*|завтра|вчера|сейчас|текущ\w+|последни\w+|новост\w+|погод\w+|цен[аыу]|стоит|стоят|курс\w*|нынешн\w+"
            r"|недавн\w+|пока|ещё|еще|открыт\w*|следующ\w+|пробк\w+|акци[ийя])\b|котор(?:ый|ого) час|сколько (?:сейчас )?времени"
            r"|на этой неделе|в этом (?:году|месяце)|до (?:нового года)|\bкогда (?:будет|начн\w+|откро\w+|придёт|придет)|дождь|снег"
        ),
        "deictic": re.compile(
            r"^(?:а|и|но|продолж\w+|ещё|еще|дальше|да|нет|почему\W*$|короче|то же)\b|\b(?:это|этот|эта|эти|этого|этой|этом|эту|тот"
            r"|та|те)\b|\bвыше\b|\bпредыдущ\w+|прикрепл\w+|вложен\w+|то же самое|\bего\b|\bеё\b"
        ),
    },
    "zh": {
        "how_to": re.compile(r"^(?:请问)?(?:我)?(?:如何|怎么|怎样|该怎么|应该怎么)"),
        "personal": re.compile(r"我的|我|帮我|提醒|取消.{0,4}订单|预订|预定|转账|打电话|附近|播放|关灯|开灯"),
        "volatile": re.compile(
            r"今天|明天|昨天|现在|目前|当前|最新|最近|天气|新闻|价格|多少钱|几点|汇率|股价|今年|本周|这周|今晚|下一|还有多久|是否开门|营业|路况"
        ),
        "deictic": re.compile(
            r"这|那(?!不勒斯)|上面|上述|以上|前面|继续|附件|同样|再来|再说|它|他们|^(?:为什么|然后|好|是|不|更多|更短)[?？。!！]*$|呢[?？]?$"
        ),
    },
}


ENGLISH = re.compile(
    r"\b(?:in|into|these|those|me|all|about|give|write|tell|there|was|were|the|a|an|is|are|do|does|did|how|what|where|when"
    r"|who|why|which|of|to|on|for|and|or|with|from|i|you|it|can|my|not|be|by|at|as|please|if|this|that)\b"
)


HINTS: dict[str, re.Pattern[str]] = {
    "de": re.compile(
        r"[äöüß]|\b(?:der|das|und|ist|nicht|ein|eine|einen|wie|ich|zu|mit|von|für|dem|auf|wo|bitte|mein\w*|wann|warum|wieso"
        r"|welche\w*|sind|wird|heute|hast|kann|mach|storniere?|kündige|bestelle?|buche|dies\w*|nochmal)\b"
    ),
    "es": re.compile(
        r"[¿¡ñáíú]|\b\w+ción\b|\b(?:el|una|para|por|cómo|qué|cuál|hazlo|hazla|cancela|reserva|precio|hoy|mi|mis|esto|eso|pedido)\b"
    ),
    "fr": re.compile(
        r"[èêçàùâîôû]|\b(?:le|les|est|une|où|quels?|quelles?|je|pour|dans|mon|cette|votre|annule[rz]?|ces|sont|avec|comment"
        r"|traduis|résume|et)\b|\b(?:qu|l|d|j|c|n)'\w"
    ),
}
"""A letter or word that another language has and English hardly."""


_ENGLISH_TASKS = (
    r"\b(?:explain|define|describe|list|translate|recommend|suggest|compare|summari[sz]e|solve|more|best|tips|steps"
    r"|examples?|difference|meaning|history"
    r"|benefits|using|recipes?|show|find|make|create|name|much|many|vs|some|any|provide|help|need|want|know|use|like|good"
    r"|discuss|outline|implement|design"
    r"|generate|calculate|convert|spell|analy[sz]e|identify|plan|learn|first|two|three|between|during|after|before|only|most"
    r"|new|her|his|their|its|our|your)\b"
)
FUNCTION_WORDS = re.compile("|".join([ENGLISH.pattern, _ENGLISH_TASKS, *(hint.pattern for hint in HINTS.values())]))
"""A text of some length without one of these is in another language."""
OTHER_SCRIPT = re.compile(r"[^\W\d_a-zßà-öø-ÿœšžąćęłńóśźżğışčřůýěďťňőűșțāēīōūа-яё\u3400-\u4dbf\u4e00-\u9fffµªº℃αβγδεθλμπρσφω²³]")
"""A letter of a script without rules here (kana, Hangul, Arabic, Hebrew, Devanagari, Thai, Ukrainian's own, …)."""
