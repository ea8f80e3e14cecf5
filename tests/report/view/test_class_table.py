"""Results by class."""

from headstart.report.data import ImageResult
from headstart.report.view.class_table import ClassRow, class_table, coloured_classes


def result(true_class, predicted_class, probability):
    return ImageResult("", 0, true_class, predicted_class, 0, 0.5, 0.25, probability)


def test_classes_are_in_order_of_accuracy_with_their_most_frequent_error():
    images = [result(0, 0, 0.5), result(1, 1, 0.5), result(1, 0, 0.25), result(1, 2, 0.25), result(1, 2, 0.0)]
    assert class_table(images) == [ClassRow(1, 4, 1, 0.25, 2), ClassRow(0, 1, 1, 0.5, None)]


def test_classes_with_the_most_errors_have_a_colour():
    images = [result(c, c, 1.0) for c in range(12)] + [result(11, 0, 0.0), result(10, 0, 0.0)]
    assert coloured_classes(images) == [0, 1, 2, 3, 4, 5, 10, 11]
