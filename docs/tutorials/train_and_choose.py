# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Train, look, choose
#
# You train a small population in a maze, look at what came out, and choose a policy. Open this script in Jupyter with
# jupytext, or run it with Python.

# %%
import jaxrl_srpo

out = "runs/tutorial"
size = {"budget": 0.5}

# %% [markdown]
# ## Train
#
# Two seeds and two temperatures make four members. All of them share one behavior model and one critic for each seed.
# If you stop the program, the same call goes on where it stopped.

# %%
table = jaxrl_srpo.train("pointmaze/umaze", out=out, seeds=[0, 1], beta=[0.01, 0.03], **size)
table

# %% [markdown]
# ## Look
#
# `load_results` reads the run's files as data frames (install pandas). `evaluations` has one row for each time that a
# member was evaluated. In a maze `mean` is its success rate.

# %%
results = jaxrl_srpo.load_results(out)
evaluations = results.evaluations
evaluations[["algorithm", "seed", "beta", "step", "mean"]].tail()

# %% [markdown]
# The losses are in `metrics`, one row for each member and chunk of updates.

# %%
results.metrics[["stage", "seed", "step", "loss"]].tail()

# %% [markdown]
# ## Choose
#
# Take the temperature whose worst seed is best in its last evaluation. The choice and the score then rest on the same
# episodes, so evaluate again before you report a number: `jaxrl_srpo.evaluate(out, episodes=100)`.

# %%
own = evaluations[evaluations.algorithm == "srpo"]
last = own[own.final]
worst = last.groupby("beta")["mean"].min()
beta = float(worst.idxmax())
beta

# %% [markdown]
# ## Act
#
# `load_policy` takes the member. The policy takes one observation or a batch of them.

# %%
policy = jaxrl_srpo.load_policy(out, seed=0, beta=beta)
environment = policy.make_environment()
observation, _ = environment.reset(seed=0)
done, steps = False, 0
while not done:
    observation, reward, terminated, truncated, _ = environment.step(policy(observation))
    done, steps = terminated or truncated, steps + 1
steps

# %% [markdown]
# ## Choose by a few episodes
#
# Where the environment is at hand, `select` spends a few episodes on the policies that deserve them, by a bandit.
# Without any it ranks them by the data alone, which is a guess: [what each score is worth](../selecting.md).

# %%
selection = jaxrl_srpo.select(out, policies=["srpo"], episodes=12)
selection.chosen

# %% [markdown]
# ## Export
#
# The policy becomes one file that needs neither the run nor JAX: [exporting](../exporting.md).

# %%
file = f"{out}/policy.npz"
jaxrl_srpo.export_policy(out, file, "npz", seed=0, beta=beta)
exported = jaxrl_srpo.load_policy(file)
exported(observation)
