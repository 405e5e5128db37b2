"""An exported graph as a function from one array to another, whatever its ends are called."""

from functions.train.data import Array
from pilotlight.runtime.session import Session


def run_graph(session: Session, inputs: Array) -> Array:
    """What the graph answers to (N, ...) raw inputs."""
    (given,), (answer,) = session.inputs, session.outputs
    return session.run({given.name: inputs})[answer.name]
