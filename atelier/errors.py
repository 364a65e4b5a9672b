"""Errors that an operator can fix; commands print them as one paragraph, without traceback.

AtelierError
├── ParamsError        a file in params/ does not say what its stage needs
├── CriteriaError      the criteria tree contradicts itself
├── AnnotationError    a judge's answer does not fit the tree
├── ImageError         a picture cannot be used; annotate sets it aside
├── ArtifactError      an input file is absent, damaged, or is from another run
├── DivergedError      the loss is not finite, or exploded, or drifts; checkpoints are kept
├── RoomError          a device has too little memory for what runs on it
└── DiskError          the disk is full or may not be written; what was finished is kept

Everything else (a wrong shape, a broken invariant) is a bug and stays a
built-in exception.
"""


class AtelierError(Exception):
    """One clear paragraph: which file, which field, what was there, what would be right."""


class ParamsError(AtelierError):
    """A file in ``params/`` does not say what its stage needs."""


class CriteriaError(AtelierError):
    """The criteria tree contradicts itself."""


class AnnotationError(AtelierError):
    """A judge's answer does not fit the tree."""


class ImageError(AtelierError):
    """A picture cannot be used; its text is the reason that the quarantine list gives."""


class ArtifactError(AtelierError):
    """An input file is absent, damaged, or is from another run."""


class DivergedError(AtelierError):
    """The loss is not finite, or exploded, or a run drifts; the last checkpoints are kept."""


class RoomError(AtelierError):
    """A device has too little memory; the text says what to change."""


class DiskError(AtelierError):
    """The disk is full or may not be written; what was finished before is kept."""
