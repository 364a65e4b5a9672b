"""Annotators: everything that judges pictures, behind one protocol (``protocol.Annotator``).

``choice`` opens the annotator that the settings name:

* ``measured`` computes image statistics of the pixels,
* ``vlm`` asks a vision-language model,
* ``recorded`` replays judgements from files, those of people among them.

People judge outside of the program: ``human`` writes what Label Studio shows them and reads
what they answered, as a file that ``recorded`` replays.
"""
