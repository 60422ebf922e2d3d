"""The notebook cnn.ipynb, in cells: a CNN that was trained under trace, and what can be asked afterwards.

`make notebooks` runs it and keeps what came out. A cell marked "varies" has other outputs each time.
"""

# %% [markdown]
# # A CNN, sample by sample
#
# A small CNN is trained on scikit-learn's 1,797 digits, with mistakes planted on purpose: blank scans, copies, flipped
# labels. fgtrac records what happens to each image. Afterwards we ask the trace: what happened to one image, who is to
# blame for a wrong prediction, which labels look wrong, and what of all this can be proved to somebody else.
#
# To run it: `pip install 'fgtrac[demo,query]'`. It takes some ten seconds on a CPU and leaves nothing behind.

# %%
import shutil
from pathlib import Path

import fgtrac
from fgtrac.api.bundles import verify_bundle
from fgtrac.demo.cnn import run_demo

folder = Path("fgtrac-cnn")  # the last cell removes it
shutil.rmtree(folder, ignore_errors=True)
folder.mkdir()
key = folder / "key.pem"
figures = run_demo(out=folder / "cnn", small=True, key=key)
figures["failures"]  # the demo's claims that did not hold

# %% [markdown]
# ## The trace
#
# A trace is a folder with a signed, append-only log. Opening it believes nothing yet; what is asked later is proved
# against the log's root before it is given.

# %% tags=["varies"]
trace = fgtrac.open(folder / "cnn.trace", key=str(key))
trace

# %% [markdown]
# ## Everything that happened to one image
#
# Images are named as their data set names them: here by their row in the archive.

# %% tags=["varies"]
name = figures["histories"][0]["sample"]
history = trace.history(name)
history

# %%
name, history.uses, history.tally.table()

# %% [markdown]
# ## Who is to blame for a wrong prediction
#
# `explain` needs no training data and no model: the gradients at the kept checkpoints are in the trace. A score
# estimates an influence; influence is not causation, and how well the scores agree with retraining was not measured.

# %%
mistake = figures["mistake"]["mistake"]
print(f"{mistake['sample']} is a {mistake['label']}, and the network says {mistake['said']}")
trace.explain(mistake["sample"], k=4)

# %% [markdown]
# ## Labels that look wrong
#
# 146 of the training labels were flipped. Samples that are learnt only by themselves, and those of a high loss, come
# first.

# %%
trace.suspects(8)

# %% [markdown]
# ## Tables and SQL
#
# What the log says is also there as tables, for DuckDB, pandas, polars and whatever else reads Arrow.

# %%
trace.sql("SELECT epoch, role, count(*) AS uses FROM uses WHERE hop = 0 GROUP BY ALL ORDER BY ALL").to_pandas()

# %%
trace.sql("""
    SELECT names.name, samples.uses, round(samples.contribution, 2) AS contribution
    FROM samples JOIN names USING (id)
    WHERE samples.role = 'train' ORDER BY samples.contribution DESC LIMIT 5
""")

# %% [markdown]
# ## A proof for somebody else
#
# A bundle is one JSON file. Whoever knows the log's public key can check it without the trace, offline. It names no
# other sample.

# %% tags=["varies"]
bundle = folder / "used.json"
bundle.write_bytes(trace.prove(name))
verify_bundle(bundle, key=str(key))

# %% [markdown]
# ## The verdict on all of it
#
# Everything is read again: each entry, the tree, the index, the scores. There are three answers: holds, refuted, cannot
# tell.

# %% tags=["varies"]
trace.verify(key=str(key))

# %% [markdown]
# And if somebody changes one byte of what was recorded:

# %% tags=["varies"]
tampered = folder / "tampered.trace"
shutil.copytree(folder / "cnn.trace", tampered)
entries = next(path for path in (tampered / "tile" / "entries").rglob("*") if path.is_file())
data = bytearray(entries.read_bytes())
data[len(data) // 2] ^= 1
entries.write_bytes(data)
report = fgtrac.api.trace.open_for_verification(tampered).verify(key=str(key))
report

# %%
str(report.verdict)

# %%
shutil.rmtree(folder)
