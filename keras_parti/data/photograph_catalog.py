"""The photographs of the set `photographs`, on one page: source, author, licence, split.

Data only. Chosen by eye from what the packages hold, which is drawings for the most
part; one size of each, the largest. Authors and licences are those that the packages
state, of each file. `sha256` is the file's, so that any version of a package will do
that still holds it.
"""

from typing import NamedTuple


class Photograph(NamedTuple):
    """One photograph in one package."""

    package: str
    path: str  # within the package
    name: str  # what it shows, in our words
    author: str
    licence: str
    split: str
    sha256: str


# fmt: off
PHOTOGRAPHS = (
    Photograph("plasma-workspace-wallpapers", "usr/share/wallpapers/BytheWater/contents/images/2560x1600.jpg", "planks by the water", "Maciej Wiklo", "LGPL-3.0", "train", "c272434ef39f2abf1ed48a15a8910088020f3165329a5092f3940ec9464bc05f"),
    Photograph("plasma-workspace-wallpapers", "usr/share/wallpapers/ColdRipple/contents/images/2560x1600.jpg", "a jetty in fog", "Risto Saukonpää", "LGPL-3.0", "train", "05bef6722fc0ed81292cceb3ed026c38d17e510f3c84be7d68610c2b1a723c3f"),
    Photograph("plasma-workspace-wallpapers", "usr/share/wallpapers/ColorfulCups/contents/images/2560x1600.jpg", "colourful cups", "Dmitri Popov", "LGPL-3.0", "validation", "6e0f3a72feb5a4a9fec191b77e34874c3c69e2d93040deb3f07773e73385023d"),
    Photograph("plasma-workspace-wallpapers", "usr/share/wallpapers/DarkestHour/contents/images/2560x1600.jpg", "a lake in the darkest hour", "Risto Saukonpää", "LGPL-3.0", "train", "8e3703fae3a3c217b1fc2b399b706cd3720584268d071ba153e4809daa55f1ce"),
    Photograph("plasma-workspace-wallpapers", "usr/share/wallpapers/EveningGlow/contents/images/2560x1600.jpg", "rowing boats in the evening", "Ian Hex", "LGPL-3.0", "validation", "586682dcb362b9f620068f10138f87d0d3649939aef238adc5807cb951976a7a"),
    Photograph("plasma-workspace-wallpapers", "usr/share/wallpapers/FallenLeaf/contents/images/2560x1600.jpg", "a fallen maple leaf", "Martin Klapetek", "LGPL-3.0", "validation", "95603a6560c7e8d50e0e03b3f4adbe39c5258c72528e74e4ecaea1daf4e499de"),
    Photograph("plasma-workspace-wallpapers", "usr/share/wallpapers/Grey/contents/images/2560x1600.jpg", "a facade of grey waves", "Sigi Sagi", "LGPL-3.0", "train", "88c31d8944b7e6935d1b9a296654c692f0772cb512491713eb30a972a604c0ed"),
    Photograph("plasma-workspace-wallpapers", "usr/share/wallpapers/Kite/contents/images/2560x1600.jpg", "a kite in a blue sky", "Risto Saukonpää", "LGPL-3.0", "train", "bdca288ce296a981e80659c021cf707caddc702c0c8d4247e60bd618476d47f8"),
    Photograph("plasma-workspace-wallpapers", "usr/share/wallpapers/OneStandsOut/contents/images/2560x1600.jpg", "moss of which one stands out", "Risto Saukonpää", "LGPL-3.0", "train", "cb507baf1dafdcae362264f3aba9483ed4be5f6c9fdd770f0ec0920c6d9e80fd"),
    Photograph("plasma-workspace-wallpapers", "usr/share/wallpapers/Path/contents/images/2560x1600.jpg", "a path in a dark forest", "Risto Saukonpää", "LGPL-3.0", "train", "7477457d7f17b736259f1b021864778ad4ba802cf3214e6728181ff29126bba8"),
    Photograph("plasma-workspace-wallpapers", "usr/share/wallpapers/summer_1am/contents/images/2560x1600.jpg", "a lake in a summer night", "Risto Saukonpää", "LGPL-3.0", "train", "c868b50789591dd42910153c768053f1ba0a98cb36bbfc2b7a96a1045d0477f8"),
    Photograph("mate-backgrounds", "usr/share/backgrounds/mate/nature/Aqua.jpg", "a drop falling into water", "Charles Barbin", "GPL-2.0-or-later", "train", "5c30118205982da441bf7e6a1ada636a8a0be879408140b3148280c665ed6bce"),
    Photograph("mate-backgrounds", "usr/share/backgrounds/mate/nature/Blinds.jpg", "a leaf with parallel veins", "Lennart Poettering, Andrea Cimitan", "GPL-2.0-or-later", "train", "f7aac0dcc2e06d0491643e84df3da1d9db7c4610f58806a880d56e074799f600"),
    Photograph("mate-backgrounds", "usr/share/backgrounds/mate/nature/Dune.jpg", "grass on a dune", "Marco Cogoni, Hylke Bons", "GPL-2.0-or-later", "validation", "8a67c2cb0be8c46b70c237311a4fa4d2b4ac7d39568135384787801fa5cc9a91"),
    Photograph("mate-backgrounds", "usr/share/backgrounds/mate/nature/FreshFlower.jpg", "an orange flower", "Jens Ansorg", "GPL-2.0-or-later", "train", "972b0a0c4e5e3fa93f4f244fc84bc64b121a5eac3aaa5856f1308c1f38a02f8e"),
    Photograph("mate-backgrounds", "usr/share/backgrounds/mate/nature/Garden.jpg", "a red and yellow flower", "Charles Barbin", "GPL-2.0-or-later", "train", "d3095ee09d425ef23d27155412136cf14fc3c9af76ca58b452f55e23da324e78"),
    Photograph("mate-backgrounds", "usr/share/backgrounds/mate/nature/GreenMeadow.jpg", "blades of grass", "Timothy Schellhase, Lapo Calamandrei", "GPL-2.0-or-later", "train", "8fa0de0aa4089f7319c9fb7a6d006d4cab6023e8c8853731557cff53567b4832"),
    Photograph("mate-backgrounds", "usr/share/backgrounds/mate/nature/LadyBird.jpg", "a ladybird on a stalk", "Charles Barbin", "GPL-2.0-or-later", "validation", "e35a9a4126ef969c90b29c038058c5a575a20eadd84106a37bf1fa9931e7b61d"),
    Photograph("mate-backgrounds", "usr/share/backgrounds/mate/nature/RainDrops.jpg", "raindrops on leaves", "blackcombwhistler07", "GPL-2.0-or-later", "train", "3e4ea9671c28c90a86cf67b3db9daf18c4741587c596333a7529ca589aaa0c16"),
    Photograph("mate-backgrounds", "usr/share/backgrounds/mate/nature/Storm.jpg", "a road below a storm", "Sergey Nazarov", "GPL-2.0-or-later", "train", "77ca53077831d3237f73393a91fc879158abc046d852941c26e90de336356957"),
    Photograph("mate-backgrounds", "usr/share/backgrounds/mate/nature/TwoWings.jpg", "two winged seeds", "Charles Barbin, Hylke Bons", "GPL-2.0-or-later", "train", "665e5abf8a5399070a91a9a8e455fe071e5b61697ff78fdeda4e9843ef545aeb"),
    Photograph("mate-backgrounds", "usr/share/backgrounds/mate/nature/Wood.jpg", "bright wood", "Jean-François Fortin Tam", "GPL-2.0-or-later", "train", "19c78500ac00a622e19907ab9cc7d06d46fe08c4a6142759a84195696150ec07"),
    Photograph("mate-backgrounds", "usr/share/backgrounds/mate/nature/YellowFlower.jpg", "a yellow flower", "Charles Barbin", "GPL-2.0-or-later", "train", "254da96256acb7add685679775a04d1e4a5bc8cd13e5a5a3d61351ce198a5306"),
    Photograph("lomiri-wallpapers-16.04", "usr/share/backgrounds/Bridge_by_Sander_Klootwijk.jpg", "cables of a bridge", "Sander Klootwijk", "CC-BY-SA-4.0", "train", "bd86b081f9975e2b83527f71e49b9271a8ab40885428395969d9f7d834d7f050"),
    Photograph("lomiri-wallpapers-16.04", "usr/share/backgrounds/Dragonfly_by_Bolly.jpg", "a dragonfly on a twig", "Bolly", "CC-BY-SA-4.0", "train", "af5af17841009732def24b09bb1e669a1b09d2b4bdeee7812c371101c30d2bb3"),
    Photograph("lomiri-wallpapers-16.04", "usr/share/backgrounds/Picture_0B_by_freespace.jpg", "a fig in a red bowl", 'Trevor "Freespace"', "CC-BY-4.0", "train", "c8c0ab18e48d9e0419fe42881112137f3afafc27dfddc29ec3a6d54c56d225ad"),
    Photograph("lomiri-wallpapers-16.04", "usr/share/backgrounds/Picture_1A_by_freespace.jpg", "brushes and paint", 'Trevor "Freespace"', "CC-BY-4.0", "train", "89e86af38d04daaef975665dc2127e9fa76f0fd68f4eea105a2d0ae3390b010b"),
    Photograph("lomiri-wallpapers-16.04", "usr/share/backgrounds/Wine_by_Jakkub_Mede.jpg", "a bottle and a glass of wine", "Jakub Mede", "CC-BY-4.0", "train", "d2e96e6d4da40dd804b3d0ce295e94de04a2d7d9b6785d42cd9d92ba58bced74"),
    Photograph("lomiri-wallpapers-16.04", "usr/share/backgrounds/aitzgorri_by_Aitzol_Berasategi.jpg", "a mountain above a forest", "Aitzol Berasategi", "CC-BY-4.0", "train", "66268e7b48f8854d36a28765fac6e23ec1aee251daa6da1f64715f201020ad36"),
    Photograph("lomiri-wallpapers-16.04", "usr/share/backgrounds/free_by_Peter_Nerlich.jpg", "a bird below round lamps", "Peter Nerlich", "CC-BY-SA-4.0", "train", "85a5453c2fed514c75973016f3d862aca62eb7ca087618822469274ac1092373"),
    Photograph("lomiri-wallpapers-16.04", "usr/share/backgrounds/friends_by_Aitzol_Berasategi.jpg", "two dogs at a door", "Aitzol Berasategi", "CC-BY-4.0", "validation", "cc40e313c74e421edffe3403def413c16878ce14661cce7ec5915baeab35538d"),
    Photograph("lomiri-wallpapers-16.04", "usr/share/backgrounds/greentock_by_Peter_Nerlich.jpg", "a clock", "Peter Nerlich", "CC-BY-SA-4.0", "train", "e7b20e2db9dcd6e2b278ca55873c2110b35d89cd38b04d0b18728726888e6889"),
    Photograph("lomiri-wallpapers-16.04", "usr/share/backgrounds/life_by_Aitzol_Berasategi.jpg", "a brook in a forest", "Aitzol Berasategi", "CC-BY-4.0", "train", "4c119350ead80201fe256850c3d316309ddfb4bdf10b235ce982dcde0c667c05"),
    Photograph("lomiri-wallpapers-16.04", "usr/share/backgrounds/picosdeeuropa_by_Aitzol_Berasategi.jpg", "a path below rocky peaks", "Aitzol Berasategi", "CC-BY-4.0", "validation", "414d0072b2f6f2c555deafeaef6e45c4fed6fa9ad26eba6560ca8803959cf97a"),
    Photograph("lomiri-wallpapers-16.04", "usr/share/backgrounds/seeding_by_Clements_Engelhardt.jpg", "dandelions against the sun", "Clemens Engelhardt", "CC0-1.0", "validation", "a5634d1ab5e41a3568e92d4a894a500c92b891f9ff734e50bd224d6e185a605f"),
    Photograph("lomiri-wallpapers-16.04", "usr/share/backgrounds/sunset_by_Aitzol_Berasategi.jpg", "the sun setting behind hills", "Aitzol Berasategi", "CC-BY-4.0", "train", "474dab6a4b9f94dc76c29dfe30e9f5db4af0fd2e33fe5d695f8152b371efca18"),
    Photograph("scikit-image", "skimage/data/astronaut.png", "an astronaut", "NASA", "public domain", "validation", "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5"),
    Photograph("scikit-image", "skimage/data/camera.png", "a man with a camera", "Lav Varshney", "CC0-1.0", "train", "b0793d2adda0fa6ae899c03989482bff9a42d3d5690fc7e3648f2795d730c23a"),
    Photograph("scikit-image", "skimage/data/chelsea.png", "a cat", "Stefan van der Walt", "CC0-1.0", "train", "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb"),
    Photograph("scikit-image", "skimage/data/coffee.png", "a cup of coffee", "Rachel Michetti", "CC0-1.0", "validation", "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7"),
    Photograph("scikit-image", "skimage/data/rocket.jpg", "a rocket on its pad", "SpaceX", "public domain", "train", "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c"),
    Photograph("scikit-learn", "sklearn/datasets/images/china.jpg", "a Chinese temple", "danielbuechele", "CC-BY-2.0", "validation", "8378025ad2519d649d02e32bd98990db4ab572357d9f09841c2fbfbb4fefad29"),
    Photograph("scikit-learn", "sklearn/datasets/images/flower.jpg", "a flower", "vultilion", "CC-BY-2.0", "train", "a77f6ec41e353afdf8bdff2ea981b2955535d8d83294f8cfa49cf4e423dd5638"),
)
# fmt: on
