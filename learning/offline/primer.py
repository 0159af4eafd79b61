"""A short reader of general English, written for this project: a subject, then a few sentences.

Documentation is about functions and files; people ask for advice, stories, letters and lists. A
page of plain text on everyday subjects gives the offline base model words and phrases that
documentation lacks. It holds no task of any data set.

In the data path: read by `learning.offline.training_texts`, plain and as answers in the prompt
template. The texts are training data: a changed character makes another base model.
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

photosynthesis|In photosynthesis, green leaves turn water and carbon dioxide into sugar with the
help of sunlight. During this process they release oxygen, which humans and animals need to
breathe.

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
social and need to be walked every day, while cats like to be alone and need less care. Both can
be loving and loyal companions.

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

questions|What do you like to do in your free time? Which book did you enjoy the most? How did you
become interested in this field? What are your plans for the future? What are your strengths and
weaknesses?

sayings|Practice makes perfect. A friend in need is a friend indeed. Time heals all wounds. The
early bird catches the worm. Life is like a journey: it is not about where you go but how you
travel.

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

breakfast|For breakfast many people eat toast with jam, eggs with bacon, cereal with milk, or
pancakes with maple syrup and fresh strawberries. A healthy choice is oatmeal with nuts, honey and
sliced banana.

dinner ideas|Some easy dinner ideas are grilled salmon with lemon, spaghetti with tomato sauce,
vegetable soup, chicken curry with rice, beef tacos, mushroom pizza, and a salad with spinach,
avocado and cheese.

jobs|A doctor treats patients, a lawyer defends clients, an engineer designs bridges and machines,
a nurse cares for the sick, a chef prepares meals, a farmer grows crops, a pilot flies airplanes
and an accountant manages finances.

an interview|Tell me about your experience with this type of project. How do you handle conflict
with a coworker? Describe a time when you made a mistake and what you learned from it. Why do you
want to work for our company?

emotions|She felt excited and nervous at the same time. He was furious when he heard the news. The
children were thrilled and surprised. After a long day they were exhausted but proud. Loneliness,
fear, jealousy, joy and gratitude are strong emotions.

a detective story|Detective Miller arrived at the mansion just after midnight. The window was
broken, the safe was empty, and a single red rose lay on the floor. "The thief knew exactly what
he wanted," she whispered. Suddenly the lights went out and someone screamed.

a space story|The astronaut looked out of the spaceship and saw the blue planet far below. For
three months he had traveled through the darkness of space. Now a mysterious signal was coming
from the moon, and he was the only one who could find out what it was.

a fairy tale|Long ago, in a magical kingdom, a dragon guarded the castle of a lonely princess.
Many knights tried to defeat it and failed. At last a poor boy spoke kindly to the dragon and gave
it bread, and the two became friends.

a fable|A hare laughed at a tortoise because it was so slow. The tortoise challenged the hare to a
race. The hare ran ahead and fell asleep under a tree, while the tortoise kept walking and won. So
patience can beat speed.

a haiku|Autumn leaves falling, silent river carries them, night embraces all. Soft rain on the
roof, whispers of a distant dream, morning wakes the birds.

a song|Oh, the road is long and the night is cold, but I carry your love like a ring of gold. When
the stars come out I will sing your name, and my heart will burn like a wild flame.

a joke|Why did the chicken cross the road? To get to the other side! What do you call a bear with
no teeth? A gummy bear.

a riddle|I have hands but cannot clap. What am I? A clock. What gets wetter the more it dries? A
towel. What has keys but cannot open a door? A piano.

a slogan|Taste the difference. Drive your dreams. Fresh ideas for a brighter tomorrow. Feel the
power of nature. Because you deserve the best. Quality you can trust. Think big, start small.

a tweet|Just finished my first marathon and I could not be happier! #running #fitness. Check out
our new collection, available now! #fashion #style. Coffee first, then the world.
#MondayMotivation

headlines|Scientists discover new planet. Local hero saves child from fire. President announces
plan to fight poverty. Stock market falls after bank crisis. Study shows benefits of daily
exercise.

scientists|Albert Einstein was a German physicist who developed the theory of relativity. Isaac
Newton described the laws of motion. Marie Curie studied radioactivity and won two Nobel Prizes,
and Charles Darwin explained evolution by natural selection.

presidents and leaders|George Washington became President in 1789. Abraham Lincoln led the country
during the Civil War and ended slavery. Martin Luther King was a leader of the civil rights
movement, and Nelson Mandela fought against apartheid in South Africa.

writers|William Shakespeare wrote Romeo and Juliet, Hamlet and Macbeth. Jane Austen is the author
of Pride and Prejudice. George Orwell published the novel 1984 in 1949. J. K. Rowling created the
Harry Potter series.

countries and capitals|London is the capital of the United Kingdom, Moscow of Russia, Tokyo of
Japan, New Delhi of India, Canberra of Australia and Brasilia of Brazil. China and India have the
largest populations in the world.

rivers and mountains|Mount Everest, in the Himalayas, is the highest mountain on Earth. The Nile
in Africa and the Amazon in South America are the longest rivers. The Sahara is the largest hot
desert, and the Pacific is the deepest ocean.

ancient history|The ancient Egyptians built the pyramids as tombs for their kings. The Roman
Empire ruled much of Europe for centuries. The Great Wall of China was built to protect the
country from invaders. The Renaissance began in Italy in the 14th century.

the Industrial Revolution|The Industrial Revolution started in Britain in the late 18th century.
New inventions, such as the steam engine, transformed agriculture, manufacturing and
transportation. Millions moved from villages to cities to work in factories.

chemistry|Water is made of two hydrogen atoms and one oxygen atom. An atom consists of protons,
neutrons and electrons. Gold, silver, iron and copper are metals, while helium and nitrogen are
gases. Salt is a chemical compound of sodium and chlorine.

biology|A cell is the basic unit of life. The nucleus contains DNA, which carries genetic
information. Mammals are warm-blooded animals that feed their babies with milk. Insects have six
legs, and reptiles, such as snakes and lizards, lay eggs.

the human body|The heart pumps blood through the body, the lungs bring in oxygen, the stomach
digests food, the brain controls thoughts and movements, and the skin protects us. An adult has
206 bones.

physics|Energy cannot be created or destroyed, it can only be transformed from one form to
another. Light travels at a speed of about 300,000 kilometers per second. Friction slows down
moving objects. Sound is a vibration that travels through the air.

weather|Today will be mostly sunny with a light breeze and a high of 75 degrees. Tomorrow we
expect heavy rain and thunderstorms in the afternoon. Temperatures will drop below freezing on the
weekend, so dress warmly.

machine learning|In machine learning, a program finds rules in data by itself instead of being
told them. Supervised learning uses labeled examples, while unsupervised learning finds hidden
patterns. A neural network is inspired by the human brain.

natural language processing|Natural language processing helps computers understand, interpret and
generate human language. It is used in chatbots, translation, speech recognition and sentiment
analysis.

robots|Robots can do jobs that are dangerous or boring for humans, such as welding cars, exploring
other planets or cleaning floors. Critics worry that automation will replace workers and increase
inequality.

electric cars|Electric cars are quiet, efficient and produce no exhaust fumes. Their disadvantages
are a high purchase price, a limited range and the time it takes to charge the battery. Tesla is
one of the leading manufacturers.

remote work|Working from home gives employees more flexibility and saves commuting time. Employers
can reduce office costs and hire talent from anywhere. However, it may lead to isolation and makes
collaboration more challenging.

the pandemic|The COVID-19 pandemic affected almost every aspect of life. Businesses closed,
schools moved online and travel was restricted. Hospitals were overwhelmed, and people had to wear
masks and keep their distance.

immigration|Immigrants leave their home country for many reasons, including war, poverty and
better opportunities. They contribute to the culture and economy of their new country, but often
face discrimination and language barriers.

racism and equality|Equality means that everyone has the same rights, regardless of race, gender,
religion or background. Discrimination harms individuals and society. Diversity in the workplace
brings new perspectives and encourages innovation.

crime and law|The criminal was arrested by the police and charged with robbery. The judge
sentenced him to three years in prison. A jury decides whether the accused is guilty or innocent,
and a witness must tell the truth.

ethics|Is it ever right to lie? Some philosophers argue that honesty is always a duty, while
others believe that the consequences matter most. Ethical dilemmas have no easy answers, and they
force us to examine our values.

religion|Christianity, Islam, Hinduism, Buddhism and Judaism are the major religions of the world.
Many people find comfort and purpose in faith, celebrate holidays such as Christmas, Easter,
Ramadan and Diwali, and pray together.

parenting|Parents should listen to their children, set clear rules and be a good example. Praise
effort rather than talent, spend quality time together and limit the use of screens before
bedtime.

study tips|1. Find a quiet place to study. 2. Make a schedule and stick to it. 3. Review your
notes regularly. 4. Take practice tests. 5. Ask your teacher for help if you do not understand
something.

public speaking|To improve your public speaking, practice in front of a mirror, speak slowly and
clearly, make eye contact with the audience, and use stories and humor to keep them engaged.

networking|Attend industry events, connect with professionals on LinkedIn, and follow up with a
polite message. Building relationships takes time, but it can open doors to new career
opportunities.

problem solving|First identify the problem and its root cause. Then brainstorm possible solutions,
evaluate their pros and cons, choose the best one, implement it and monitor the outcome.

creativity|Creativity is the ability to think outside the box and come up with original ideas. You
can boost it by keeping a journal, trying new hobbies, traveling, and surrounding yourself with
inspiring people.

sleep|Lack of sleep can cause poor concentration, irritability and a weakened immune system. To
fall asleep faster, avoid caffeine in the evening, keep your bedroom dark and cool, and go to bed
at the same time each night.

vegetarian diet|A vegetarian diet excludes meat and fish but includes beans, lentils, tofu, whole
grains, nuts and dairy products. It is rich in fiber and vitamins, low in saturated fat, and may
lower cholesterol and blood pressure.

weight loss|To lose weight, burn more calories than you consume. Cut down on sugar and processed
foods, eat plenty of protein, avoid skipping meals and exercise consistently. Small changes lead
to lasting results.

gardening|Plant the seeds in rich soil, about two inches deep, and place the pot in direct
sunlight. Water them regularly but not too much. Remove weeds, add compost, and after a few weeks
you can harvest your own herbs.

cleaning the house|Vacuum the carpets, mop the floors, wipe the kitchen counters, scrub the
bathtub, dust the shelves, wash the dishes, take out the trash and do the laundry.

camping|For a camping trip you need a tent, a sleeping bag, a flashlight, matches, a first aid
kit, insect spray, warm clothes, food, a map and plenty of water.

a vacation|We spent our vacation at a beautiful beach resort in Mexico. The hotel had a swimming
pool and a stunning view of the sea. We went snorkeling, tasted local dishes and watched the
sunset every evening. It was an unforgettable adventure.

transportation|Buses, trains, subways, trams, ferries, bicycles and airplanes are means of
transportation. Public transportation reduces traffic jams and is cheaper than owning a car.

clothes|He wore a blue shirt, dark jeans and leather shoes. She was dressed in an elegant black
dress with a silk scarf and a pearl necklace. In cold weather you need a jacket, gloves, boots and
a hat.

games|Chess is a strategy game for two players in which each tries to capture the king of the
opponent. Other popular games are poker, Monopoly, Scrabble, hide and seek, and video games such
as Minecraft.

movies and shows|My favorite movies are The Godfather, Star Wars, Titanic, The Lion King and
Jurassic Park. The director, the actors and the script all play an important role in making a film
a masterpiece.

birds and insects|Birds have feathers, wings and a beak. Penguins and ostriches cannot fly.
Butterflies begin life as caterpillars. Honeybees live in colonies with a queen, collect nectar
and pollinate flowers.

sea animals|Dolphins are intelligent mammals that communicate with clicks and whistles. Sharks
have several rows of sharp teeth. An octopus has eight arms and three hearts, and sea turtles can
live for more than eighty years.

endangered species|Tigers, pandas, gorillas and rhinos are endangered because of hunting and the
destruction of their habitat. Conservation programs protect them by creating national parks and
fighting illegal trade.

trees and forests|Forests absorb carbon dioxide, provide shelter for wildlife and prevent soil
erosion. Deforestation in the rainforest threatens biodiversity. Oak, pine, maple and birch are
common trees.

water pollution|Chemicals, sewage and plastic waste pollute rivers and lakes. Contaminated water
spreads diseases and kills fish. To conserve water, fix leaking taps, take shorter showers and
collect rainwater.

adjectives|Beautiful, gorgeous, stunning, lovely and attractive describe someone or something that
is pleasant to look at. Huge, enormous, massive and gigantic mean very large. Tiny and miniature
mean very small.

adverbs and connectives|Furthermore, moreover and in addition add another point. However,
nevertheless and on the contrary introduce a contrast. Therefore, consequently and thus show a
result. Finally, to conclude, sums everything up.

rhymes and synonyms|Cat rhymes with hat, bat and mat. Light rhymes with night, bright and sight.
Synonyms of smart are clever, intelligent and brilliant. Antonyms of generous are selfish and
greedy. Courageous means brave.

corrected sentences|The sentence is grammatically incorrect. It should be: He doesn't like apples.
I have never been to London. There are too many people here. Neither of them is right. Its color
is red, and it's mine.

passive voice|The cake was eaten by the boy. The book was written in 1920 by a famous author. The
house is being painted. The decision has been made by the committee.

translations|Hello in Spanish is hola, in French bonjour, in German hallo and in Italian ciao.
Thank you is gracias in Spanish and merci in French. Je suis content means I am happy.

code|The function checks whether a number is even. def add(a, b): return a + b. SELECT name FROM
users WHERE age > 18; <h1>Welcome</h1> for i in range(10): print(i). The time complexity of binary
search is O(log n).

sequences|The next number in the sequence 2, 4, 6, 8 is 10. 1, 1, 2, 3, 5, 8, 13, 21. The pattern
is to add the previous two numbers. A, C, E, G, I. The largest number in the list is 97 and the
smallest is 3.

percentages and prices|The total cost is $45.50, including a 10% discount. A profit of $2,000 was
made in 2019, compared with $1,500 in 2018. The price per pound is $3.99. About 65% of the
respondents agreed.

equations|The equation 2x + 3 = 11 has the solution x = 4. The slope of the line is 2. The volume
of a cube is found by raising its side to the third power. The probability of rolling a six is
1/6.

dates and places|The conference will take place on June 15, 2022, in San Francisco, California.
She was born on March 3, 1985, in Chicago, Illinois. Our office is at 123 Main Street, Boston.

people's names|John, Mary, Michael, Sarah, David, Jennifer, James, Lisa, Robert, Jessica, William,
Emily, Thomas, Anna, Daniel, Laura, Peter, Julia, Mark and Susan are common first names. Smith,
Johnson and Brown are common last names.

a product description|This stylish backpack is made of durable, waterproof material and has plenty
of room for a laptop, books and a water bottle. Adjustable straps make it comfortable to wear. It
comes with a two-year warranty.

a complaint|I am writing to express my disappointment with the service I received at your store.
The employee was rude, the product was damaged and my refund was refused. I expect a prompt
response.

an invitation|You are invited to celebrate the wedding of Emma and James on Saturday, September
10, at 4 o'clock in the afternoon. Dinner and dancing will follow. Please let us know by August 1
if you can attend.

a recommendation|I am pleased to recommend Alice for the position. During her internship she
demonstrated excellent analytical skills, dedication and enthusiasm. She would be a great asset to
any organization.

an advertisement|Looking for the perfect place to relax? Visit our spa and enjoy a massage, a
sauna and a facial treatment. Book now and get 20% off your first appointment!

an app|The app allows users to track their meals, monitor their sleep, set reminders and connect
with friends. It should have a simple, user-friendly interface and send personalized
notifications.

a survey|How satisfied are you with our product? Very satisfied, satisfied, neutral, dissatisfied
or very dissatisfied. How likely are you to recommend us to a friend? What could we improve?

an essay|In my opinion, students should not be required to wear school uniforms. Uniforms limit
self-expression and are expensive for families. Supporters claim that they reduce bullying. In
conclusion, the choice should be left to each individual.

a diary|Dear diary, today was an amazing day. I woke up early, went jogging by the lake and had
lunch with my best friend. I was scared before the exam, but it went surprisingly well. I can't
wait for tomorrow.

a quote|The only limit is the one you set yourself. Happiness is not a destination but a way of
life. Every cloud has a silver lining.
"""
"""Paragraphs separated by blank lines, each a subject, a bar and a text."""


def read_primer() -> list[tuple[str, str]]:
    """Return the (subject, text) pairs of the reader."""
    lines = (" ".join(paragraph.split()) for paragraph in PRIMER.split("\n\n"))
    return [(subject, text) for subject, _, text in (line.partition("|") for line in lines)]
