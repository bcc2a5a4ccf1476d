from .maximum_entropy import (
  entropy_temperature_loss as entropy_temperature_loss,
)
from .maximum_entropy import soft_policy_loss as soft_policy_loss
from .maximum_entropy import squashed_log_prob as squashed_log_prob
from .noised_energy import noised_energy_action as noised_energy_action
from .policy_gradient import (
  diffusion_policy_gradient_loss as diffusion_policy_gradient_loss,
)
from .score_matching import (
  boltzmann_score_matching_loss as boltzmann_score_matching_loss,
)
from .score_matching import q_score_matching_loss as q_score_matching_loss
from .value import categorical_double_q_loss as categorical_double_q_loss
from .value import clipped_double_q_loss as clipped_double_q_loss
from .value import hl_gauss_double_q_loss as hl_gauss_double_q_loss
from .value import quantile_double_q_loss as quantile_double_q_loss
from .value import smooth_value as smooth_value
from .value import take_lowest as take_lowest
from .weighted_noise_matching import (
  effective_sample_size as effective_sample_size,
)
from .weighted_noise_matching import exponential_weights as exponential_weights
from .weighted_noise_matching import normalize_q_value as normalize_q_value
from .weighted_noise_matching import (
  reverse_sampling_score_matching_loss as reverse_sampling_score_matching_loss,
)
from .weighted_noise_matching import (
  self_normalized_weights as self_normalized_weights,
)
from .weighted_noise_matching import standardize as standardize
from .weighted_noise_matching import temperature_loss as temperature_loss
from .weighted_noise_matching import weight_kl as weight_kl
from .weighted_noise_matching import (
  weighted_denoising_loss as weighted_denoising_loss,
)
