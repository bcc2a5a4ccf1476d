"""A run in many processes.

Belongs here: the plan of such a run, what each of its processes does (`nodes`),
how they agree (`coordination`), how they are kept alive (`processes`), who
starts them (`engines`), and what is shown of them (`display`). Does not: what a
run in one process needs as well, which is in `experiments`.
"""
