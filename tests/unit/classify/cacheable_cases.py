"""Sentences and whether their answers may be cached, written before the rules that they test.

cacheable: any asker gets the same answer for days. volatile: depends on the moment. personal: on who asks, or acts for them.
deictic: points at something that is not in the text. Where two labels fit, personal wins over volatile over deictic; what the tests
demand is only that the last three are never called cacheable.
"""

CACHEABLE = r"""
How do I reset my password?
how can i change the email address on my account
What are the steps to reset my password?
What should I do if my card gets stolen abroad?
how do i cancel a subscription
Where can I find my invoice number on the invoice?
How long does a refund usually take?
What documents do I need to open a bank account?
Do I need a visa to travel from Spain to Brazil?
can you take a power bank on a plane
Is it safe to eat raw eggs?
Is it possible to learn Mandarin in two years?
Why is my sourdough not rising?
why does my cat knead blankets
Why do my knees crack when I squat?
What is the capital of Australia?
what's the boiling point of ethanol
Who wrote The Master and Margarita?
When was the Eiffel Tower built?
In what year did the Berlin Wall fall?
Who won the battle of Hastings?
What happened to the Titanic in 1912?
What happened at the battle of Hastings in 1066?
Which team won the 1998 football world cup?
How many bones are in the human body?
how far is the moon from the earth
How tall is Mount Kilimanjaro?
what does ephemeral mean
define photosynthesis
Spell the word accommodate
what is a synonym for happy
How do you say good morning in Portuguese?
how would you say where is my luggage in italian
Translate When was the account of Marco Polo written?
Why was the Marshall Plan important?
Why do card payments fail?
What does it mean when a payment is pending?
Which planet is the fastest?
What is the tallest mountain?
Did the Vikings reach America?
Why was the order of the Templars dissolved?
Where did the Pilgrims land?
How do tax rates work?
What is an application server?
"Where is my order?" into German.
translate i will be there tomorrow to french
Convert 5 miles to kilometers.
how many ounces are in a cup
How much is 15 percent of 240?
what is 17 times 23
Solve 3x + 5 = 20.
If a train leaves at 3 pm and travels 120 km at 60 km/h, when does it arrive?
A farmer has 17 sheep and all but 9 run away. How many are left?
I have three apples and eat one; how many remain?
What is the derivative of x^2 sin x?
Explain the difference between TCP and UDP.
explain recursion to a five year old
Compare quicksort and mergesort.
What does HTTP status code 404 mean?
What is alternating current?
How do ocean currents affect climate?
What causes rain?
why does it snow
How do meteorologists predict the weather?
What is inflation and what causes it?
how does a stock exchange work
What is the difference between a stock and a bond?
What is price elasticity of demand?
How is an interest rate set by a central bank?
What is a routing number?
what does apr stand for
How does a credit score work?
What factors affect a credit score?
what is the difference between a debit card and a credit card
How do I write a unit test in pytest?
Write a Python function that reverses a linked list.
Write a function in Go that returns the current time as RFC 3339.
How do I get the current date in JavaScript?
how to undo the last commit in git
What does git rebase do?
Write a SQL query that finds the second highest salary in a table named employees.
Why does this code raise a KeyError?\n```python\nd = {}\nprint(d["a"])\n```
Fix the bug in the following function:\ndef add(a, b):\n    return a - b
Explain what this regular expression does: ^[a-z]+\d{2}$
Summarise the following text: The Danube rises in the Black Forest and flows into the Black Sea. It crosses ten countries.
Summarize this paragraph: "Bees pollinate a third of our food crops, and their numbers have been falling since the nineties."
Classify the sentiment of this review: I hated my stay, the room was dirty and my order never came.
Extract all dates from this sentence: The contract was signed on 3 May 2019 and ended on 1 June 2021.
Rewrite this sentence in the passive voice: The dog chased the postman.
Correct the grammar: me and him goes to school yesterday
Translate into Spanish: Please cancel my appointment for tomorrow.
Is the following statement true? All prime numbers are odd.
What is the meaning of the phrase "right now"?
What does the word "today" come from?
Proofread this: Their going to there house.
Put these numbers in ascending order: 5, 3, 9, 1
Write a haiku about autumn leaves.
Write a short story about a dragon who is afraid of fire.
Write an email template that announces a maintenance window to customers.
tell me a joke about cats
Tell me a fun fact about octopuses.
give me a recipe for banana bread
how long should i boil an egg
what can i use instead of buttermilk
how many calories are in an avocado
What temperature should chicken be cooked to?
Suggest five names for a bakery.
What are good gifts for a ten year old who likes science?
recommend a book about the roman empire
what are your capabilities
are you a robot
who made you
What is your return policy?
Do you ship to Canada?
Which payment methods do you accept?
How do I enable two-factor authentication?
How do I install Docker on Ubuntu?
how do i jump start a car
how often should i change my oil
How do I remove a red wine stain from a carpet?
what is the best way to clean a cast iron pan without ruining it
How should I prepare for a marathon?
can i eat bread that is slightly stale
should i put avocado in the fridge
I want to learn the guitar. Where should a beginner start?
what's the difference between a roth ira and a traditional ira
how does a 401k work
Explain like I'm five how vaccines work.
What are the symptoms of the flu?
how do vaccines help the body
When is it appropriate to use a semicolon?
what was the first video game ever made
What time zone is Nairobi in?
Which countries border Switzerland?
what language do they speak in brazil
Name three mammals that lay eggs.
What is the plot of Hamlet?
Who painted the ceiling of the Sistine Chapel?
What are the rules of chess?
Describe how a transformer model works.
What is the next number in the sequence 2, 4, 8, 16?
Give me an example of a metaphor.
Generate a regex that matches an IPv4 address.
Design a database schema for a library.
Implement binary search in Rust.
Analyze the causes of the First World War.
Outline an essay on the French Revolution.
list the planets of our solar system
What is the difference between affect and effect?
how does a refrigerator keep food cold
what happens if you mix bleach and ammonia
Why is the sky blue?
why is black friday called black friday
How is paper made?
What are the benefits of meditation?
what insurance do i need to rent a car
how can i improve my credit score
how do i check my balance online
Wie setze ich mein Passwort zurück?
Was ist die Hauptstadt von Kanada?
¿Cómo puedo restablecer mi contraseña?
¿Cuál es la capital de Perú?
Comment puis-je changer mon mot de passe ?
Quelle est la capitale de l'Italie ?
Как сбросить пароль?
Какая столица Франции?
如何重置密码？
法国的首都是哪里？
Which country has the most time zones?
how many moons does jupiter have
Are eggs good for you?
What is a good score on the SAT?
Why is my bread dough not rising?
where do i find the serial number of a laptop
What is the difference between weather and climate?
How do I say "what's the weather like today" in Czech?
What is a stock option?
Which is better for beginners, Python or Java?
How do I parse the current timestamp in Java?
Write a Python script that rolls two dice.
How do I create a password?
Create a password policy for a small company.
Give me tips for strong passwords.
Who won the first Premier League in 1993?
If a shop sells apples at 2 dollars each, how much do 7 apples cost?
Rewrite in a friendlier tone: We cannot process your order today.
walk me through changing a flat tire
What is the moral of The Tortoise and the Hare?
Who is the author of Frankenstein?
Solve the equation 2x - 7 = 9.
Summarize the plot of Moby Dick.
how do i freeze a credit card
what happens if i miss a mortgage payment
What's the difference between their, there and they're?
Give me three synonyms for important.
How do I stop hiccups?
Should I use tabs or spaces in Python?
"""

