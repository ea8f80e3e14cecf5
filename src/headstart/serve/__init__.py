"""A model behind HTTP.

options.py   ServerOptions: where a server listens, whom it answers, and its limits
guards.py    what every request passes before a route sees it: Host or token, origin, security headers
limits.py    bounds on bodies, on requests at a time, and on the time of one
protocol.py  bounds on connections, and deadlines for a client that sends or reads slowly
static.py    the files of a page, from memory
run.py       listening, serving, and stopping without a lost request

engine.py    one model, loaded: its threads, decoding, prediction, class activation map
batching.py  images of different requests run together
models.py    all models of a server, and replaced folders
app.py       the routes: predict.py, oip.py and tensors.py read requests, answers.py, api.py and metrics.py write
drift.py     whether more images are rejected than were promised

Guards, limits, protocol and static know no model: ``studio`` stands on them too.
"""
