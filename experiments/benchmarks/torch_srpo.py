"""The three stages of SRPO (arXiv 2310.07297) in plain PyTorch, the yardstick of `throughput.py`.

Same networks, losses, optimizers, batch sizes and update order as `jaxrl_srpo.methods`, written as PyTorch code is
usually written: one run at a time, modules, `torch.optim`, a Python loop. Batches are gathered from the same packed
rows. Every trainer has `update(rows)`, one whole update, and `losses(...)`, which `compile_losses` hands to
`torch.compile`. Needs the extra `torch`.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from jaxrl_srpo.methods import behavior, iql, srpo
from jaxrl_srpo.methods.settings import Values
from jaxrl_srpo.nn.schedules import VP
from jaxrl_srpo.types import Spec


class Batch(NamedTuple):
    """Transitions, fields as in `jaxrl_srpo.types.Batch`."""

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    next_observations: Tensor
    discounts: Tensor


def draw_batch(rows: Tensor, spec: Spec, batch_size: int) -> Batch:
    """`batch_size` random rows of a packed table [N, 2 observation_size + action_size + 2]."""
    chosen = rows[torch.randint(len(rows), (batch_size,), device=rows.device)]
    s, a = spec.observation_size, spec.action_size
    return Batch(chosen[:, :s], chosen[:, s : s + a], chosen[:, s + a], chosen[:, s + a + 1 : -1], chosen[:, -1])


def marginal(times: Tensor) -> tuple[Tensor, Tensor]:
    """alpha_t and sigma_t of the variance-preserving linear schedule (section 2.2)."""
    log_alpha = -0.25 * times**2 * (VP.beta_max - VP.beta_min) - 0.5 * times * VP.beta_min
    return torch.exp(log_alpha), torch.sqrt(-torch.expm1(2.0 * log_alpha))


def diffuse(actions: Tensor, noise: Tensor, times: Tensor) -> Tensor:
    """alpha_t a + sigma_t eps."""
    alpha, sigma = marginal(times)
    return alpha[:, None] * actions + sigma[:, None] * noise


def mlp(inputs: int, outputs: int, width: int, layers: int) -> nn.Sequential:
    """`layers` hidden ReLU layers and a linear output."""
    sizes = [inputs, *[width] * layers]
    hidden = [module for i in range(layers) for module in (nn.Linear(sizes[i], sizes[i + 1]), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(width, outputs))


class TwinQ(nn.Module):
    """Two independent action-value networks."""

    def __init__(self, spec: Spec, width: int) -> None:
        super().__init__()
        self.networks = nn.ModuleList(mlp(spec.observation_size + spec.action_size, 1, width, 2) for _ in range(2))

    def forward(self, observations: Tensor, actions: Tensor) -> Tensor:
        """[B, 2] action values."""
        inputs = torch.cat([observations, actions], -1)
        return torch.cat([network(inputs) for network in self.networks], -1)


class ResidualBlock(nn.Module):
    """x + Linear(Mish(Linear(LayerNorm(dropout(x)))))."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Dropout(dropout), nn.LayerNorm(width), nn.Linear(width, hidden), nn.Mish(), nn.Linear(hidden, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, width] -> [B, width]."""
        return x + self.branch(x)


class ScoreNetwork(nn.Module):
    """Noise prediction eps(a_t | s, t)."""

    frequencies: Tensor

    def __init__(self, spec: Spec, settings: behavior.Settings) -> None:
        super().__init__()
        self.register_buffer("frequencies", 30.0 * torch.randn(32))
        self.time = nn.Sequential(nn.Linear(64, 128), nn.Mish(), nn.Linear(128, 128))
        self.inlet = nn.Linear(spec.observation_size + spec.action_size + 128, settings.width)
        self.blocks = nn.Sequential(
            *(ResidualBlock(settings.width, settings.hidden, settings.dropout_rate) for _ in range(settings.blocks))
        )
        self.outlet = nn.Sequential(nn.Mish(), nn.Linear(settings.width, spec.action_size))

    def forward(self, noisy_actions: Tensor, times: Tensor, observations: Tensor) -> Tensor:
        """[B, action_size]."""
        angles = 2.0 * torch.pi * times[:, None] * self.frequencies
        time = self.time(torch.cat([angles.sin(), angles.cos()], -1))
        return self.outlet(self.blocks(self.inlet(torch.cat([noisy_actions, observations, time], -1))))


