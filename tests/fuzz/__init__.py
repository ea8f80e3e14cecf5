"""A seeded campaign of hostile inputs. Run it with ``python tests/fuzz --help``, or for hours with ``make fuzz``.

run.py         the campaign: workers, limits of time and memory, the table
worker.py      a process that builds and uses inputs one after another
kinds.py       the kinds of input, each with how it is built and how it is used
mutate.py      mutations of bytes and of JSON
images.py, archives.py, tables.py, models.py, graphs.py, caches.py   inputs of each kind
"""
