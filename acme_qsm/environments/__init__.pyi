from .adapter import adapt as adapt
from .dm_control import make as make
from .pool import Pool as Pool
from .tasks import TASKS as TASKS
from .tasks import validate_action_repeat as validate_action_repeat
from .tasks import validate_task as validate_task
