"""One update of each stage of SRPO in plain NumPy, float64, written from the equations and not from the package.

Networks are nested dictionaries of arrays as Flax names them, the only thing taken from the package's layout. Gradients
come from `Node`, a reverse-mode tape of a dozen operations; `integration/test_reference.py` checks it by finite
differences.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

Tree = Any


class Node:
    """An array and how to send a gradient back to the arrays that it was made from."""

    def __init__(
        self, value: Any, parents: "Sequence[Node]" = (), backward: Callable[[np.ndarray], Any] | None = None
    ) -> None:
        self.value = np.asarray(value, np.float64)
        self.parents = parents
        self.backward = backward
        self.gradient = np.zeros_like(self.value)

    def __add__(self, other: "Node | np.ndarray | float") -> "Node":
        other = _node(other)
        return Node(self.value + other.value, (self, other), lambda g: (g, g))

    def __mul__(self, other: "Node | np.ndarray | float") -> "Node":
        other = _node(other)
        return Node(self.value * other.value, (self, other), lambda g: (g * other.value, g * self.value))

    def __sub__(self, other: "Node | np.ndarray | float") -> "Node":
        return self + _node(other) * -1.0

    def __matmul__(self, other: "Node | np.ndarray") -> "Node":
        other = _node(other)
        return Node(self.value @ other.value, (self, other), lambda g: (g @ other.value.T, self.value.T @ g))

    def elementwise(self, value: np.ndarray, derivative: np.ndarray) -> "Node":
        """A function of each element, given its value and its derivative here."""
        return Node(value, (self,), lambda g: (g * derivative,))

    def sum(self, axis: int | None = None) -> "Node":
        def backward(g: np.ndarray) -> tuple[np.ndarray]:
            return (np.broadcast_to(g if axis is None else np.expand_dims(g, axis), self.value.shape),)

        return Node(self.value.sum(axis), (self,), backward)

    def mean(self, axis: int | None = None) -> "Node":
        count = self.value.size if axis is None else self.value.shape[axis]
        return self.sum(axis) * (1.0 / count)

    def column(self, index: int) -> "Node":
        """[B, n] -> [B]."""

        def backward(g: np.ndarray) -> tuple[np.ndarray]:
            full = np.zeros_like(self.value)
            full[:, index] = g
            return (full,)

        return Node(self.value[:, index], (self,), backward)

    def reshape(self, *shape: int) -> "Node":
        return Node(self.value.reshape(shape), (self,), lambda g: (g.reshape(self.value.shape),))

    def differentiate(self) -> None:
        """Fills `gradient` of every node that this scalar was made from."""
        order: list[Node] = []
        seen: set[int] = set()

        def visit(node: Node) -> None:
            if id(node) not in seen:
                seen.add(id(node))
                for parent in node.parents:
                    visit(parent)
                order.append(node)

        visit(self)
        self.gradient = np.ones(())
        for node in reversed(order):
            if node.backward is not None:
                for parent, gradient in zip(node.parents, node.backward(node.gradient), strict=True):
                    parent.gradient = parent.gradient + _unbroadcast(gradient, parent.value.shape)


def _node(x: "Node | np.ndarray | float") -> Node:
    return x if isinstance(x, Node) else Node(x)


def _unbroadcast(gradient: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    extra = gradient.ndim - len(shape)
    gradient = gradient.sum(axis=tuple(range(extra)))
    kept = tuple(i for i, n in enumerate(shape) if n == 1 and gradient.shape[i] != 1)
    return gradient.sum(axis=kept, keepdims=True)


def tree_map(function: Callable[..., Any], *trees: Tree) -> Tree:
    """`function` on the leaves of nested dictionaries."""
    if isinstance(trees[0], dict):
        return {key: tree_map(function, *(tree[key] for tree in trees)) for key in trees[0]}
    return function(*trees)


def value_and_grad(loss: Callable[[Tree], Node], params: Tree) -> tuple[float, Tree]:
    """A scalar loss and its gradient with respect to a tree of arrays."""
    nodes = tree_map(Node, params)
    result = loss(nodes)
    result.differentiate()
    return float(result.value), tree_map(lambda node: node.gradient, nodes)


def relu(x: Node) -> Node:
    return x.elementwise(np.maximum(x.value, 0.0), (x.value > 0.0).astype(float))


def tanh(x: Node) -> Node:
    y = np.tanh(x.value)
    return x.elementwise(y, 1.0 - y**2)


def sin(x: Node) -> Node:
    return x.elementwise(np.sin(x.value), np.cos(x.value))


def cos(x: Node) -> Node:
    return x.elementwise(np.cos(x.value), -np.sin(x.value))


def silu(x: Node) -> Node:
    sigmoid = 0.5 * (1.0 + np.tanh(0.5 * x.value))
    return x.elementwise(x.value * sigmoid, sigmoid * (1.0 + x.value * (1.0 - sigmoid)))


def log_softmax(x: Node) -> Node:
    """Over the last axis."""
    shifted = x.value - x.value.max(-1, keepdims=True)
    y = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return Node(y, (x,), lambda g: (g - np.exp(y) * g.sum(-1, keepdims=True),))


def mish(x: Node) -> Node:
    """x tanh(softplus(x)), with the derivative of its definition."""
    t = np.tanh(np.logaddexp(x.value, 0.0))
    sigmoid = 0.5 * (1.0 + np.tanh(0.5 * x.value))
    return x.elementwise(x.value * t, t + x.value * (1.0 - t**2) * sigmoid)


def gelu(x: Node) -> Node:
    """x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), the form that Flax means by GELU."""
    scale = np.sqrt(2.0 / np.pi)
    t = np.tanh(scale * (x.value + 0.044715 * x.value**3))
    slope = scale * (1.0 + 3.0 * 0.044715 * x.value**2)
    return x.elementwise(0.5 * x.value * (1.0 + t), 0.5 * (1.0 + t) + 0.5 * x.value * (1.0 - t**2) * slope)


def exp(x: Node) -> Node:
    y = np.exp(x.value)
    return x.elementwise(y, y)


def sqrt(x: Node) -> Node:
    y = np.sqrt(x.value)
    return x.elementwise(y, 0.5 / y)


def absolute(x: Node) -> Node:
    return x.elementwise(np.abs(x.value), np.sign(x.value))


def clip(x: Node, low: float = -1.0, high: float = 1.0) -> Node:
    return x.elementwise(np.clip(x.value, low, high), ((x.value > low) & (x.value < high)).astype(float))


def concatenate(parts: Sequence[Node | np.ndarray]) -> Node:
    """Along the last axis."""
    nodes = [_node(part) for part in parts]
    ends = np.cumsum([node.value.shape[-1] for node in nodes])[:-1]
    value = np.concatenate([node.value for node in nodes], axis=-1)
    return Node(value, nodes, lambda g: np.split(g, ends, axis=-1))


def layer_norm(x: Node, scale: Node, bias: Node) -> Node:
    """Normalized over the last axis, variance plus 1e-5."""
    centred = x - Node(x.value.mean(-1, keepdims=True))
    inverse = 1.0 / np.sqrt((centred.value**2).mean(-1, keepdims=True) + 1e-5)
    normal = centred.value * inverse

    def backward(g: np.ndarray) -> tuple[np.ndarray]:
        along = normal * (g * normal).mean(-1, keepdims=True)
        return (inverse * (g - g.mean(-1, keepdims=True) - along),)

    return Node(normal, (x,), backward) * scale + bias


def dense(params: Tree, x: Node) -> Node:
    inner = params["Dense_0"]
    return x @ inner["kernel"] + inner["bias"]


def mlp(params: Tree, x: Node | np.ndarray, activation: Callable[[Node], Node] = relu) -> Node:
    """Affine layers with an activation between them, and a LayerNorm after it where there are parameters of one."""
    x = _node(x)
    for i in range(sum(name.startswith("Dense") for name in params)):
        x = activation(x) if i else x
        norm = params.get(f"LayerNorm_{i - 1}")
        x = layer_norm(x, norm["scale"], norm["bias"]) if norm else x
        x = dense(params[f"Dense_{i}"], x)
    return x


def actor(params: Tree, observations: np.ndarray) -> Node:
    return tanh(mlp(params["MLP_0"], observations))


def twin_q(
    params: Tree,
    observations: np.ndarray,
    actions: Node | np.ndarray,
    activation: Callable[[Node], Node] = relu,
) -> Node:
    x = concatenate([observations, actions])
    return concatenate([mlp(params[f"MLP_{i}"], x, activation) for i in range(2)])


def value(params: Tree, observations: np.ndarray) -> Node:
    return mlp(params["MLP_0"], observations).column(0)


def energy(
    params: Tree, frequencies: np.ndarray, noisy_actions: np.ndarray, times: np.ndarray, observations: np.ndarray
) -> Node:
    """The energy [B] of QGPO's guidance."""
    angles = 2.0 * np.pi * times[:, None] * frequencies[None]
    time = dense(params["Dense_0"], Node(np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)))
    return mlp(params["MLP_0"], concatenate([noisy_actions, time, observations]), silu).column(0)


