"""Reinforcement learning under trace: which experience taught the agent, and how often it was replayed.

A replay buffer is no data set: its samples are made while the agent trains, and drawn again and again. Each step that
the agent takes is a sample, named by its number; `run.use` says which of them an update replays.

    pip install fgtrac[torch]; python replay_buffer.py; fgtrac history runs/cartpole.trace transitions:7

The pole on a cart is that of Barto, Sutton and Anderson (1983), the agent a double deep Q-network (arXiv:1509.06461).
"""

import copy
import sys
from math import cos, sin

import numpy as np
import torch
from torch import nn
from torch.nn.functional import smooth_l1_loss

import fgtrac  # fgtrac

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 6000
CAPACITY, BATCH, DISCOUNT, WARM_UP = 2000, 64, 0.98, 500
draw = np.random.default_rng(0)
torch.manual_seed(0)
torch.set_num_threads(1)  # so small a network is slower on several


def push(state: np.ndarray, right: int) -> tuple[np.ndarray, bool]:
    """The cart after 20 ms of a force of 10 N, and whether the pole has fallen or the cart left its track."""
    _place, speed, angle, turning = state
    swing = ((10.0 if right else -10.0) + 0.05 * turning**2 * sin(angle)) / 1.1
    bend = (9.8 * sin(angle) - cos(angle) * swing) / (0.5 * (4 / 3 - 0.1 * cos(angle) ** 2 / 1.1))
    pull = swing - 0.05 * bend * cos(angle) / 1.1
    after = state + 0.02 * np.array([speed, pull, turning, bend])
    return after, bool(abs(after[0]) > 2.4 or abs(after[2]) > 0.21)


def begin() -> np.ndarray:
    return draw.uniform(-0.05, 0.05, 4)


values = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
steady = copy.deepcopy(values)
optimizer = torch.optim.Adam(values.parameters(), lr=1e-3)
states = np.zeros((CAPACITY, 2, 4), np.float32)  # before and after; a ring, in which old steps are written over
acts, falls = np.zeros(CAPACITY, np.int64), np.zeros(CAPACITY, np.float32)
lengths, length, state = [], 0, begin()

with fgtrac.start_run("runs/cartpole") as run:  # fgtrac
    run.register(range(STEPS), name="transitions", role="train")  # fgtrac
    for now in range(STEPS):
        right = int(draw.random() < 0.5)
        if draw.random() > max(0.05, 1 - now / 3000):
            right = int(values(torch.tensor(state, dtype=torch.float32)).argmax())
        after, fell = push(state, right)
        place = now % CAPACITY
        states[place], acts[place], falls[place] = (state, after), right, fell
        state, length = after, length + 1
        if fell or length == 300:
            lengths, length, state = [*lengths, length], 0, begin()
        if now < WARM_UP or now % 2:
            continue
        drawn = draw.integers(max(0, now + 1 - CAPACITY), now + 1, BATCH)  # steps, of which each has its place
        at = drawn % CAPACITY
        old, new = torch.from_numpy(states[at]).unbind(1)
        with torch.no_grad():
            best = steady(new).gather(1, values(new).argmax(1, keepdim=True))[:, 0]
            goal = 1 + DISCOUNT * best * (1 - torch.from_numpy(falls[at]))
        loss = smooth_l1_loss(values(old).gather(1, torch.from_numpy(acts[at])[:, None])[:, 0], goal)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        run.use(drawn)  # fgtrac
        if now % 200 == 0:
            steady.load_state_dict(values.state_dict())
            run.checkpoint(values, optimizer, val_loss=float(loss.detach()))  # fgtrac
first, last = np.mean(lengths[:10]), np.mean(lengths[-10:])
print(f"{len(lengths)} falls: the first ten after {first:.0f} steps, the last ten after {last:.0f}")
