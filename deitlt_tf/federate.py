"""Train one model and a personal model for each client from long-tailed images, with all clients on this machine.

    python -m deitlt_tf.federate --flagfile=configs/federated_digits_lt.cfg
    python -m deitlt_tf.federate --flagfile=configs/federated_cifar10_lt.cfg --data_dir=my_data --workdir=runs/together

One data set is divided among --federated_clients by chance, or every client has a folder of its own:
--federated_client_dirs=north,south. In each round clients train on their own images and the server averages what they
share. --federated_method says how. After an interruption the same command goes on after the last complete round.
Several machines: docs/how_to/federated.md.
"""

from deitlt_tf.recipes import checks, command_line
from deitlt_tf.recipes.recipe import Recipe


def main(recipe: Recipe) -> None:
    if not recipe.run.workdir:
        raise ValueError("--workdir is missing: name the folder where the run is kept, e.g. --workdir=runs/first.")
    checks.check_federated(recipe)
    from deitlt_tf.devices.strategy import prepare
    from deitlt_tf.federated import rounds

    prepare(**recipe.run.numerics())
    rounds.train(recipe)


def program() -> None:
    command_line.program(main, __doc__, checkpoints=True)


if __name__ == "__main__":
    program()