def score_network(
    params: Tree,
    frequencies: np.ndarray | None,
    noisy_actions: np.ndarray,
    times: np.ndarray,
    observations: np.ndarray,
    masks: Sequence[np.ndarray] = (),
    rate: float = 0.0,
) -> Node:
    """The noise prediction; `masks` holds what each block's dropout keeps, none outside training.

    Without `frequencies` they are among the parameters.
    """
    own = params["FourierFeatures_0"]["frequencies"] if frequencies is None else frequencies
    angles = _node(own) * (2.0 * np.pi * times[:, None])
    time = concatenate([sin(angles), cos(angles)])
    # Flax numbers layers as they are created, so the outer of two nested ones comes first.
    time = dense(params["Dense_0"], mish(dense(params["Dense_1"], time)))
    x = dense(params["Dense_2"], concatenate([noisy_actions, observations, time]))
    for i in range(sum(name.startswith("ResidualBlock") for name in params)):
        block = params[f"ResidualBlock_{i}"]
        h = x * (masks[i] / (1.0 - rate)) if masks else x
        h = layer_norm(h, block["LayerNorm_0"]["scale"], block["LayerNorm_0"]["bias"])
        x = x + dense(block["Dense_0"], mish(dense(block["Dense_1"], h)))
    return dense(params["Dense_3"], mish(x))


