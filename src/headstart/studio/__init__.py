"""``headstart studio``: label images, see at once what the labels are worth, try the model, save it.

records        what is known of an image; names of classes
label_sets     several labels an image: present, absent or not known
state          a project at one moment, and the steps by which it changes
table          the table of the labels, beside the folder
class_list     the kind of a project and the names of its classes, on the disk
listing        what lies in the folder
moves          moving files so that a kill loses nothing
opening        the images as the table and the folder have them, and the lock
project        the folder as a project: changes, versions, undo
image_files    image files of clients, and small copies
imports        images out of archives
embedded       the features of images, each computed once
engine         what is computed: features, live figures after every change, the full choice
choice         the full choice: a fit, and the head that is followed from then on
live           what is followed from one click to the next
guesses        what the model of the last full choice says of images that it has not learned
figures        accuracy, confusion, label issues and uncertain images from held-out scores
label_counts   how many images have each label, and which labels can be learned
label_figures  mAP, each label, cells that look wrong and uncertain images
saved          the model that is saved, and the paired test against it
tries          images that are tried, and may be added
events         what happens, for the pages that are open
jobs           work that a page waits for: save, report, export
requests       bodies of requests, and errors as answers
access         the token, and the key for images and events
api_reads      routes that read
label_reads    what they answer where images have several labels
api_changes    routes that change
app            the application
page/          the page: HTML, style and modules
"""
