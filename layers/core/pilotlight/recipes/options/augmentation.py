"""How the images of the training set are changed each time that they are seen."""

from typing import Annotated

from pydantic import Field

from pilotlight.recipes.options.part import NotNegative, Options


class AugmentationOptions(Options):
    """Drawn anew for each image in each pass, evenly up to a bound; validation and test stay as they are."""

    shift: Annotated[int, Field(ge=0)] = 0  # whole pixels, up to so many up or down, left or right; zeros come in
    rotate: Annotated[float, Field(ge=0, le=180)] = 0.0  # degrees, up to so many to the left or right
    flip: bool = False  # mirrored left to right, every second image
    noise: NotNegative = 0.0  # the standard deviation of what is added to each value, in the data's own unit