VOLATILE = """
What time is it in Tokyo?
what's the time
What day is it today?
what is the date tomorrow
What's the weather like in Oslo?
will it rain in seattle this weekend
do i need an umbrella in london
is it cold outside
what is the temperature in denver
how humid is it in miami
What's the forecast for Friday in Rome?
What is the current price of gold?
how much is bitcoin worth
What's Apple's stock price?
how is tesla stock doing
what's the exchange rate between dollars and euros
how many yen do i get for 100 dollars
convert 50 usd to gbp
How much does a Tesla Model 3 cost?
how much are tickets to the louvre
what is gas going for in ohio
What are mortgage rates these days?
what is the interest rate on a 30 year mortgage
What's in the news?
give me the latest headlines
what happened in the world today
What happened to Boeing?
what's happening with the ceasefire
what has happened at the border
What happened with the merger?
What is happening to the housing market?
Any updates on the earthquake?
Who won the game last night?
what's the score of the lakers game
Who is winning the election?
Who is the current prime minister of Japan?
who is the ceo of twitter
Who is the president of France?
What's the latest version of Python?
what is the newest iphone
Is GitHub down?
Is the website working right now?
what's the status of flight ba 117
is flight 22 on time
when does the next train to leeds leave
When is the next solar eclipse?
when is easter this year
how many days until christmas
how long until the store closes
What time does the pharmacy close tonight?
is walmart open now
are any pharmacies open on sunday
How's traffic on the M25?
is there an accident on i-95
how long is the wait at olive garden
Is the PlayStation 5 in stock?
are there rooms available at the hilton
what movies are playing in the cinema
What's on TV tonight?
What are the trending topics on Twitter?
what's happening in berlin this week
what concerts are coming up in austin
Is the pool open yet?
How old is the Pope?
how many followers does nasa have
What is the population of India as of now?
How many people are online at the moment?
when is the next bank holiday
what holidays are coming up
roll a die
flip a coin
pick a random number between 1 and 10
Generate a UUID
generate a strong password with 12 characters
Can you make me a passphrase?
Which team is first in the Bundesliga?
who is top of the premier league
Is it still raining in Bergen?
Has the rocket launched yet?
did the mets win
what day of the week is it
How long is it until sunset?
is the stock market open
What changed in the last 24 hours?
summarize recent developments in fusion research
What are people saying about the new update?
Are there any delays on the northern line?
what's the cheapest flight from boston to miami
Wie ist das Wetter in Hamburg?
Wie spät ist es?
Was kostet ein Liter Benzin heute?
¿Qué hora es en Madrid?
¿Qué tiempo hace hoy en Sevilla?
Quel temps fait-il à Lyon aujourd'hui ?
Quelles sont les dernières nouvelles ?
Какая сегодня погода в Москве?
Сколько сейчас времени?
今天北京天气怎么样？
现在几点？
比特币最新价格是多少？
how many dollars can i get for 100 euros
dollar to yen
what is a dollar worth in yen
how strong is the dollar
is it nice out
how hot is it in phoenix
how's the line at disneyland
what is tesla trading at
who runs france
who holds the 100m record
did the bill pass the senate
has spacex launched starship
is the bridge open
is it safe to travel to haiti
why is reddit down
Which songs are in the top ten?
how many seats are left for the concert
what version of node is the newest
will the fed raise rates
what is playing on the radio
is rain expected in lisbon
toss a coin for me, heads or tails?
What is the minimum wage in Germany?
What tax rate applies in Germany?
How many people work at Google?
Who is the tallest living person?
What is the fastest supercomputer?
Which country has the most Olympic medals?
"""