class Behavior:
    """Stage 1: denoising score matching with AdamW."""

    def __init__(self, spec: Spec, settings: behavior.Settings, device: str = "cpu") -> None:
        self.spec, self.settings = spec, settings
        self.network = ScoreNetwork(spec, settings).to(device)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), settings.learning_rate, weight_decay=settings.weight_decay
        )

    def losses(self, batch: Batch, times: Tensor, noise: Tensor) -> Tensor:
        """|eps(a_t | s, t) - eps|^2 summed over action dimensions, mean over the batch."""
        predicted = self.network(diffuse(batch.actions, noise, times), times, batch.observations)
        return (predicted - noise).square().sum(-1).mean()

    def step(self, batch: Batch, times: Tensor, noise: Tensor) -> None:
        """One step with given draws."""
        loss = self.losses(batch, times, noise)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()

    def update(self, rows: Tensor) -> None:
        """One update on a fresh batch."""
        batch = draw_batch(rows, self.spec, self.settings.batch_size)
        times = torch.rand(self.settings.batch_size, device=rows.device) * (1.0 - 1e-3) + 1e-3
        self.step(batch, times, torch.randn_like(batch.actions))


class Critic:
    """Stage 2: IQL's V, both Q, the target Q and the deterministic actor."""

    def __init__(self, spec: Spec, settings: iql.Settings, device: str = "cpu") -> None:
        self.spec, self.settings = spec, settings
        self.q, self.target_q = TwinQ(spec, settings.width).to(device), TwinQ(spec, settings.width).to(device)
        self.target_q.load_state_dict(self.q.state_dict())
        self.value = mlp(spec.observation_size, 1, settings.width, 2).to(device)
        self.actor = mlp(spec.observation_size, spec.action_size, settings.width, settings.actor_layers).to(device)
        self.q_optimizer = torch.optim.Adam(self.q.parameters(), settings.learning_rate)
        self.value_optimizer = torch.optim.Adam(self.value.parameters(), settings.learning_rate)
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), settings.actor_learning_rate)
        self.actor_schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.actor_optimizer, settings.steps)

    def value_loss(self, batch: Batch, target_values: Tensor) -> Tensor:
        """Expectile regression (IQL, eq. 5)."""
        difference = target_values - self.value(batch.observations)[:, 0]
        weight = torch.abs(self.settings.expectile - (difference < 0.0).float())
        return (weight * difference.square()).mean()

    def q_loss(self, batch: Batch, targets: Tensor) -> Tensor:
        """Squared error of both Q (IQL, eq. 6)."""
        return (self.q(batch.observations, batch.actions) - targets[:, None]).square().mean()

    def actor_loss(self, batch: Batch, weights: Tensor) -> Tensor:
        """Advantage-weighted regression (IQL, eq. 7)."""
        actions = torch.tanh(self.actor(batch.observations))
        return (weights * (actions - batch.actions).square().sum(-1)).mean()

    def step(self, batch: Batch) -> None:
        """One step of everything, in the order of the published SRPO code."""
        with torch.no_grad():
            target_values = self.target_q(batch.observations, batch.actions).amin(-1)
            next_values = self.value(batch.next_observations)[:, 0]
            targets = batch.rewards + self.settings.discount * batch.discounts * next_values
        _descend(self.value_optimizer, self.value_loss(batch, target_values))
        _descend(self.q_optimizer, self.q_loss(batch, targets))
        with torch.no_grad():
            for target, source in zip(self.target_q.parameters(), self.q.parameters(), strict=True):
                target.lerp_(source, self.settings.target_rate)
            advantages = (
                self.target_q(batch.observations, batch.actions).amin(-1) - self.value(batch.observations)[:, 0]
            )
            weights = torch.exp(self.settings.temperature * advantages).clamp(max=iql.MAX_WEIGHT)
        _descend(self.actor_optimizer, self.actor_loss(batch, weights))
        self.actor_schedule.step()

    def update(self, rows: Tensor) -> None:
        """One update on a fresh batch."""
        self.step(draw_batch(rows, self.spec, self.settings.batch_size))


