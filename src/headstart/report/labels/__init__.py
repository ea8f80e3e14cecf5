"""The report of a fit to several labels an image.

data      the content of such a report
gather    collects it from the result of a fit
storage   ``report.json``: written beside the model, read back with every value checked
page      the HTML page
view      the variables of the page's template, ``labels.html.j2``
"""