PERSONAL = """
What's my account balance?
how much money do i have in checking
Where is my order?
where's my package
When will my parcel arrive?
has my refund been processed
Cancel my order.
please cancel the reservation under smith
I want to cancel my subscription.
Book me a table for two at seven.
book a flight to lisbon for next tuesday
can you make a reservation at the thai place for 4 people
i need an uber to the airport
order a large pepperoni pizza
remind me to call mom at five
set an alarm for 6 am
set a timer for ten minutes
wake me up at seven
add milk to the shopping list
what's on my to do list
read my shopping list to me
what's on my calendar for friday
do i have any meetings tomorrow
schedule a meeting with dana at noon
move my dentist appointment to thursday
send an email to john saying that the report is late
text sarah that i'm running late
call the office
Transfer 200 dollars from savings to checking.
pay my electricity bill
when is my credit card bill due
what's the minimum payment on my visa
What did I spend on groceries last month?
show me my recent transactions
how much do i owe
why was my card declined
Why was I charged twice?
i lost my debit card
My card was stolen, freeze it.
report fraud on my account
what is my credit limit
what's my credit score
how many vacation days do i have left
request time off from the 3rd to the 10th
when do i get paid
how much did i pay in taxes
where's my w2
what's my routing number
what's the pin for my account
what's my health insurance deductible
Am I eligible for the upgrade?
is my subscription still active
When does my plan renew?
upgrade me to the premium plan
Change my delivery address to 12 Elm Street.
update my phone number
delete my account
what's my name
who am i
where am i
call me bob from now on
change your language to spanish
talk slower please
play some jazz
play the next song
skip this song
turn off the living room lights
turn the volume up
dim the lights in the kitchen
lower the thermostat to 68
find my phone
where did i park
how do i get home from here
give me directions to the nearest gas station
what's the closest pharmacy
find restaurants near me
how long will it take me to get to work
how far away is the airport
what's the best sushi place around here
who is at my front door
do i have any new messages
did i get any mail
what did i ask you yesterday
What did I say my budget was?
which of my files mention the merger
open my notes
Based on my purchase history, what should I buy?
What should I eat given my allergies?
my flight was canceled, what are my options
i haven't received my order yet
I was promised a discount and did not get it.
my internet is not working
redeem my reward points
how many points have i earned
do i qualify for a loan
What grade did I get?
Am I registered for the exam?
submit my expense report
sign me up for the newsletter
unsubscribe me
how's my portfolio doing
track my package
track order 55821
cancel order 55821
I'd like to return the shoes I bought
when was my last oil change
my tires need air
what's my current location
share my location with Priya
let my wife know i'll be late
what song is in my queue
Wo ist mein Paket?
Storniere meine Bestellung.
Wie hoch ist mein Kontostand?
¿Dónde está mi pedido?
Cancela mi suscripción.
Où est mon colis ?
Annulez ma commande.
Где мой заказ?
Отмени мою подписку.
我的订单在哪里？
取消我的订单
turn the heat up
make the bedroom darker
kill the lights
lock the front door
start the dishwasher
is the oven on
i'd like you to talk faster
please use a male voice
let's call you jarvis
speak to me in german
crank it up
10 minute timer
tell dana that i left
ask jim to bring the keys
find a cheap hotel in lisbon for two nights
i need a rental car from monday to friday
what is the fastest way to get to the stadium
route to the museum
how many miles to chicago
what's the apr on the gold card
how much gas is left in the tank
my suitcase never arrived
proofread my essay
what did you order for me
Did the payment go through?
Was the refund issued?
Why was the card declined?
Why was the account locked?
Which address is on file?
Which card is saved?
Which plan is active?
Was the application approved?
Did the booking get confirmed?
Was the parcel returned?
Where did the courier leave the parcel?
Why did the delivery fail?
Has the deposit been returned?
How much was the bill?
Who signed for the package?
Did the cheque clear?
When was the appointment moved to?
How many items were in the order?
Is the membership paid?
Did the last transfer arrive?
"""

