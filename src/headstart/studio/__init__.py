"""``headstart studio``: label images, see at once what the labels are worth, try the model, save it.

records        what is known of an image; names of classes
table          the table of the labels, beside the folder
listing        what lies in the folder
moves          moving files so that a kill loses nothing
opening        the images as the table and the folder have them, and the lock
project        the folder as a project: changes, versions, undo
image_files    image files of clients, and small copies
imports        images out of archives
"""
