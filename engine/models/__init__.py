"""Model families: what differs between kinds of base models, and nothing else.

`base.Family` is what the rest of the engine sees; `load` finds a base and makes its family. Importing this package or
`load` costs no torch, so that the host can look a base up.
"""
