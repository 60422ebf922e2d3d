"""One thread for every computation, here and in child processes: a sum in another order has other last bits."""

import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"  # read when numpy and torch are loaded, which is later
