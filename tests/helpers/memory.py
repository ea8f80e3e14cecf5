"""Memory that Python and NumPy have taken."""

import tracemalloc


def peak_of(work):
    """Return the most bytes that were taken at once while ``work`` ran."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
