"""Things that captions name, the words that name each, and those that may mean it.

Of everyday photographs; a captioned set of another kind needs a table of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple


class Noun(NamedTuple):
    """A thing.

    Attributes:
        named: words that say it is there.
        kin: further words that leave it open: with one of them it is not said to be absent.
        article: before its name in a question; empty where it takes none.
    """

    named: tuple[str, ...]
    kin: tuple[str, ...] = ()
    article: str = "a"


_SHARED = {
    "PEOPLE": (
        "person people someone somebody man men woman women boy boys girl girls child children kid "
        "kids baby babies toddler toddlers guy guys lady ladies teen teens teenager teenagers "
        "adult adults player players runner rider skier cyclist biker skateboarder snowboarder "
        "climber hiker surfer crowd group family couple team friend friends performer worker "
        "athlete boater swimmer mother father mom dad son daughter brother sister brothers sisters "
        "student students"
    ),
    "WATER": (
        "ocean sea lake river pool pond stream waves wave surf fountain puddle sprinkler creek "
        "waterfall beach wet splash splashes splashing swim swims swimming boat kayak surfing"
    ),
    "ANIMAL": "animal animals pet pets",
    "VEHICLE": "vehicle vehicles traffic race racing driver truck trucks van",
}
"""Words that are kin to several things."""

# Article, thing: words that name it | words that leave it open.
_TABLE = """
a dog: dog dogs puppy puppies | ANIMAL greyhound greyhounds terrier poodle retriever labrador collie hound
a cat: cat cats kitten kittens | ANIMAL
a horse: horse horses pony ponies | ANIMAL rodeo bronco cowboy polo jockey
a bird: bird birds | ANIMAL seagull seagulls duck ducks goose geese pigeon pigeons eagle swan flock
an elephant: elephant elephants | ANIMAL
a giraffe: giraffe giraffes | ANIMAL
a zebra: zebra zebras | ANIMAL
a man: man men | PEOPLE
a woman: woman women | PEOPLE
a boy: boy boys | PEOPLE
a girl: girl girls | PEOPLE
a baby: baby babies | PEOPLE
a ball: ball balls | football soccer basketball baseball tennis volleyball rugby softball toy golf game
a frisbee: frisbee frisbees | toy disc disk
a bicycle: bicycle bicycles bike bikes | cyclist cyclists biker bikers biking cycling bmx motorcycle motorbike
a skateboard: skateboard skateboards | skateboarder skateboarders skateboarding skater skaters board
a motorcycle: motorcycle motorcycles motorbike motorbikes | bike bikes biker dirtbike motocross dirt scooter vehicle
a car: car cars | VEHICLE taxi street road convertible jeep
a boat: boat boats | kayak canoe raft ship sailboat water rafting rowing sailing
a bus: bus buses | VEHICLE trolley train
a train: train trains | railway track tracks subway station
a table: table tables | desk restaurant dinner meal eating counter
a chair: chair chairs | seat seats sitting sits seated couch sofa stool bench
a bench: bench benches | seat sitting sits seated
a bed: bed beds | bedroom mattress sleeping asleep pillow
a hat: hat hats cap caps | helmet helmets hood beanie headband
a helmet: helmet helmets | hat football hockey bike biker cyclist gear motorcycle
a shirt: shirt shirts t-shirt | uniform dressed clothes outfit jersey top tee jacket sweater blouse
a dress: dress dresses | dressed gown costume outfit skirt clothes
a jacket: jacket jackets | coat coats vest clothes dressed sweater outfit hoodie
an umbrella: umbrella umbrellas | parasol rain
a guitar: guitar guitars | guitarist music musician musicians band instrument instruments bass
a camera: camera cameras | photographer photo picture photograph photos pictures
a flower: flower flowers | garden plant plants bouquet floral
a tree: tree trees | forest wood woods wooded branch branches leaves park jungle
a building: building buildings | house houses city store church street town castle wall tower urban
a fence: fence fences | gate yard barrier rail railing
a wall: wall walls | building brick graffiti climbing room mural
a street: street streets road roads | sidewalk city car cars traffic crosswalk bus town pavement path
a bridge: bridge bridges | pier dock overpass
a rock: rock rocks boulder boulders | rocky cliff cliffs mountain stone stones
a mountain: mountain mountains | hill hills cliff rock rocks rocky peak slope ski
a beach: beach beaches | sand sandy ocean sea shore surf coast waves water
a pool: pool pools | water swim swims swimming diving dive wading
a field: field fields | grass grassy meadow lawn park pasture soccer football
a stage: stage stages | concert performing performance band theater show perform
a swing: swing swings | swinging playground
a slide: slide slides | sliding playground sledding
a kite: kite kites | flying parasail
a surfboard: surfboard surfboards | surfer surfers surfing surf board
a laptop: laptop laptops | computer computers desk
a toilet: toilet toilets | bathroom restroom
a clock: clock clocks | tower watch time
a pizza: pizza pizzas | food eating meal slice
water: water | WATER
snow: snow snowy | ski skis skiing skier skiers snowboard snowboarder snowboarding sled sledding winter ice slope
grass: grass grassy | field fields lawn yard park meadow green outside
sand: sand sandy | beach desert dune dunes shore dirt
food: food | eat eats eating meal dinner lunch cake fruit restaurant sandwich pizza grill cooking kitchen bread
"""  # noqa: E501 - a thing a line


def _read(table: str) -> Iterator[tuple[str, Noun]]:
    for line in table.strip().splitlines():
        name, _, words = line.partition(":")
        article, _, thing = name.rpartition(" ")
        named, _, kin = words.partition("|")
        spelled = " ".join(_SHARED.get(word, word) for word in kin.split())
        yield thing, Noun(tuple(named.split()), tuple(spelled.split()), article)


NOUNS: Mapping[str, Noun] = dict(_read(_TABLE))
"""Thing → its words."""
