from .acting import Policy as Policy
from .acting import PolicyParams as PolicyParams
from .learner_core import LearnerCore as LearnerCore
from .learner_core import make_learner_core as make_learner_core
from .learner_core import TrainingState as TrainingState
from .method import Context as Context
from .method import Method as Method