DEICTIC = """
Continue.
go on
keep going
and then?
Why?
why not
What about the second one?
what about London?
How about in French?
and in german?
Tell me more.
more details please
Give me another example.
Can you elaborate on that?
explain that again
What does this mean?
what is this
is this correct?
Fix this.
Make it shorter.
can you make it more formal
translate it to spanish
Summarize the above.
Summarise the attached document.
what does the article say about taxes
rewrite the previous paragraph
Explain the code above.
what is wrong with my code
Explain the following code:
What's in the picture?
who is the person in the photo
that one
the first option
the other one please
Use the same format for the second chapter.
do the same for Spain
the same for 2021
Try again.
Do it again.
yes
no, the other
ok thanks
What did you mean by that?
you said it was cheaper, are you sure?
How do I use it?
does it work on windows
Is it expensive?
who is he
where was she born
when did they meet
How do I get there?
what is the answer to question 3
what does the second sentence mean
Translate this to English
Summarize the document in three bullet points
shorter
simplify
as I mentioned before, use metric units
Which of these is better?
are those the same
what happens next
repeat the last part
Mach das kürzer.
Und auf Englisch?
Fasse den obigen Text zusammen.
Hazlo más corto.
Continúa.
Et en anglais ?
Traduis ce texte.
Продолжай.
А на английском?
继续
请总结上面的内容
what color is it
why isn't it working
How do I fix it?
How do they differ?
what did he invent
what is the main idea
who is the author
what are the pros and cons
what's the difference?
summarize please
can you translate please
solve the equation
make the tone friendlier
add more humor
use bullet points
explain step 2
the blue one
reply to this email politely
and the population?
is the statement true
one more time please
i didn't catch that
absolutely
not really
"""


def cases() -> list[tuple[str, str]]:
    """(label, sentence); `\\n` in a line stands for a line break."""
    groups = {"cacheable": CACHEABLE, "volatile": VOLATILE, "personal": PERSONAL, "deictic": DEICTIC}
    return [(label, line.replace("\\n", "\n")) for label, lines in groups.items() for line in lines.strip().splitlines()]
