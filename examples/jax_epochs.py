"""JAX under trace: whole epochs run inside one compiled scan, and the loop itself says which rows they used.

Nothing can be watched inside a compiled function, so `run.use` takes the loop's own word: one call an epoch, with the
(updates, batch) array of row numbers that the scan went through.

    pip install fgtrac[torch] jax; python jax_epochs.py; fgtrac history runs/jax.trace points:7
"""

import jax
import jax.numpy as jnp
import numpy as np

import fgtrac  # fgtrac

ROWS, BATCH, EPOCHS, RATE = 960, 32, 5, 0.5
points = np.random.default_rng(0).normal(size=(ROWS, 2)).astype(np.float32)
inside = (np.hypot(points[:, 0], points[:, 1]) < 1.1).astype(np.float32)


def init(seed: int) -> dict[str, jax.Array]:
    one, two = jax.random.split(jax.random.key(seed))
    hidden = {"w": jax.random.normal(one, (2, 32)), "b": jnp.zeros(32)}
    return {"hidden": hidden, "out": {"w": jax.random.normal(two, (32,)) / 6, "b": jnp.zeros(())}}


def losses(params, rows):
    hidden = jnp.tanh(jnp.asarray(points)[rows] @ params["hidden"]["w"] + params["hidden"]["b"])
    logits = hidden @ params["out"]["w"] + params["out"]["b"]
    return jnp.logaddexp(0.0, logits) - jnp.asarray(inside)[rows] * logits


@jax.jit
def train_epoch(params, orders):
    def update(now, rows):
        each, gradient = losses(now, rows), jax.grad(lambda p: losses(p, rows).mean())(now)
        return jax.tree.map(lambda p, g: p - RATE * g, now, gradient), each

    return jax.lax.scan(update, params, orders)


params, draw = init(0), np.random.default_rng(1)
with fgtrac.start_run("runs/jax") as run:  # fgtrac
    run.register(points, name="points", role="train")  # fgtrac
    for epoch in range(EPOCHS):
        orders = draw.permutation(ROWS).reshape(-1, BATCH)
        params, each = train_epoch(params, orders)
        run.use(orders, epoch=epoch, losses=each)  # fgtrac
        run.checkpoint(params, val_loss=float(each.mean()))  # fgtrac
        print(f"epoch {epoch}: mean loss {each.mean():.4f}")
