"""The same tests as everywhere else, against the deployed stack."""

from tests.e2e.front_door.test_language_models import *  # noqa: F403 - with the fixture `server` of this folder
