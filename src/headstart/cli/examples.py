"""Examples at the end of the help of each command: what to type, and what it does."""

from __future__ import annotations

# What people look for under the name of another command, told where it gets more arguments than it takes.
ELSEWHERE = {"compare": "to compare models: headstart evaluate MODEL OTHER DATA"}
EXAMPLES: dict[str, list[tuple[str, str]]] = {
    "fit": [
        ("headstart fit photos -o model --open", "the classes are the folders of photos"),
        ("headstart fit photos --validation 0.2", "hold out a fifth of the scenes"),
        ("headstart fit labels.csv --group-by site", "images of one site stay together"),
        ("headstart fit photos --backbone timm:resnet50", "any other network"),
    ],
    "predict": [
        ("headstart predict model new.jpg --top 3", "the three most probable classes"),
        ("headstart predict model photos -o out.csv", "a table; continued where it was stopped"),
        ("headstart predict model photos --copy-to sorted", "a folder for each class"),
        ("headstart predict model new.jpg --explain maps", "where the model looked"),
    ],
    "evaluate": [
        ("headstart evaluate model test-photos", "accuracy, and precision and recall of each class"),
        ("headstart evaluate model test-photos --min-accuracy 0.95", "status 1 below that, for build jobs"),
        ("headstart evaluate old new test-photos", "is the new model better?"),
    ],
    "check": [
        ("headstart check photos", "duplicates, wrong labels, poor images"),
        ("headstart check photos --fix-list fix.csv", "a table to correct them in; fit it afterwards"),
    ],
    "report": [("headstart report model -o page.html", "the report, elsewhere")],
    "open": [("headstart open model", "the report, in a browser")],
    "diff": [
        ("headstart diff old new", "what changed between two models"),
        ("headstart diff old new photos", "and which of these images they predict differently"),
    ],
    "compare": [
        ("headstart compare photos --backbones headstart-s,headstart-m", "which network for these images?"),
    ],
    "fine-tune": [("headstart fine-tune photos -o model", "train the network too, and keep it if that is better")],
    "embed": [
        ("headstart embed photos -o features", "Parquet files; run again, it goes on where it was stopped"),
        ("headstart embed photos -o features --on processes", "shards, by a process for each core"),
    ],
    "merge": [
        ("headstart merge features -o model", "a model of features, without the images"),
        ("headstart merge site-a site-b model-c -o model", "as one fit to the images of all"),
    ],
    "update": [("headstart update model new-photos", "the model of a fit that always had them")],
    "forget": [
        ("headstart forget model customer-17/*.jpg", "the model of a fit that never had them"),
        ("headstart forget model 'customer-17/*.jpg'", "by their paths, where the files are gone"),
    ],
    "export": [
        ("headstart export model --to web", "a page that answers on the visitor's device"),
        ("headstart export model --to openvino --precision fp16", "half the size, proven on your images"),
        ("headstart export model --to onnx --any-size", "crop and resize inside the graph"),
    ],
    "serve": [
        ("headstart serve model", "a page to try it, and its HTTP API, on this machine"),
        ("HEADSTART_TOKEN=... headstart serve model --host 0.0.0.0", "for others, who need the token"),
        ("headstart serve horses dogs", "two models, at /predict/horses and /predict/dogs"),
    ],
    "studio": [
        ("headstart studio photos", "label, mend, try and save, in the browser"),
        ("headstart studio new-project", "begin with an empty folder and the camera"),
        ("headstart studio new --multi-label", "images that may have several labels each"),
    ],
    "verify": [
        ("headstart verify model", "status 1 if this machine predicts something else"),
        ("headstart verify model-openvino", "the proof of an export, replayed here"),
    ],
    "cache": [
        ("headstart cache", "what is kept on this machine, and how large it is"),
        ("headstart cache --clear features --unused-days 30", "forget images not seen for a month"),
    ],
    "sample": [("headstart sample horses-or-humans sample", "a dataset to try things on")],
}
