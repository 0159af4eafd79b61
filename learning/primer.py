"""A short reader of general English, written for this project: a subject, then a few sentences.

Documentation speaks of functions and files; people ask for advice, stories, letters and lists. A
page of plain text on everyday subjects gives the offline base model the words and turns that
documentation lacks. It holds no task of any data set.

In the data path: read by `learning/reading`, plain and as answers in the prompt template.
"""

from __future__ import annotations

PRIMER = """\
healthy habits|A healthy life begins with small habits. Eat fresh fruit and vegetables every day,
drink enough water, and try to sleep at least eight hours each night. Regular exercise, such as
walking or swimming, helps your heart and can reduce stress.

saving money|The best way to save money is to make a budget and follow it. Write down how much you
earn and how much you spend each month. Then look for costs that you can reduce, such as eating
out less often, and put the difference into a savings account.

climate change|Climate change is one of the most important problems facing the world today. As
people burn coal, oil and gas, carbon dioxide builds up in the air and the planet becomes warmer.
This leads to rising sea levels, stronger storms and longer periods without rain.

renewable energy|Renewable energy comes from sources that do not run out, such as the sun, the
wind and water. It produces little pollution and creates new jobs. However, it can be expensive to
build, and the power it gives depends on the weather.

social media|Social media has changed the way people talk to each other. It allows friends and
family to stay in touch and share their experiences. On the other hand, it can lead to less time
spent with others in person and can be harmful to the mental health of young people.

artificial intelligence|Artificial intelligence is a field of computer science that creates
machines able to learn and solve problems. It is used in many industries, including health care,
finance and education. Many experts believe that it will increase productivity, while others are
concerned about the loss of jobs.

a job letter|Dear Sir or Madam, I am writing to apply for the position of sales manager at your
company. I have five years of experience in customer service and a strong record of success. I am
confident that my skills would make me a valuable member of your team. Thank you for your time.
Sincerely, John Smith

an apology|Dear customer, we are sorry to hear that you had a problem with your order. We
understand how important this is to you and we are working to fix it as soon as possible. Please
accept our apologies, and feel free to contact us if you have any questions.

a thank you note|Thank you so much for your help with the project. Your hard work and support made
a great difference to the team. I really appreciate it and look forward to working with you again.

a story about a girl|Once upon a time there was a young girl who lived in a small village near the
forest. One day she found an old map in her grandmother's house. She decided to follow it, and
after a long journey she discovered a hidden treasure. She was so happy that she shared it with
everyone in the village.

a story about a dog|Max was a brave little dog who loved to play outside. One night he heard a
strange noise and ran to the door. A thief was trying to get into the house, but Max barked so
loudly that the man ran away. From that day on, everyone called him a hero.

a poem about spring|The sun is bright, the sky is blue, the flowers open, fresh and new. The birds
are singing in the trees, and all the world moves with the breeze.

a poem about love|Love is a light that never fades, a gentle song, a quiet shade. It fills the
heart with hope and grace and brings a smile to every face.

the ocean|The ocean covers more than two thirds of the surface of the Earth. It is home to
millions of different species of plants and animals, from tiny fish to giant whales. It also plays
an important role in the weather, because it takes up heat from the sun.

photosynthesis|Photosynthesis is the process by which plants use sunlight, water and carbon
dioxide to make their own food. During this process they release oxygen, which humans and animals
need to breathe.

gravity|Gravity is the force that pulls objects toward each other. It keeps our feet on the ground
and makes the planets move around the sun. The larger the mass of an object, the stronger its
pull.

the water cycle|The water cycle describes how water moves between the land, the ocean and the air.
The sun heats the water, which rises as vapor and forms clouds. When the clouds become heavy, the
water falls back to the ground as rain or snow.

democracy|Democracy is a form of government in which the people have the power to choose their
leaders. Citizens vote in free elections, and everyone is equal before the law. The freedom of
speech and of the press is an essential part of it.

the American Revolution|The American Revolution was a war between Great Britain and thirteen of
its colonies that lasted from 1775 to 1783. The colonists were angry about taxes and wanted to
rule themselves. It ended with the independence of the United States of America.

World War II|The Second World War began in 1939 and ended in 1945. It was the largest war in
history, and more than thirty countries took part in it. Millions of people lost their lives, and
many cities in Europe and Asia were destroyed.

the internet|The internet is a global network of computers that allows people to share
information. It was developed in the 1960s for research and is now used by billions of people
every day to work, learn, shop and communicate.

online learning|Online learning offers students many benefits. They can study at their own pace,
choose from a wide range of courses and save time because there is no need to travel. The main
disadvantage is that it requires discipline and a good internet connection.

time management|To manage your time better, start each day with a list of the things you need to
do. Set clear goals, do the most important tasks first and take short breaks. Avoid distractions,
such as your phone, while you work.

stress|There are many ways to deal with stress: 1. Take a deep breath and relax. 2. Go for a walk
or do some yoga. 3. Talk to a friend about how you feel. 4. Listen to music. 5. Get enough sleep.

team work|Good teamwork helps people to achieve more than they could alone. Each member brings
different skills and ideas to the group. Clear communication, trust and respect are the key to
success.

leadership|A good leader is honest, confident and able to inspire others. He or she listens to the
team, makes decisions and takes responsibility for the results. The most successful leaders are
always willing to learn.

a healthy recipe|Ingredients: two cups of rice, one onion, one red pepper, two tomatoes, a little
olive oil, salt and black pepper. Heat the oil in a large pan, add the onion and cook it for five
minutes. Add the remaining ingredients and a cup of water, and cook for twenty minutes. Serve hot
and enjoy!

a cake|To make a chocolate cake, mix flour, sugar, butter, eggs and milk in a bowl. Add some cocoa
powder and stir until smooth. Pour the mixture into a pan and bake it in the oven for thirty
minutes. Let it cool before you serve it.

a restaurant review|The food at this restaurant was delicious and the staff were very friendly. We
ordered the chicken and the fish, and both were cooked perfectly. The prices are reasonable and
the place has a warm atmosphere. I would highly recommend it to anyone.

a movie|The movie tells the story of a young man who must save his family from a dangerous enemy.
The acting is excellent and the music is beautiful. Although the ending is a bit slow, it is still
one of the best films of the year.

a phone|This new phone is the perfect choice for people who want quality at a low price. It has a
large screen, a powerful camera and a battery that lasts all day. Order yours today and enjoy free
delivery!

a customer service chatbot|Hello! How can I help you today? Please tell me your name and your
order number, and I will look up the information for you. Is there anything else I can do for you?

travel to Paris|Paris is the capital of France and one of the most popular cities in the world.
Visitors can see the Eiffel Tower, walk along the river and enjoy the best French food. The best
time to visit is in spring, when the weather is mild.

New York|New York City is known for its tall buildings, famous museums and rich culture. More than
eight million people live there. The most popular places to visit are Central Park, Times Square
and the Statue of Liberty.

animals|Animals that live in the forest include bears, deer, foxes, rabbits and many kinds of
birds. Some of them sleep through the winter, while others store food or travel to warmer places.

dogs and cats|Dogs and cats are both popular pets, but they are different in many ways. Dogs are
social and need to be walked every day, while cats are more independent and easier to care for.
Both can be loving and loyal companions.

elephants|The elephant is the largest land animal in the world. It has a long trunk, big ears and
thick gray skin. Elephants live in groups and eat grass, leaves and fruit. They are known for
their excellent memory.

the solar system|The solar system consists of the sun and eight planets: Mercury, Venus, Earth,
Mars, Jupiter, Saturn, Uranus and Neptune. Jupiter is the largest planet, and Mercury is the
closest to the sun.

mathematics|The area of a circle is found by multiplying pi by the square of its radius. For
example, a circle with a radius of 3 has an area of about 28.3. The sum of the angles of a
triangle is always 180 degrees.

numbers|The average of 4, 8 and 12 is 8. The square root of 16 is 4. If a car travels at 60 miles
per hour for 3 hours, it covers a distance of 180 miles. 25 percent of 200 is 50.

words and meanings|The word happy means feeling or showing pleasure. Other words with a similar
meaning are glad, joyful, cheerful and pleased. The opposite of happy is sad. A noun is a person,
place or thing, and a verb describes an action.

grammar|She went to the store yesterday and bought some milk. They are going to visit their
grandparents next week. He has been working here for ten years. If I had known, I would have
called you. The letter was written by my friend.

questions|What do you like to do in your free time? What is your favorite book and why? How did
you become interested in this field? Where do you see yourself in five years? What are your
strengths and weaknesses?

sayings|Actions speak louder than words. Practice makes perfect. A friend in need is a friend
indeed. Time heals all wounds. The early bird catches the worm. Life is like a journey: it is not
about where you go but how you travel.

similes|Her smile was as bright as the sun. The old man was as wise as an owl. The city at night
looked like a sea of stars. His words cut like a knife. Time is money, and the mind is a garden.

sentiment|The tone of this sentence is positive, because the speaker is excited and grateful. The
second statement is negative, because it expresses anger and disappointment. The third one is
neutral: it only states a fact.

classification|The first item is a fruit, the second is a vegetable and the third is an animal.
Apples, bananas, oranges and grapes are fruits. Carrots, onions and potatoes are vegetables. A
piano, a guitar and a violin are musical instruments.

shopping list|Milk, eggs, bread, butter, cheese, apples, chicken, rice, pasta, tomatoes, coffee,
tea and sugar.

names for a company|Green Planet, Bright Future, Fresh Start, Blue Sky, Happy Home, Smart
Solutions, Golden Gate, Urban Style, The Book Corner and Creative Minds.

colors and shapes|The primary colors are red, blue and yellow. When you mix blue and yellow you
get green. A square has four equal sides, a triangle has three sides, and a circle has none.

computers|A computer is an electronic device that processes information. The hardware is the
physical part, such as the keyboard and the screen, while the software is the set of programs that
tell the machine what to do. Data is stored in memory.

programming|A function takes an input and returns an output. A loop repeats a block of code until
a condition is met. An array stores a list of values, and a variable holds one value that may
change. Here is an example of a simple program that prints the numbers from 1 to 10.

databases|A database is a collection of data organized into tables with rows and columns. The
query selects all customers whose orders are greater than one hundred dollars, sorted by the date
of purchase.

cloud computing|Cloud computing means that data and programs are kept on servers that are reached
through the internet. Companies benefit from lower costs, greater flexibility and better security.
Popular providers include Amazon, Google and Microsoft.

marketing|A successful marketing campaign starts with knowing your target audience. Use social
media, email and advertising to reach potential customers, and offer discounts to increase sales.
Measure the results and improve your strategy over time.

starting a business|To start a small business, you need a good idea and a clear plan. Research the
market and your competitors, decide how much money you need and find investors. Create a website
and promote your products or services.

the economy|Supply and demand determine the price of goods. When demand increases and supply stays
the same, prices rise. High inflation reduces the value of money, while unemployment affects both
workers and the economy as a whole.

the environment|People can protect the environment by recycling paper and plastic, using public
transport instead of cars, and saving water and electricity at home. Planting trees is another
great way to make a positive impact.

pollution|Air pollution is caused by cars, factories and power plants. It can cause serious health
problems such as asthma and heart disease. Governments should create stricter laws to reduce
emissions.

health and medicine|Common symptoms of the flu include fever, a sore throat, headache and tired
muscles. Patients should stay at home, rest and drink plenty of fluids. If the symptoms get worse,
it is important to see a doctor. Vaccines help the immune system to fight disease.

exercise|Regular physical activity strengthens the muscles and bones, improves mood and helps to
control weight. Doctors suggest at least thirty minutes a day. Running, cycling, dancing and
playing football are all good examples.

mental health|Meditation is a practice that helps people to focus their mind and feel calm. Sit in
a quiet place, close your eyes and pay attention to your breath. Just ten minutes a day can
improve your mental health and overall well-being.

education|Education gives people the knowledge and skills they need to succeed in life. Teachers
should encourage students to think critically, ask questions and be creative. Every child deserves
equal access to a good school.

reading books|Reading books is a great way to learn about the world, improve your vocabulary and
develop your imagination. The main character of the novel is a young woman who struggles to find
her place in society. The theme of the book is the power of friendship.

music|Music is an important part of human culture. It can express emotions, bring people together
and tell stories. Jazz, rock, classical and hip hop are some of the most popular kinds of music. A
famous composer was Ludwig van Beethoven.

art|The painting shows a peaceful landscape with mountains, a lake and a small wooden house. The
artist used soft colors to create a feeling of calm. Leonardo da Vinci painted the Mona Lisa in
the early 16th century.

sports|Football is the most popular sport in the world. Two teams of eleven players try to score
goals by kicking a ball into the net. The team with the most goals at the end of the game wins.

friendship|A true friend is someone who supports you in good times and bad. Friends are honest
with each other, respect their differences and are always ready to help. Friendship makes our
lives richer and happier.

success and failure|Failure is a natural part of life and an opportunity to learn. Do not give up
when things get hard. Believe in yourself, work hard and keep moving forward, and you will achieve
your dreams.

decisions|When making a difficult decision, consider the advantages and disadvantages of each
option. Gather as much information as you can, ask for advice and think about the long term
effects. Trust yourself.

a conversation|"Hi, how are you?" asked Sarah. "I'm fine, thanks. How about you?" replied Tom.
"I'm great! Do you want to go to the movies tonight?" "Sure, that sounds like fun. What time
should we meet?"

a speech|Ladies and gentlemen, it is an honor to be here today. Together we can build a better
future for our children. Let us work hand in hand to make our community a safer and kinder place.
Thank you.

a meeting|Hi everyone, this is a reminder that our weekly meeting will be held on Monday at 10
a.m. in the main conference room. Please bring your reports and any questions you may have. Best
regards, Emily

an event|Join us this Saturday for a night of music, food and fun! The event starts at 7 p.m. and
tickets are available online. Do not miss this chance to support a good cause and meet new people.

a news report|A powerful storm hit the coast on Tuesday, leaving thousands of people without
power. Officials said that at least two people were injured and several homes were damaged.
Schools will remain closed until further notice.

the city and the country|Living in a city offers more jobs, better transport and a lively culture.
Living in the country is quieter and cheaper, and the air is cleaner. Which one is better depends
on what you need.

winter|In winter the days are short and the nights are long and cold. Snow covers the fields and
the children build a snowman. Inside the house a fire burns and the family drinks hot chocolate.

a room|The room was small but comfortable. There was a wooden table by the window, a soft chair
and a lamp. Old photographs hung on the white walls, and the smell of fresh coffee filled the air.

a character|She is a tall woman with long brown hair and kind green eyes. She is intelligent,
curious and full of energy. Although she is shy with strangers, she cares deeply about the people
around her.

comparison|Both cars and bicycles are used for transport. A car is faster and can carry more
people, but it needs fuel and pollutes the air. A bicycle is cheaper, healthier and better for the
planet.

cause and effect|Because it rained all night, the streets were wet and the game was cancelled. As
a result, the fans were disappointed. If the weather improves, the match will take place next
Sunday.

safety|Always wear a seat belt when you drive, and never use your phone at the same time. At home,
keep dangerous chemicals away from children and check the smoke alarm every month.

privacy|To stay safe online, use strong passwords and never share personal information with
strangers. Do not click on links in emails from people you do not know, and keep your software up
to date.

gift ideas|Some ideas for a birthday gift are a book, a piece of jewelry, a plant, a board game, a
cooking class or a weekend trip. Choose something that fits the person's interests.

a summary|In summary, the article explains how new technology has changed the way we live and
work. It argues that we should use it wisely. The author concludes that the benefits are greater
than the risks.

instructions|First, collect all the materials you need. Second, cut the paper into two equal
pieces and fold them in the middle. Next, glue the edges together. Finally, let it dry and
decorate it as you like.

an unclear request|I am sorry, but I do not have enough information to answer this question. Could
you please give me more details? There is no single correct answer, since it depends on the
situation.
"""
"""Paragraphs between blank lines, each a subject, a bar and a text."""


def primer() -> list[tuple[str, str]]:
    """The (subject, text) pairs of the reader."""
    lines = (" ".join(paragraph.split()) for paragraph in PRIMER.split("\n\n"))
    return [(subject, text) for subject, _, text in (line.partition("|") for line in lines)]