def noise_mlp(params: Tree, noisy_actions: Node | np.ndarray, steps: np.ndarray, observations: np.ndarray) -> Node:
    """Diffusion-QL's noise prediction; `steps` are from 0."""
    frequencies = np.exp(-np.log(1e4) / 7.0 * np.arange(8))
    angles = steps[:, None] * frequencies
    time = Node(np.concatenate([np.sin(angles), np.cos(angles)], axis=-1))
    time = dense(params["Dense_1"], mish(dense(params["Dense_0"], time)))
    return mlp(params["MLP_0"], concatenate([noisy_actions, time, observations]), mish)


def marginal(times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """alpha and sigma of the variance-preserving diffusion with b0 = 0.1 and b1 = 20."""
    alpha = np.exp(-0.25 * times**2 * 19.9 - 0.05 * times)
    return alpha, np.sqrt(1.0 - alpha**2)


def diffuse(actions: np.ndarray, noise: np.ndarray, times: np.ndarray) -> np.ndarray:
    alpha, sigma = marginal(times)
    return alpha[:, None] * actions + sigma[:, None] * noise


class Moments(NamedTuple):
    """Adam's state."""

    first: Tree
    second: Tree
    steps: int


class Learner(NamedTuple):
    """Parameters and their Adam state."""

    params: Tree
    moments: Moments


def learner(params: Tree) -> Learner:
    zeros = tree_map(np.zeros_like, params)
    return Learner(params, Moments(zeros, zeros, 0))


def adam(state: Learner, gradient: Tree, learning_rate: float, weight_decay: float = 0.0) -> Learner:
    """AdamW as in its paper, with PyTorch's defaults (0.9, 0.999, 1e-8)."""
    steps = state.moments.steps + 1
    first = tree_map(lambda m, g: 0.9 * m + 0.1 * g, state.moments.first, gradient)
    second = tree_map(lambda v, g: 0.999 * v + 0.001 * g**2, state.moments.second, gradient)

    def step(p: np.ndarray, m: np.ndarray, v: np.ndarray) -> np.ndarray:
        unbiased = np.sqrt(v / (1.0 - 0.999**steps)) + 1e-8
        return p - learning_rate * weight_decay * p - learning_rate * (m / (1.0 - 0.9**steps)) / unbiased

    return Learner(tree_map(step, state.params, first, second), Moments(first, second, steps))


def cosine(step: int, total: float) -> float:
    return 0.5 * (1.0 + np.cos(np.pi * step / total))


class Transitions(NamedTuple):
    """s, a, r, s' and 0 for a termination, 1 elsewhere."""

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    next_observations: np.ndarray
    discounts: np.ndarray


def behavior_update(
    state: Learner,
    frequencies: np.ndarray,
    batch: Transitions,
    times: np.ndarray,
    noise: np.ndarray,
    masks: Sequence[np.ndarray],
    *,
    rate: float,
    learning_rate: float,
    weight_decay: float,
) -> tuple[Learner, float]:
    """Denoising score matching: squared error summed over action dimensions, averaged over the batch."""
    noisy = diffuse(batch.actions, noise, times)

    def loss_of(params: Tree) -> Node:
        error = score_network(params, frequencies, noisy, times, batch.observations, masks, rate) - noise
        return (error * error).sum(-1).mean()

    loss, gradient = value_and_grad(loss_of, state.params)
    return adam(state, gradient, learning_rate, weight_decay), loss


class Critic(NamedTuple):
    """All that the critic stage trains."""

    q: Learner
    value: Learner
    actor: Learner
    target: Tree


def critic_update(
    state: Critic,
    batch: Transitions,
    *,
    learning_rate: float,
    actor_rate: float,
    expectile: float,
    discount: float,
    temperature: float,
    target_rate: float,
) -> tuple[Critic, dict[str, float]]:
    """Expectile regression of V, then both Q, then the target, then the weighted regression of the actor."""
    target_q = twin_q(state.target, batch.observations, batch.actions).value.min(-1)
    next_value = value(state.value.params, batch.next_observations).value
    goal = batch.rewards + discount * batch.discounts * next_value

    def value_loss(params: Tree) -> Node:
        u = Node(target_q) - value(params, batch.observations)
        return (u * u * np.abs(expectile - (u.value < 0.0))).mean()

    def q_loss(params: Tree) -> Node:
        q = twin_q(params, batch.observations, batch.actions)
        first, second = (q.column(i) - goal for i in range(2))
        return ((first * first).mean() + (second * second).mean()) * 0.5

    loss_v, gradient = value_and_grad(value_loss, state.value.params)
    new_value = adam(state.value, gradient, learning_rate)
    loss_q, gradient = value_and_grad(q_loss, state.q.params)
    q = adam(state.q, gradient, learning_rate)
    target = tree_map(lambda t, p: (1.0 - target_rate) * t + target_rate * p, state.target, q.params)

    advantage = twin_q(target, batch.observations, batch.actions).value.min(-1)
    advantage = advantage - value(new_value.params, batch.observations).value
    weights = np.minimum(np.exp(temperature * advantage), 100.0)

    def actor_loss(params: Tree) -> Node:
        error = actor(params, batch.observations) - batch.actions
        return ((error * error).sum(-1) * weights).mean()

    loss_actor, gradient = value_and_grad(actor_loss, state.actor.params)
    new_actor = adam(state.actor, gradient, actor_rate)
    losses = {"value_loss": loss_v, "q_loss": loss_q, "actor_loss": loss_actor}
    return Critic(q, new_value, new_actor, target), losses


def policy_update(
    state: Learner,
    noise_prediction: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
    target: Tree,
    observations: np.ndarray,
    times: np.ndarray,
    noise: np.ndarray,
    *,
    weighting: str,
    minus_noise: bool,
    q_gradient: str,
    beta: float,
    regularization: float,
    learning_rate: float,
) -> Learner:
    """One ascent step of Q minus the divergence from the behavior; the chain rule is applied by hand at the action."""
    actions = actor(state.params, observations).value
    alpha, sigma = marginal(times)
    weight = {"sigma2": sigma**2, "one": np.ones_like(sigma), "alpha_over_sigma": alpha / sigma}[weighting]
    predicted = noise_prediction(diffuse(actions, noise, times), times, observations)
    pull = weight[:, None] * (predicted - noise if minus_noise else predicted)

    leaf = Node(actions)
    twin_q(tree_map(Node, target), observations, leaf).mean(-1).sum().differentiate()
    climb = leaf.gradient
    if q_gradient == "sample":
        climb = climb / np.sqrt((climb**2).mean(-1, keepdims=True))
    elif q_gradient == "batch":
        climb = climb / np.sqrt((climb**2).mean())

    direction = (regularization * pull - beta * climb) / len(observations)
    _, gradient = value_and_grad(lambda params: (actor(params, observations) * direction).sum(), state.params)
    return adam(state, gradient, learning_rate)
