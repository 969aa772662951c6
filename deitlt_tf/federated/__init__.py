"""One shared model and a personal model for each client, from long-tailed images that stay where they are.

    partition      which client has which images, and which test images
    etf, heads     linear heads as pure functions: SSE-C, GLA-FR, lengths, priors, absent classes
    updates        what one client does in a round: three losses that never mix
    aggregation    what the server does in a round: a mean weighted by images

    server, client, rounds   all of them in one process: `python -m deitlt_tf.federate`
    *_app, strategy, node    several machines, on Flower (extra [federated]); APP is what `flwr run` takes

May import training, evaluation, data, models, devices, runs and all that these may import.
Method: Xiao et al., ICLR 2024 (FedLoGe, arXiv 2401.08977), with FedAvg, FedProx and corrections by class counts next
to it.
"""

from pathlib import Path

APP = Path(__file__).parent / "app"
