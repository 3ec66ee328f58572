"""Whole models on the disk, as what they hold and not as how they are spelled: diffusers folders and single files.

`opening` makes a `Checkpoint` of either, under the names of diffusers and transformers; `folder` and `single` write
one; `merge` adds adapters to one. Numbers stay in their files until a tensor is asked for. Nothing here is about
training: which family can be trained is `engine.models.load`'s to say.
"""
