"""The model folder, and predictions from it. Nothing here needs the code that fits a model.

model.py        Model: classes, preprocessing, head and graph of a finished classifier
compose.py      backbone and head as one ONNX graph: uint8 images in, probabilities and OOD score out
golden.py       a few images with their predictions, to prove that a machine computes the same
folder_files.py the files of a model folder, and what may be replaced
graph_check.py  what model.onnx may hold, checked before it is run
folder.py       write a model folder whole or not at all; read one as untrusted data
card.py         the model card
predictions.py  Predictions and Evaluation
label_predictions.py  the same of several labels an image
label_rows.py   predictions of several labels as rows and objects
predictor.py    Predictor: model folder in, predictions out
prediction_rows.py  predictions as rows of tables and objects of JSON
prediction_file.py  a file of predictions that grows in pieces and can be continued
sorted_copies.py    images copied into a folder for each predicted class
notebook.py     what notebooks show of a model and of an evaluation
cam.py          class activation maps
explain.py      class activation maps of new images, from the graph of a finished model
"""

from headstart.model.predictions import Evaluation, Predictions
from headstart.model.predictor import Predictor

__all__ = ["Evaluation", "Predictions", "Predictor"]
