"""One BLAS thread while anyone wants it so, whichever threads come and go."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import threading
from threadpoolctl import threadpool_info
from spectral_conv._threads import serial_blas
import numpy.linalg, scipy.linalg.cython_blas

def counts():
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]

before = counts()
inside, gate, leave = [], threading.Barrier(4), threading.Barrier(4)

def user(number):
    with serial_blas():
        gate.wait()
        inside.append(counts())
        leave.wait()
        inside.append(counts())

with serial_blas():
    inside.append(counts())
for _ in range(3):
    threads = [threading.Thread(target=user, args=(i,)) for i in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert counts() == before, (counts(), before)
with serial_blas():
    inside.append(counts())
assert counts() == before
assert len(inside) == 26 and all(set(c) == {1} for c in inside), inside
print(before)
"""


def test_blas_is_serial_for_users_in_several_threads() -> None:
    # A process of its own: the suite itself runs with one BLAS thread.
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        env={"OPENBLAS_NUM_THREADS": "2", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
