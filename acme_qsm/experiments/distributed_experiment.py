"""The run in many processes by the name that it has among experiments."""

from acme_qsm import needs

# By its name: what runs in many processes is a room above this one.
make_distributed_experiment = needs.load(
  "acme_qsm.distributed.program",
  "acme_qsm.experiments.make_distributed_experiment",
).make_distributed_experiment
