from .acting import Policy as Policy
from .acting import PolicyParams as PolicyParams
from .learner_core import LearnerCore as LearnerCore
from .method import Method as Method
from .training import Context as Context
from .training import TrainingState as TrainingState