class Policy:
    """Stage 3: the actor between the critic's gradient and the score."""

    def __init__(self, spec: Spec, settings: srpo.Settings, score: ScoreNetwork, q: TwinQ, device: str = "cpu") -> None:
        self.spec, self.settings = spec, settings
        self.score, self.q = score.eval(), q
        self.actor = mlp(spec.observation_size, spec.action_size, settings.width, settings.layers).to(device)
        self.optimizer = torch.optim.Adam(self.actor.parameters(), settings.learning_rate)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, settings.steps)

    def weight(self, times: Tensor) -> Tensor:
        """omega(t)."""
        alpha, sigma = marginal(times)
        forms = {"sigma2": sigma**2, "one": torch.ones_like(times), "alpha_over_sigma": alpha / sigma}
        return forms[self.settings.weighting]

    def q_gradient(self, observations: Tensor, actions: Tensor) -> Tensor:
        """grad_a of the mean of both Q, normalized as configured."""
        with torch.enable_grad():
            actions = actions.detach().requires_grad_(True)
            total = self.q(observations, actions).mean(-1).sum()
            (gradient,) = torch.autograd.grad(total, actions)
        if self.settings.q_gradient == "sample":
            return gradient / gradient.square().mean(-1, keepdim=True).sqrt().clamp(min=1e-12)
        if self.settings.q_gradient == "batch":
            return gradient / gradient.square().mean().sqrt().clamp(min=1e-12)
        return gradient

    def losses(self, batch: Batch, times: Tensor, noise: Tensor) -> Tensor:
        """A loss whose gradient is that of equation 14."""
        actions = torch.tanh(self.actor(batch.observations))
        with torch.no_grad():
            error = self.score(diffuse(actions, noise, times), times, batch.observations)
            if self.settings.minus_noise:
                error = error - noise
            regularizer = self.settings.regularization * self.weight(times)[:, None] * error
            gradient = regularizer - self.settings.beta * self.q_gradient(batch.observations, actions)
        return (gradient * actions).sum(-1).mean()

    def step(self, batch: Batch, times: Tensor, noise: Tensor) -> None:
        """One step with given draws."""
        _descend(self.optimizer, self.losses(batch, times, noise))
        self.schedule.step()

    def update(self, rows: Tensor) -> None:
        """One update on a fresh batch."""
        batch = draw_batch(rows, self.spec, self.settings.batch_size)
        low, high = self.settings.time_min, self.settings.time_max
        times = torch.rand(self.settings.batch_size, device=rows.device) * (high - low) + low
        self.step(batch, times, torch.randn_like(batch.actions))


Trainer = Behavior | Critic | Policy


def make(stage: str, spec: Spec, values: Values, device: str) -> Trainer:
    """The trainer of a stage of SRPO with fresh networks, from the same settings as the package's."""
    if stage == "behavior":
        return Behavior(spec, behavior.STAGE.read(values), device)
    critic = Critic(spec, iql.STAGE.read(values), device)
    if stage == "critic":
        return critic
    score = ScoreNetwork(spec, behavior.STAGE.read(values)).to(device)
    return Policy(spec, srpo.STAGE.read(values), score, critic.target_q, device)


_COMPILED = ("losses", "value_loss", "q_loss", "actor_loss")


def compile_losses(trainer: Trainer) -> Trainer:
    """Puts `torch.compile` around the forward and backward pass of every loss; the optimizers stay eager."""
    for name in _COMPILED:
        loss: Callable[..., Tensor] | None = getattr(trainer, name, None)
        if loss is not None:
            setattr(trainer, name, torch.compile(loss))
    return trainer


def _descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
