"""Images and captions: from the folders that a user names to the micro-batches that a step reads.

`dataset.build` looks at everything and refuses with all problems at once; `order` says which image, caption, flip and
crop every micro-batch holds, as a pure function of the seed; `plan` is the arithmetic shown before the run; `cache`
keeps encoded images, and is the only module here that knows torch.
"""
