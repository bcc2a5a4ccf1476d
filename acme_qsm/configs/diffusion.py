"""What every method can be told whose policy is a denoiser."""

import dataclasses

from acme_qsm import configuration
from acme_qsm.configs.actor_critic import ActorCriticConfig
from acme_qsm.configs.networks import DenoiserConfig
from acme_qsm.diffusion import betas


@dataclasses.dataclass(frozen=True)
class DiffusionConfig(ActorCriticConfig, DenoiserConfig):
  """What every method can be told whose policy is a denoiser.

  Attributes:
    noise_schedule: "vp", "cosine" or "linear".
    beta_start: bound of the schedule at the least noisy step; None for the
      schedule's own, see `diffusion.make_schedule`.
    beta_end: the same at the noisiest step.
    sampler: the reverse process. "noise_mean": steps by the noise prediction,
      samples on the way clipped (`diffusion.sample`). "posterior": steps by the
      estimate of the clean action, which is clipped
      (`diffusion.sample_posterior`).
    posterior_variance: the variance of the steps of "posterior".
      "fixed_small": the posterior's own given the estimated clean action, which
      draws a policy narrower than the denoiser knows it, the more so the fewer
      the steps. "fixed_large": beta_t, as always by "noise_mean"; wider.
    sampling_start_scale: standard deviation of what the sampler starts from.
    sampling_temperature: scale of the sampler's noise when acting and in the
      critic's target.
    act_with_target_denoiser: whether acting while collecting data samples from
      the target denoiser rather than the online one.
    evaluate_target_denoiser: whether evaluation samples from the target
      denoiser rather than the online one.
    evaluation_temperature: scale of the sampler's noise in evaluation.
  """

  noise_schedule: betas.ScheduleName = "vp"
  beta_start: float | None = configuration.positive(None)
  beta_end: float | None = configuration.positive(None)
  sampler: betas.TransitionName = "noise_mean"
  posterior_variance: betas.PosteriorVariance = "fixed_small"
  sampling_start_scale: float = configuration.non_negative(1.0)
  sampling_temperature: float = configuration.non_negative(1.0)
  act_with_target_denoiser: bool = False
  evaluate_target_denoiser: bool = True
  evaluation_temperature: float = configuration.non_negative(1.0)

  def __post_init__(self):
    super().__post_init__()
    try:
      betas.make_betas(
        self.noise_schedule,
        self.num_denoising_steps,
        beta_start=self.beta_start,
        beta_end=self.beta_end,
      )
    except ValueError as error:
      raise ValueError(f"{type(self).__name__}: {error}") from error

  def acts_by_target(self, evaluation: bool) -> bool:
    """See `ActorCriticConfig`."""
    if evaluation:
      return self.evaluate_target_denoiser
    return self.act_with_target_denoiser
