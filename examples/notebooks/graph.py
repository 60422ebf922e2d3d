"""The notebook graph.ipynb, in cells: a graph network with two modalities, trained under trace.

`make notebooks` runs it and keeps what came out. A cell marked "varies" has other outputs each time.
"""

# %% [markdown]
# # A graph network, node by node
#
# A graph network classifies 274 icons by their drawings, their words and their neighbours. In a batch some nodes are
# *seeds*: their own labels take part in the update. Others are *neighbours*: only their features do. A trace tells the
# two apart, so that "was the label of this node ever used?" has an answer.
#
# To run it: `pip install 'fgtrac[graph,query]'`, and npm, which fetches the icons once.

# %%
import shutil
from pathlib import Path

import fgtrac
from fgtrac.api.bundles import verify_bundle
from fgtrac.demo.graph.story import run_demo

folder = Path("fgtrac-graph")  # the last cell removes it
shutil.rmtree(folder, ignore_errors=True)
folder.mkdir()
key = folder / "key.pem"
figures = run_demo(out=folder / "icons", small=True, key=key)
figures["failures"]  # the demo's claims that did not hold

# %% tags=["varies"]
trace = fgtrac.open(folder / "icons.trace", key=str(key))
trace

# %% [markdown]
# ## A node of the training set
#
# Once for each epoch as a seed, and now and then as somebody's neighbour, at a distance of so many hops. The weights of
# its two modalities were recorded at each kept checkpoint.

# %% tags=["varies"]
trained, held_out = (history["sample"] for history in figures["histories"])
history = trace.history(trained)
history

# %%
trained, history.tally.as_json()

# %% [markdown]
# ## A node of the test set
#
# Its label was never used. Its features were, as a neighbour's: the graph is one.

# %%
trace.history(held_out).tally.as_json()

# %% tags=["varies"]
bundle = folder / "label.json"
bundle.write_bytes(trace.prove(held_out, "label never used"))
verify_bundle(bundle, key=str(key))

# %% [markdown]
# ## A wrong prediction, explained
#
# Which nodes, as seeds, lowered its loss by being trained on, and which raised it. What neighbours' features do to a
# prediction through messages is another number, which `trace.neighbour_contributions` gives and nobody adds to these.

# %%
mistake = figures["mistake"]["mistake"]
print(f"{mistake['sample']} is of {mistake['label']}, and the network says {mistake['said']}")
trace.explain(mistake["sample"], k=4)

# %% [markdown]
# ## What one owner can ask
#
# Each icon has an owner, who stands in the log under a pseudonym. All that happened to their icons:

# %% tags=["varies"]
trace.subject(figures["owner"]["owner"])

# %% [markdown]
# ## Labels to look at

# %%
trace.suspects(5)

# %% [markdown]
# ## Tables and SQL

# %%
trace.sql("SELECT hop, role, count(*) AS parts FROM uses GROUP BY ALL ORDER BY ALL").to_pandas()

# %%
trace.sql("""
    SELECT step, modality, round(avg(weight), 3) AS weight
    FROM attention WHERE standing = 'kept' GROUP BY ALL ORDER BY ALL LIMIT 6
""")

# %% [markdown]
# ## Policies and the verdict

# %% tags=["varies"]
fgtrac.check(folder / "icons.trace", key=str(key), policy=folder / "icons.policy.toml")

# %% tags=["varies"]
trace.verify(key=str(key))

# %%
shutil.rmtree(folder)
