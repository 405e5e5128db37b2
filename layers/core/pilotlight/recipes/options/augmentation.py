"""How the images of the training set are changed each time that they are seen."""

from typing import Annotated

from pydantic import Field

from pilotlight.recipes.options.part import NotNegative, Options


class AugmentationOptions(Options):
    """Drawn anew for each image in each pass, evenly up to a bound; validation and test stay as they are."""

    shift: Annotated[int, Field(ge=0)] = 0  # largest shift in pixels, in each direction; zeros fill the gap
    rotate: Annotated[float, Field(ge=0, le=180)] = 0.0  # largest rotation in degrees, in either direction
    flip: bool = False  # mirror every second image, left to right
    noise: NotNegative = 0.0  # the standard deviation of what is added to each value, in the data's own unit
