"""A run in many processes.

Belongs here: the plan of such a run, what each of its processes does (`nodes`),
how they agree (`coordination`), how they are kept alive (`processes`), and who
starts them (`engines`). Does not: what a run in one process needs as well,
which is in `experiments`.
"""
